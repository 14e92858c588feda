"""Singular values and frequency response of a convolution."""

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from absum_jax import _validation as validation
from absum_jax._sharding import with_automatic_axes
from absum_jax.spectral import circulant

METHODS = ("svd", "gram")


def smaller_gram(matrix: chex.Array) -> chex.Array:
    """A^H A or A A^H, whichever is smaller."""
    adjoint = jnp.conj(jnp.swapaxes(matrix, -1, -2))
    pair = (adjoint, matrix) if matrix.shape[-1] <= matrix.shape[-2] else (
        matrix, adjoint
    )  # fmt: skip
    return jnp.matmul(*pair, precision="highest")


def _safe_sqrt(x: chex.Array) -> chex.Array:
    """The square root, with the derivative 0 at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _block_singular_values(matrix: chex.Array, method: str) -> chex.Array:
    """Singular values (..., r) of (..., rows, columns), the largest first."""
    if 1 in matrix.shape[-2:]:
        squares = jnp.square(matrix.real) + jnp.square(matrix.imag)
        return _safe_sqrt(squares.sum((-2, -1)))[..., None]
    if method == "svd":
        return jnp.linalg.svd(matrix, compute_uv=False)
    return _safe_sqrt(jnp.linalg.eigvalsh(smaller_gram(matrix))[..., ::-1])


@functools.partial(jax.jit, static_argnames=("conv", "method"))
def _singular_values(
    conv: circulant.CircularConv, kernel: chex.Array, method: str
) -> chex.Array:
    def all_values(kernel: chex.Array) -> chex.Array:
        unit, scale = circulant.normalized(kernel)
        values = circulant.map_chunks(
            lambda blocks: _block_singular_values(blocks, method), conv, unit
        )
        values = values.reshape(-1, conv.groups, conv.rank)
        if conv.groups == 1:
            values = values[:, 0]
        return scale * values[conv.frequencies.places]

    return with_automatic_axes(all_values, kernel)


def conv_singular_values(
    kernel: chex.Array,
    input_shape: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    groups: int = 1,
    method: str = "svd",
) -> chex.Array:
    r"""All singular values of a circular convolution, exactly.

    The Fourier basis makes the convolution block-diagonal (eq. 5 of the paper and its
    appendix), with one block of input by output channels for each frequency; a stride
    :math:`s` that divides the input folds :math:`s^d` frequencies into one block. The
    singular values of the blocks are those of the whole operator. A kernel that is
    larger than the input is wrapped around it. Half of the frequencies are computed, as
    those at :math:`q` and :math:`-q` agree, in chunks of bounded memory.

    Args:
      kernel: real, (spatial..., in / groups, out) with one to three spatial axes or
        more, such as HWIO. bfloat16 and float16 are computed in float32.
      input_shape: the spatial sizes of the input.
      strides: one for all spatial axes, or one each; they divide `input_shape`.
      kernel_dilation: likewise.
      groups: groups of channels, `feature_group_count` in `lax.conv`.
      method: `"svd"` is accurate to a few roundings of the largest singular value.
        `"gram"` takes roots of eigenvalues of the smaller Gram matrix, several times
        faster on a GPU; in float32 the error of a value :math:`\sigma` is up to about
        :math:`10^{-6} \sigma_{max}^2 / \sigma`.

    Returns:
      Real, (n_h / s_h, n_w / s_w, r) for two spatial axes with r = min(s_h s_w in /
      groups, out / groups), the largest first; with groups > 1, (n_h / s_h, n_w / s_w,
      groups, r). In the frequency's order of `jnp.fft.fft2`.

    Raises:
      ValueError: if the kernel is not real or has no spatial axes, an argument does not
        fit it, a stride does not divide the input, or the method is unknown.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> kernel = jnp.array([1.0, -1.0]).reshape(2, 1, 1)  # a difference
      >>> values = absum_jax.conv_singular_values(kernel, (4,))
      >>> print(values.ravel())  # |1 - exp(2 pi i q / 4)|
      [0.        1.4142135 2.        1.4142135]

    References:
      Sedghi et al., `The Singular Values of Convolutional Layers
      <https://arxiv.org/abs/1805.10408>`_, 2019
    """
    validation.check_choice("method", method, METHODS)
    kernel, conv = circulant.checked(
        kernel, input_shape, strides, kernel_dilation, groups
    )
    return _singular_values(conv, kernel, method)


@functools.partial(jax.jit, static_argnames="conv")
def _frequency_response(conv: circulant.CircularConv, kernel: chex.Array) -> chex.Array:
    ndim = len(conv.output_shape)

    def response(kernel: chex.Array) -> chex.Array:
        frequencies = jnp.indices(conv.output_shape).reshape(ndim, -1).T
        blocks = jnp.swapaxes(circulant.blocks(conv, kernel, frequencies), -1, -2)
        if conv.groups == 1:
            blocks = blocks[:, 0]
        return blocks.reshape(*conv.output_shape, *blocks.shape[1:])

    return with_automatic_axes(response, kernel)


def conv_frequency_response(
    kernel: chex.Array,
    input_shape: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> chex.Array:
    r"""What a circular convolution does to each frequency of its input.

    .. math:: H(q) = \sum_t K_t^T e^{2\pi i\, q \cdot d t / n}

    is the matrix that takes the amplitudes of the input channels at frequency :math:`q`
    to those of the output channels, for a convolution as networks have it, :math:`y_p =
    \sum_t K_t^T x_{p + d t}`, whose first tap is at offset 0; padding to `SAME` shifts
    the output, a phase. With strides :math:`s` the block of output frequency :math:`q`
    stands side by side for the input frequencies :math:`q + j n / s`, times
    :math:`s^{-d/2}`, in C order of :math:`j`.

    Args:
      kernel: real, (spatial..., in / groups, out), such as HWIO.
      input_shape: the spatial sizes of the input.
      strides: one for all spatial axes, or one each; they divide `input_shape`.
      kernel_dilation: likewise.
      groups: groups of channels.

    Returns:
      Complex, (n_h / s_h, n_w / s_w, out, s_h s_w in) for two spatial axes; with groups
      > 1, (n_h / s_h, n_w / s_w, groups, out / groups, s_h s_w in / groups). All
      frequencies at once: mind the memory.

    Raises:
      ValueError: as in :func:`conv_singular_values`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> kernel = jnp.array([1.0, 1.0]).reshape(2, 1, 1)  # a sum of neighbours
      >>> response = absum_jax.conv_frequency_response(kernel, (4,))
      >>> print(abs(response).ravel().round(3))
      [2.    1.414 0.    1.414]

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eq. 5
    """
    kernel, conv = circulant.checked(
        kernel, input_shape, strides, kernel_dilation, groups
    )
    return _frequency_response(conv, kernel)
