"""The clip of singular values: this library against NumPy, as the paper has it."""

import collections
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import absum_jax
from absum_jax.tracing import leaf_name
from benchmarks import torch_peer
from benchmarks.timing import median_seconds
from experiments.models.resnet import ResNet18
from experiments.paper import numpy_snc
from experiments.timing import seconds_of

SIZE = 32
MAX_NORM = 1.0
ROUNDS = 3


class _Geometry(NamedTuple):
    """What distinguishes the convolutions of ResNet-18."""

    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __str__(self) -> str:
        kernel = "x".join(map(str, self.kernel_shape))
        size = "x".join(map(str, self.input_shape))
        return f"{kernel} at {size}, stride {self.strides[0]}"


def _geometries() -> tuple[dict[str, _Geometry], Any]:
    """The geometry of each kernel of ResNet-18, by its name, and all uses."""
    model = nnx.eval_shape(lambda: ResNet18(rngs=nnx.Rngs(0)))
    model = nnx.view(model, use_running_average=True)
    x = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    uses = absum_jax.conv_input_shapes(lambda model, x: model(x), model, x)
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    shapes = {leaf_name(path): leaf.shape for path, leaf in leaves}
    return {
        name: _Geometry(shapes[name], use.input_shape, use.strides)
        for name, (use,) in uses.items()
    }, uses


def _kernel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A random kernel of He's scale, whose norm exceeds the bound."""
    scale = math.sqrt(2 / math.prod(shape[:-1]))
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def _torch_clip(kernel: np.ndarray, input_shape: tuple[int, ...]) -> Callable[[], None]:
    """The clip as in NumPy, on the GPU."""
    import torch

    on_device = torch.from_numpy(kernel).to("cuda")
    height, width = kernel.shape[:2]

    def run() -> None:
        transfer = torch.fft.fft2(on_device, input_shape, dim=(0, 1))
        left, values, right = torch.linalg.svd(transfer, full_matrices=False)
        clipped = left * values.clamp(max=MAX_NORM)[..., None, :] @ right
        _ = torch.fft.ifft2(clipped, dim=(0, 1)).real[:height, :width].contiguous()
        torch.cuda.synchronize()

    return run


def _has_torch_with_cuda() -> bool:
    if jax.default_backend() == "cpu" or not torch_peer.is_installed():
        return False
    import torch

    return torch.cuda.is_available()


def _compiled(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    argument = jax.tree.map(jnp.asarray, argument)
    compiled = jax.jit(function).lower(argument).compile()
    return functools.partial(compiled, argument)


def _seconds(candidates: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    if jax.default_backend() == "cpu":
        # Compiled ahead and seconds long: the first time is as good as any other.
        return {name: seconds_of(function) for name, function in candidates.items()}
    return median_seconds(candidates, rounds=ROUNDS)


def _candidates(
    geometry: _Geometry, kernel: np.ndarray
) -> dict[str, Callable[[], Any]]:
    candidates: dict[str, Callable[[], Any]] = {
        "NumPy": functools.partial(
            numpy_snc.clip_kernel, kernel, geometry.input_shape, MAX_NORM
        )
    }
    if _has_torch_with_cuda():
        candidates["torch svd"] = _torch_clip(kernel, geometry.input_shape)
    for method in ("svd", "eigh", "polar"):

        def clip(kernel: jax.Array, method: str = method) -> jax.Array:
            return absum_jax.clip_conv_spectral_norm(
                kernel, geometry.input_shape, MAX_NORM,
                strides=geometry.strides, method=method,
            )  # fmt: skip

        candidates[method] = _compiled(clip, kernel)
    return candidates


def clip_speed() -> list[dict[str, Any]]:
    """One clip of each convolution of ResNet-18, of all, and of all in one program.

    NumPy and PyTorch decompose at stride 1, as the paper does; the library takes
    strides into account. On a CPU that others use too, set OPENBLAS_NUM_THREADS=1:
    threads that wait for each other cost NumPy, `svd` and `eigh` up to a hundredfold.
    """
    geometries, uses = _geometries()
    rng = np.random.default_rng(0)
    kernels = {name: _kernel(rng, g.kernel_shape) for name, g in geometries.items()}
    rows: list[dict[str, Any]] = []

    def add(case: str, seconds: Mapping[str, float], numpy_seconds: float) -> None:
        rows.extend(
            {
                "benchmark": f"clip, ResNet-18, {SIZE}x{SIZE}",
                "case": f"{case}, {name}",
                "ms": 1e3 * value,
                "ratio": value / numpy_seconds,
                "ratio_to": "NumPy",
            }
            for name, value in seconds.items()
        )

    total: dict[str, float] = collections.defaultdict(float)
    for geometry, count in collections.Counter(geometries.values()).items():
        name = next(name for name, g in geometries.items() if g == geometry)
        seconds = _seconds(_candidates(geometry, kernels[name]))
        add(f"{count} of {geometry}", seconds, seconds["NumPy"])
        for method, value in seconds.items():
            total[method] += count * value
    add(f"sum over {len(geometries)} layers", total, total["NumPy"])

    together = {
        method: _compiled(
            functools.partial(
                absum_jax.apply_spectral_norm_constraint,
                max_norm=MAX_NORM, input_shapes=uses, method=method,
            ),
            kernels,
        )
        for method in ("eigh", "polar")
    }  # fmt: skip
    add(f"{len(geometries)} layers at once", _seconds(together), total["NumPy"])
    return rows
