"""The spectral-norm constraint as the paper computes it, in NumPy."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from experiments.methods.snc import on_kernels


def clip_kernel(
    kernel: np.ndarray, input_shape: Sequence[int], max_norm: float
) -> np.ndarray:
    """Clips the singular values of a circular convolution, by FFT and SVD.

    Decomposes the transfer matrices at all frequencies of the input, clips their
    singular values, and cuts the result to the kernel's support. Ignores strides.

    The kernel (h, w, in, out) must not be larger than the input. The computation has
    its precision; the paper's NumPy 1.11 computed in float64 for float32 too.

    Source: Sedghi et al., https://arxiv.org/abs/1805.10408, 2019, algorithm 1; P,
    appendix, "Computational Cost".
    """
    height, width = kernel.shape[:2]
    transfer = np.fft.fft2(kernel, tuple(input_shape), axes=(0, 1))
    left, values, right = np.linalg.svd(transfer, full_matrices=False)
    clipped = left * np.minimum(values, max_norm)[..., None, :] @ right
    taps = np.fft.ifft2(clipped, axes=(0, 1)).real[:height, :width]
    return taps.astype(kernel.dtype)


def clip_kernels(
    params: Any, max_norm: float, uses: Mapping[str, Sequence[absum_jax.ConvUse]]
) -> Any:
    """Clips the kernels (HWIO) of a parameter tree one by one, back onto the device.

    `uses` is that of `absum_jax.conv_input_shapes`, with one use per kernel.
    """

    def clipped(leaf: jax.Array, use: absum_jax.ConvUse) -> jax.Array:
        return jnp.asarray(clip_kernel(np.asarray(leaf), use.input_shape, max_norm))

    return on_kernels(params, uses, clipped)
