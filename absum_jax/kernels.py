"""Names of leaves in a parameter tree, and which of them are convolution kernels."""

import re
from typing import Any

import chex
import jax

_KERNEL_NAMES = frozenset({"kernel", "w", "weight"})
# Attributes that flax nnx and linen insert between a name and its array.
_WRAPPERS = frozenset({"value", "raw_value"})
# Modules whose kernels of rank 4 and 5 are not convolution kernels.
_OTHER_WORDS = frozenset({"query", "key", "value", "qkv", "local", "attn"})
_OTHER_PARTS = ("attention", "embedding", "einsum", "expert")


def _entry_name(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def path_names(path: tuple[Any, ...]) -> list[str]:
    """Lists the names along a tree path; a haiku name such as `net/conv2_d` is two."""
    names = [part for entry in path for part in re.split(r"[/.]", _entry_name(entry))]
    names = [name for name in names if name]
    while names and names[-1] in _WRAPPERS:
        names.pop()
    return names


def leaf_name(path: tuple[Any, ...]) -> str:
    """Joins the names along a tree path, as in the keys of :func:`conv_input_shapes`.

    In a flax nnx module, its State and its pure State a leaf has the same name.

    Args:
      path: the leaf's path, from `jax.tree_util.tree_leaves_with_path`.

    Returns:
      The names, joined by slashes.

    Example:
      >>> import jax
      >>> from absum_jax.kernels import leaf_name
      >>> [(path, _)] = jax.tree_util.tree_leaves_with_path({"conv1": {"kernel": 1.0}})
      >>> leaf_name(path)
      'conv1/kernel'
    """
    return "/".join(path_names(path))


def _words(module: str) -> list[str]:
    """Splits `MultiHeadAttention_0` or `self_attn` into lower-case words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", module)
    return [word.lower() for word in re.findall(r"[A-Za-z]+", spaced)]


def _is_other(module: str) -> bool:
    lower = module.lower()
    return any(part in lower for part in _OTHER_PARTS) or any(
        word in _OTHER_WORDS for word in _words(module)
    )


def is_conv_kernel(path: tuple[Any, ...], ndim: int) -> bool:
    """Returns whether the leaf of `ndim` axes at a path is a convolution kernel."""
    *modules, name = path_names(path) or [""]
    if name not in _KERNEL_NAMES or any(map(_is_other, modules)):
        return False
    if ndim == 3:
        return any("conv" in module.lower() for module in modules)
    return ndim in (4, 5)


def check_layout(path: tuple[Any, ...], ndim: int, needed: str) -> None:
    """Refuses a leaf whose name leaves the layout open.

    Args:
      path: the path of the leaf in its tree.
      ndim: the number of its axes.
      needed: which argument must be passed, as the start of the message.

    Raises:
      ValueError: if the leaf is named `weight` and has at least three axes.
    """
    names = path_names(path)
    if names[-1:] == ["weight"] and ndim >= 3:
        raise ValueError(
            f"{needed} for `{'/'.join(names)}`, as kernels named weight have either "
            f"layout: {tuple(range(2, ndim))} are the spatial axes in equinox and "
            f"PyTorch, (out, in, spatial...), {tuple(range(ndim - 2))} those of "
            "(spatial..., in, out), such as HWIO."
        )


def conv_kernels(params: chex.ArrayTree) -> Any:
    """Marks the convolution kernels of a parameter tree.

    A leaf counts as a convolution kernel if its name is `kernel`, `w` or `weight` and
    it has four or five axes, or three axes inside a module whose name contains `conv`.
    Modules are excluded if their name contains attention (attn), query, key, value,
    qkv, embedding, einsum, local or expert. Only names and ranks are used, so that the
    mask is the same for parameters, gradients and updates. This works for flax nnx and
    linen, haiku, equinox and plain dicts; other names need their own mask.

    The function is a mask for any optax transformation. For weight decay only on
    convolution kernels, as in the paper, put
    ``optax.add_decayed_weights(1e-4, mask=absum_jax.conv_kernels)`` before the SGD.

    Args:
      params: any tree of parameters, gradients or updates.

    Returns:
      A tree of the same structure, True at convolution kernels.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> absum_jax.conv_kernels({
      ...     "conv": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.ones(8)},
      ...     "dense": {"kernel": jnp.ones((8, 10))},
      ... })
      {'conv': {'bias': False, 'kernel': True}, 'dense': {'kernel': False}}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: is_conv_kernel(path, getattr(leaf, "ndim", 0)), params
    )
