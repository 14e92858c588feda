"""Readings of the spectral-norm constraint (SNC), and that of NumPy's axes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

import absum_jax
from absum_jax.kernels import leaf_name
from experiments.methods.method import Params, Uses


def on_kernels(
    params: Params,
    uses: Uses,
    clip: Callable[[jax.Array, absum_jax.ConvUse], jax.Array],
) -> Params:
    """Replaces each convolution kernel by what `clip` makes of it."""

    def replaced(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = leaf_name(path)
        if name not in uses:
            return leaf
        [use] = uses[name]
        return clip(leaf, use)

    return jax.tree_util.tree_map_with_path(replaced, params)


def check_fits(shape: Sequence[int], size: Sequence[int]) -> None:
    """Refuses a kernel that `fft2` would crop, so that no whole one comes back."""
    if shape[0] > size[0] or shape[1] > size[1]:
        raise ValueError(
            f"kernel must not be larger than its input, got {tuple(shape)} on "
            f"{tuple(size)}: fft2 would crop it."
        )


def clip_numpy_axes(params: Params, max_norm: jax.Array, uses: Uses) -> Params:
    """Clips what NumPy's default axes select in kernels (out, in, height, width).

    `fft2(kernel, (n, n))` transforms the last two axes, and `svd` decomposes the last
    two: the n x n transform of each filter by itself. The transform is n times an
    isometry of the filter. So this clips the singular values of each filter, a matrix
    (height, width), at `max_norm / n`, and cutting to the support loses nothing.
    """

    def clip(kernel: jax.Array, use: absum_jax.ConvUse) -> jax.Array:
        height, width = kernel.shape[:2]
        check_fits((height, width), use.input_shape)
        filters = kernel.reshape(height, width, -1)
        count = filters.shape[-1]
        # As convolutions of one pixel from `height` to `width` channels.
        matrices = filters.transpose(0, 2, 1).reshape(1, 1, height, count * width)
        bound = max_norm / math.sqrt(math.prod(use.input_shape))
        clipped = absum_jax.clip_conv_spectral_norm(
            matrices, (1, 1), bound, groups=count
        ).reshape(height, count, width)
        return clipped.transpose(0, 2, 1).reshape(kernel.shape)

    return on_kernels(params, uses, clip)
