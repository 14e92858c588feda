"""Converts weights of PyTorch's networks to ours and back."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.jobs import digests
from experiments.models.architectures import ARCHITECTURES, without_values
from experiments.models.classifier import Variables, variables_of


class _Layout(NamedTuple):
    """How a project in PyTorch names the modules of a network."""

    network: str  # and those whose names begin like it
    modules: Mapping[str, str]  # theirs by ours; the last has a bias for each class
    # By our names of dense layers, the channels of the image that they flatten.
    channels: Mapping[str, int] = {}


def _resnet18(shortcut: str, dense: str) -> _Layout:
    """Returns the layout of a ResNet-18 with its own names of two modules."""
    modules = {"stem": "conv1", "stem_norm": "bn1"}
    of_block = {
        "conv1": "conv1", "norm1": "bn1", "conv2": "conv2", "norm2": "bn2",
        "shortcut": f"{shortcut}.0", "shortcut_norm": f"{shortcut}.1",
    }  # fmt: skip
    for block in range(8):
        theirs = f"layer{block // 2 + 1}.{block % 2}"
        modules |= {f"blocks/{block}/{k}": f"{theirs}.{v}" for k, v in of_block.items()}
    return _Layout("resnet18", modules | {"dense": dense})


LAYOUTS = {
    "pytorch-cifar": _resnet18("shortcut", "linear"),
    "torchvision": _resnet18("downsample", "fc"),
    # The CNN of an earlier MNIST example.
    "pytorch-examples": _Layout(
        "small_cnn",
        {"conv1": "conv1", "conv2": "conv2", "dense1": "fc1", "dense2": "fc2"},
        {"dense1": 20},
    ),
}
# Modules named as ours.
_OURS = _Layout("", {})
_LEAVES = {
    "kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var",
}  # fmt: skip
# Before all names where a network is wrapped, for several devices or compilation.
_PREFIXES = ("module.", "_orig_mod.")
# Has no effect in evaluation.
_IGNORED = ".num_batches_tracked"


def _leaves(variables: Variables, layout: _Layout) -> Iterator[tuple[str, Any, int]]:
    """Yields each array with PyTorch's name, and the channels if it flattens them."""
    for path, leaf in digests.named(variables).items():
        _, *modules, name = path.split("/")
        module = "/".join(modules)
        theirs = layout.modules.get(module, ".".join(modules))
        yield (
            f"{theirs}.{_LEAVES.get(name, name)}",
            leaf,
            layout.channels.get(module, 0) if name == "kernel" else 0,
        )


def _theirs(values: np.ndarray, channels: int) -> np.ndarray:
    """Converts (height, width, in, out) and (in, out) to PyTorch's order."""
    if channels:
        side = math.isqrt(len(values) // channels)
        image = values.reshape(side, side, channels, -1)
        values = image.transpose(2, 0, 1, 3).reshape(values.shape)
    return values.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(values.ndim))


def _ours(values: np.ndarray, channels: int) -> np.ndarray:
    """Inverts `_theirs`."""
    values = values.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(values.ndim))
    if channels:
        side = math.isqrt(len(values) // channels)
        image = values.reshape(channels, side, side, -1)
        values = image.transpose(1, 2, 0, 3).reshape(values.shape)
    return values


def to_pytorch(
    variables: Variables, layout: str | None = None
) -> dict[str, np.ndarray]:
    """Converts parameters and batch statistics to the tensors of a `state_dict`.

    Args:
      variables: variables of a network.
      layout: the naming scheme: `pytorch-cifar` or `torchvision` for a ResNet-18,
        `pytorch-examples` for the small CNN; None uses the names of the modules here.

    Returns:
      float32 arrays by PyTorch's names. Kernels are (out, in, height, width), those of
      dense layers (out, in).

    Raises:
      ValueError: if there is no such layout, or it lacks modules of the network.

    Example:
      >>> import jax
      >>> from experiments.models import build, pytorch
      >>> network = build("small_cnn", (0.13,), (0.31,))
      >>> tensors = pytorch.to_pytorch(
      ...     network.init(jax.random.key(0)), "pytorch-examples"
      ... )
      >>> tensors["conv2.weight"].shape, tensors["fc1.weight"].shape
      ((20, 10, 5, 5), (50, 320))
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {[*LAYOUTS]}, got {layout!r}.")
    chosen = _OURS if layout is None else LAYOUTS[layout]
    modules = {"/".join(p.split("/")[1:-1]) for p in digests.named(variables)}
    if layout is not None and (others := modules - chosen.modules.keys()):
        raise ValueError(
            f"`layout` {layout!r} must have all modules of `variables`, but lacks "
            f"{', '.join(sorted(others))}."
        )
    return {
        name: np.array(_theirs(np.asarray(leaf), channels), np.float32, order="C")
        for name, leaf, channels in _leaves(variables, chosen)
    }


def _unwrapped(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Removes prefixes that all names have, and counts of batches."""
    if not isinstance(tensors, Mapping):
        raise ValueError(
            f"`tensors` must be a `state_dict`, got {type(tensors).__name__}."
        )
    for prefix in _PREFIXES * 2:  # in any order
        if all(name.startswith(prefix) for name in tensors):
            tensors = {n.removeprefix(prefix): t for n, t in tensors.items()}
    kept = (name for name in tensors if not name.endswith(_IGNORED))
    return {name: _as_array(name, tensors[name]) for name in kept}


def _as_array(name: str, tensor: Any) -> np.ndarray:
    try:
        return np.asarray(tensor)
    except (RuntimeError, TypeError) as error:  # PyTorch's
        raise ValueError(
            f"`tensors[{name!r}]` must be an array of NumPy, or a tensor that becomes "
            f"one: {error}"
        ) from error


def _layout_of(tensors: Collection[str], network: str) -> _Layout:
    """Returns the layout of a network that shares the most names."""
    layouts = [one for one in LAYOUTS.values() if network.startswith(one.network)]
    if network not in ARCHITECTURES or not layouts:
        known = {one.network for one in LAYOUTS.values()}
        names = [name for name in ARCHITECTURES if name.startswith(tuple(known))]
        raise ValueError(f"`network` must be one of {names}, got {network!r}.")

    def shared(layout: _Layout) -> int:
        return sum(f"{module}.weight" in tensors for module in layout.modules.values())

    return max(layouts, key=shared)


def from_pytorch(tensors: Mapping[str, Any], network: str) -> Variables:
    """Converts the tensors of a `state_dict` to parameters and batch statistics.

    Args:
      tensors: arrays by PyTorch's names, which may all begin with `module.` or
        `_orig_mod.`; `num_batches_tracked` is ignored. Names are those of
        pytorch-cifar's or torchvision's ResNet-18, or `conv1`, `conv2`, `fc1` and
        `fc2` of the CNN of an earlier PyTorch example for MNIST, as in the paper.
      network: name of the network: `small_cnn`; `resnet18` with a 3 x 3 stem and no
        max-pooling after it, as pytorch-cifar's; `resnet18_224` with a 7 x 7 stem, as
        torchvision's. Either may have either names, and any number of classes.

    Returns:
      The variables, float32. Networks here with them compute PyTorch's logits up to
      rounding; without a `log_softmax`, which changes no prediction.

    Raises:
      ValueError: if there is no such network, names are missing or not known, or a
        tensor has another shape or no floating-point numbers, or cannot become an array
        of NumPy, as in bfloat16 or on a GPU: call `.float().cpu()` on the network.

    Example:
      >>> import jax, numpy as np
      >>> from experiments.models import build, pytorch
      >>> variables = build("small_cnn", (0.1,), (0.3,)).init(jax.random.key(0))
      >>> tensors = pytorch.to_pytorch(variables, "pytorch-examples")
      >>> again = pytorch.from_pytorch(tensors, "small_cnn")
      >>> kernels = [v.params["dense1"]["kernel"] for v in (variables, again)]
      >>> np.array_equal(*kernels)
      True
    """
    return converted(tensors, network)[0]


def converted(tensors: Mapping[str, Any], network: str) -> tuple[Variables, int]:
    """Converts the tensors of a `state_dict`, and counts the classes."""
    tensors = _unwrapped(tensors)
    layout = _layout_of(tensors, network)
    *_, head = layout.modules.values()
    classes = max(1, tensors.get(f"{head}.bias", np.zeros(1)).size)
    abstract = variables_of(
        without_values(ARCHITECTURES[network].create, classes=classes)
    )
    leaves = list(_leaves(abstract, layout))
    names = {name for name, _, _ in leaves}
    lacking, unknown = sorted(names - tensors.keys()), sorted(tensors.keys() - names)
    if lacking or unknown:
        raise ValueError(
            f"`tensors` must be those of {network}: missing {_listed(lacking)}, "
            f"unexpected {_listed(unknown)}."
        )
    converted = []
    for name, leaf, channels in leaves:
        values = tensors[name]
        shape = _theirs(np.broadcast_to(np.float32(0), leaf.shape), channels).shape
        if values.shape != shape or not jnp.issubdtype(values.dtype, jnp.floating):
            raise ValueError(
                f"`tensors[{name!r}]` must be floating-point of shape {shape}, got "
                f"{values.dtype} {values.shape}."
            )
        converted.append(jnp.asarray(_ours(values.astype(np.float32), channels)))
    return jax.tree.unflatten(jax.tree.structure(abstract), converted), classes


def _listed(names: Sequence[str]) -> str:
    """Formats a list of names, of which the first few are enough."""
    if not names:
        return "none"
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + rest
