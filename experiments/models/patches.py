"""Convolution as one matrix product of patches, on images (channels, h, w, batch).

Under `vmap` over models a native convolution becomes a grouped one, which is slow; a
matrix product becomes a larger matrix product. With the batch as the last axis every
slice and every product runs over contiguous memory.
"""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _unfold(x: jax.Array, size: int, axis: int) -> jax.Array:
    """All windows of a size along an axis, their places stacked along the first."""
    length = x.shape[axis] - size + 1
    return jnp.concatenate(
        [jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(size)]
    )


def _fold_by_padding(g: jax.Array, size: int, axis: int) -> jax.Array:
    padded = []
    for i, place in enumerate(jnp.split(g, size)):
        padding = [(0, 0)] * g.ndim
        padding[axis] = (i, size - 1 - i)
        padded.append(jnp.pad(place, padding))
    return functools.reduce(jnp.add, padded)


def _fold_in_place(g: jax.Array, size: int, axis: int) -> jax.Array:
    length = g.shape[axis]
    places = jnp.split(g, size)
    shape = list(places[0].shape)
    shape[axis] = length + size - 1
    total = jnp.zeros(shape, g.dtype)
    for i, place in enumerate(places):
        there = jax.lax.slice_in_dim(total, i, i + length, axis=axis)
        total = jax.lax.dynamic_update_slice_in_dim(total, there + place, i, axis)
    return total


def _fold(g: jax.Array, size: int, axis: int) -> jax.Array:
    """The transpose of `_unfold`: overlapping windows added up.

    A sum of padded windows is one kernel on an accelerator. On a CPU it asks at each
    entry which windows cover it, and an attack takes half as long again.
    """
    return jax.lax.platform_dependent(
        g,
        cpu=functools.partial(_fold_in_place, size=size, axis=axis),
        default=functools.partial(_fold_by_padding, size=size, axis=axis),
    )


_unfold.defvjp(
    lambda x, size, axis: (_unfold(x, size, axis), None),
    lambda size, axis, _, g: (_fold(g, size, axis),),
)


def patch_conv(kernel: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    """A convolution without padding.

    Args:
      kernel: square, HWIO.
      bias: (O,).
      x: images (I, height, width, batch).

    Returns:
      Images (O, height - h + 1, width - w + 1, batch).
    """
    size = kernel.shape[0]
    # Rows first, then columns: 5 + 5 slices instead of 25.
    windows = _unfold(_unfold(x, size, 1), size, 2)
    weights = kernel.swapaxes(0, 1).reshape(-1, kernel.shape[-1])
    return jnp.tensordot(weights, windows, axes=(0, 0)) + bias[:, None, None, None]
