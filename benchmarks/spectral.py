"""Clips and norms: this library against NumPy, as the paper has it."""

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
from absum_jax.kernels import leaf_name
from benchmarks import torch_peer
from experiments.models.resnet import ResNet18
from experiments.runtimes import numpy_snc
from experiments.runtimes.timing import in_turns

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
    """Returns the geometry of each 3x3 kernel of ResNet-18, by name, and its uses."""
    model = nnx.eval_shape(lambda: ResNet18(rngs=nnx.Rngs(0)))
    model = nnx.view(model, use_running_average=True)
    x = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    uses = absum_jax.conv_input_shapes(lambda model, x: model(x), model, x)
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    shapes = {leaf_name(path): leaf.shape for path, leaf in leaves}
    uses = {name: use for name, use in uses.items() if shapes[name][:2] == (3, 3)}
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
    """Returns the median seconds of functions that are compiled already."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for name, value in in_turns(candidates, lambda name: len(seconds[name]) < ROUNDS):
        seconds[name].append(value)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def _clips(geometry: _Geometry, kernel: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Returns clips of a kernel: by NumPy, by the library, and again by the library."""

    def clip(kernel: jax.Array, method: str | None = None) -> jax.Array:
        return absum_jax.clip_conv_spectral_norm(
            kernel, geometry.input_shape, MAX_NORM,
            strides=geometry.strides, method=method,
        )  # fmt: skip

    candidates: dict[str, Callable[[], Any]] = {
        "NumPy": functools.partial(
            numpy_snc.clip_kernel, kernel, geometry.input_shape, MAX_NORM
        )
    }
    if _has_torch_with_cuda():
        candidates["torch svd"] = _torch_clip(kernel, geometry.input_shape)
    if jax.default_backend() != "cpu":
        candidates["eigh"] = _compiled(functools.partial(clip, method="eigh"), kernel)
    candidates["default"] = _compiled(clip, kernel)
    clipped = candidates["default"]()
    candidates["default, after a clip"] = _compiled(clip, clipped)
    return candidates


def _norms(geometry: _Geometry, kernel: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Returns the spectral norm of a kernel, by NumPy and by the library."""

    def by_numpy() -> np.ndarray:
        transfer = np.fft.fft2(kernel, geometry.input_shape, axes=(0, 1))
        return np.linalg.svd(transfer, compute_uv=False).max()

    def norm(kernel: jax.Array) -> jax.Array:
        return absum_jax.conv_spectral_norm(
            kernel, geometry.input_shape, strides=geometry.strides
        )

    return {"NumPy": by_numpy, "default": _compiled(norm, kernel)}


class _Layers(NamedTuple):
    """The 3x3 convolutions of ResNet-18 with fresh kernels."""

    geometries: dict[str, _Geometry]
    uses: Any
    kernels: dict[str, np.ndarray]

    @classmethod
    def drawn(cls) -> "_Layers":
        geometries, uses = _geometries()
        rng = np.random.default_rng(0)
        kernels = {name: _kernel(rng, g.kernel_shape) for name, g in geometries.items()}
        return cls(geometries, uses, kernels)

    def rows(
        self,
        what: str,
        candidates: Callable[[_Geometry, np.ndarray], dict[str, Callable[[], Any]]],
    ) -> tuple[list[dict[str, Any]], float]:
        """Times candidates on each geometry, and adds the layers up.

        Returns:
          The rows, and NumPy's seconds for all layers.
        """
        rows: list[dict[str, Any]] = []
        total: dict[str, float] = collections.defaultdict(float)
        for geometry, count in collections.Counter(self.geometries.values()).items():
            name = next(name for name, g in self.geometries.items() if g == geometry)
            seconds = _seconds(candidates(geometry, self.kernels[name]))
            rows += _rows(what, f"{count} of {geometry}", seconds, seconds["NumPy"])
            for method, value in seconds.items():
                total[method] += count * value
        case = f"sum over {len(self.geometries)} layers"
        return rows + _rows(what, case, total, total["NumPy"]), total["NumPy"]


def _rows(
    what: str, case: str, seconds: Mapping[str, float], numpy_seconds: float
) -> list[dict[str, Any]]:
    return [
        {
            "benchmark": f"{what}, 3x3 layers of ResNet-18, {SIZE}x{SIZE}",
            "case": f"{case}, {name}",
            "ms": 1e3 * value,
            "ratio": value / numpy_seconds,
            "ratio_to": "NumPy",
        }
        for name, value in seconds.items()
    ]


def clip_speed() -> list[dict[str, Any]]:
    """Times clips of each convolution, and of all in one program.

    From fresh kernels, and again of the clipped ones, whose cut has lifted most blocks
    a little above the bound. NumPy and PyTorch decompose at stride 1, as the paper
    does; the library takes strides into account.
    """
    layers = _Layers.drawn()
    rows, numpy_seconds = layers.rows("clip", _clips)

    def clip(kernels: Any) -> Any:
        return absum_jax.apply_spectral_norm_constraint(kernels, MAX_NORM, layers.uses)

    once = _compiled(clip, layers.kernels)
    together = {"default": once, "default, after a clip": _compiled(clip, once())}
    case = f"{len(layers.geometries)} layers at once"
    return rows + _rows("clip", case, _seconds(together), numpy_seconds)


def norm_speed() -> list[dict[str, Any]]:
    """Times the spectral norm of each convolution; NumPy's at stride 1."""
    return _Layers.drawn().rows("spectral norm", _norms)[0]
