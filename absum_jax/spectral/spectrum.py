"""Singular values, norms and frequency response of a convolution."""

import functools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _validation as validation
from absum_jax._sharding import with_automatic_axes
from absum_jax.spectral import circulant, hermitian
from absum_jax.spectral.circulant import CircularConv
from absum_jax.spectral.decomposition import tall
from absum_jax.spectral.hermitian import GramPower, Split

METHODS = ("svd", "gram")


def _safe_sqrt(x: chex.Array) -> chex.Array:
    """Computes the square root, with derivative 0 at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _block_singular_values(matrix: chex.Array, method: str) -> chex.Array:
    """Computes singular values (..., r) of (..., rows, columns), the largest first."""
    if 1 in matrix.shape[-2:]:
        squares = jnp.square(matrix.real) + jnp.square(matrix.imag)
        return _safe_sqrt(squares.sum((-2, -1)))[..., None]
    if method == "svd":
        return jnp.linalg.svd(matrix, compute_uv=False)
    gram = jax.lax.complex(*hermitian.gram(Split.of(tall(matrix))))
    return _safe_sqrt(jnp.linalg.eigvalsh(gram)[..., ::-1])


@functools.partial(jax.jit, static_argnames=("conv", "method"))
def _singular_values(conv: CircularConv, kernel: chex.Array, method: str) -> chex.Array:
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
    r"""Computes all singular values of a circular convolution, exactly.

    The Fourier basis makes the convolution block-diagonal (eq. 5 of the paper and its
    appendix), with one block of input by output channels for each frequency; a stride
    :math:`s` that divides the input folds :math:`s^d` frequencies into one block. The
    singular values of the blocks are those of the whole operator. A kernel that is
    larger than the input is wrapped around it. Only half of the frequencies are
    computed, as the values at :math:`q` and :math:`-q` agree, in chunks of bounded
    memory.

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
      groups, r). Frequencies have the order of `jnp.fft.fft2`.

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
def _frequency_response(conv: CircularConv, kernel: chex.Array) -> chex.Array:
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
    r"""Computes what a circular convolution does to each frequency of its input.

    .. math:: H(q) = \sum_t K_t^T e^{2\pi i\, q \cdot d t / n}

    is the matrix that takes the amplitudes of the input channels at frequency :math:`q`
    to those of the output channels. It describes the convolution of neural networks,
    :math:`y_p = \sum_t K_t^T x_{p + d t}`, whose first tap is at offset 0; padding to
    `SAME` shifts the output, which multiplies by a phase. With strides :math:`s` the
    block of output frequency :math:`q` holds the matrices of the input frequencies
    :math:`q + j n / s` side by side, times :math:`s^{-d/2}`, in C order of :math:`j`.

    Args:
      kernel: real, (spatial..., in / groups, out), such as HWIO.
      input_shape: the spatial sizes of the input.
      strides: one for all spatial axes, or one each; they divide `input_shape`.
      kernel_dilation: likewise.
      groups: groups of channels.

    Returns:
      Complex, (n_h / s_h, n_w / s_w, out, s_h s_w in) for two spatial axes; with groups
      > 1, (n_h / s_h, n_w / s_w, groups, out / groups, s_h s_w in / groups). It holds
      all frequencies at once, which takes memory.

    Raises:
      ValueError: as in :func:`conv_singular_values`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> kernel = jnp.array([1.0, 1.0]).reshape(2, 1, 1)  # a sum of neighbors
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


def _power_of_largest(matrix: chex.Array) -> GramPower:
    """Squares the Gram matrices of tall matrices until their largest norm is known."""
    dtype = matrix.real.dtype
    tolerance = 4 * float(jnp.finfo(dtype).eps)

    def undecided(state: GramPower) -> chex.Array:
        return jnp.max(state.upper) > jnp.max(state.lower) * (1 + tolerance)

    return hermitian.gram_power(
        Split.of(matrix), undecided, hermitian.max_squarings(matrix.shape[-1], dtype)
    )


@jax.custom_jvp
def _largest_norm(matrix: chex.Array) -> chex.Array:
    """Computes the largest spectral norm of tall matrices (..., rows, columns)."""
    return jnp.max(_power_of_largest(matrix).upper)


@_largest_norm.defjvp
def _largest_norm_jvp(
    primals: tuple[chex.Array], tangents: tuple[chex.Array]
) -> tuple[chex.Array, chex.Array]:
    """Averages Re u^H dA v over the leading singular vectors u and v."""
    (matrix,), (tangent,) = primals, tangents
    state = _power_of_largest(matrix)
    columns = matrix.shape[-1]
    largest = jnp.argmax(state.upper)
    norm = state.upper.ravel()[largest]
    # Two more squarings: the bounds agree before the vectors do.
    power = Split(
        *(part.reshape(-1, columns, columns)[largest] for part in state.power)
    )
    power = hermitian.square(hermitian.square(power))
    tiny = jnp.finfo(norm.dtype).tiny
    projector = jax.lax.complex(*power.scaled(1 / jnp.maximum(power.trace, tiny)))
    a, da = (m.reshape(-1, *m.shape[-2:])[largest] for m in (matrix, tangent))
    divisor = jnp.maximum(norm, tiny).astype(a.dtype)
    weights = hermitian.matmul(a, projector) / divisor
    return norm, jnp.sum(weights.real * da.real + weights.imag * da.imag)


@functools.partial(jax.jit, static_argnames="conv")
def spectral_norm(conv: CircularConv, kernel: chex.Array) -> chex.Array:
    """Computes :func:`conv_spectral_norm` for checked arguments."""

    def norm(kernel: chex.Array) -> chex.Array:
        unit, scale = circulant.normalized(kernel)
        blocks_norm = circulant.map_chunks(
            lambda blocks: _largest_norm(tall(blocks)), conv, unit
        )
        return scale * jnp.max(blocks_norm)

    return with_automatic_axes(norm, kernel)


def conv_spectral_norm(
    kernel: chex.Array,
    input_shape: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> chex.Array:
    r"""Computes the spectral norm of a circular convolution with matrix products only.

    .. math:: \sigma(A) = \max_{\|x\|_2 = 1} \|A x\|_2

    (eq. 7 of the paper), the largest of :func:`conv_singular_values`. The Gram matrix
    of each frequency is squared and rescaled repeatedly. Its Frobenius norm and its
    trace bound the norm from above and below, and the iteration ends when the bounds
    agree up to rounding. This is faster than eigenvalues, on CPUs too. The norm can be
    differentiated once; if several largest singular values are equal, the gradient is
    one of the subgradients, and at 0 it is 0.

    Args:
      kernel: real, (spatial..., in / groups, out), such as HWIO. bfloat16 and float16
        are computed in float32.
      input_shape: the spatial sizes of the input.
      strides: one for all spatial axes, or one each; they divide `input_shape`.
      kernel_dilation: likewise.
      groups: groups of channels.

    Returns:
      A scalar, in float32 or, for a float64 kernel, float64. It is the upper bound,
      which is never below the norm, up to rounding.

    Raises:
      ValueError: as in :func:`conv_singular_values`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> kernel = jnp.array([1.0, -1.0]).reshape(2, 1, 1)  # a difference
      >>> print(absum_jax.conv_spectral_norm(kernel, (4,)))  # of alternating signs
      2.0

    References:
      Delattre et al., `Efficient Bound of Lipschitz Constant for Convolutional Layers
      by Gram Iteration <https://arxiv.org/abs/2305.16173>`_, 2023
    """
    kernel, conv = circulant.checked(
        kernel, input_shape, strides, kernel_dilation, groups
    )
    return spectral_norm(conv, kernel)


def conv_zero_padded_norm_bound(
    kernel: chex.Array,
    input_shape: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> chex.Array:
    """Computes an upper bound on the norm of a convolution with zero padding.

    Extend the input by zeros to a circle that the kernel cannot wrap around: larger
    than the input by the kernel's extent less one. The circular convolution there
    computes every output of the padded convolution, and further ones. Leaving those out
    does not increase the norm, so the spectral norm on that circle is a bound for
    `SAME`, `VALID` and any other padding with zeros.

    Args:
      kernel: real, (spatial..., in / groups, out), such as HWIO.
      input_shape: the spatial sizes of the input, without padding.
      strides: one for all spatial axes, or one each, of any size.
      kernel_dilation: likewise.
      groups: groups of channels.

    Returns:
      A scalar, in float32 or, for a float64 kernel, float64.

    Raises:
      ValueError: if the kernel is not real or has no spatial axes, or an argument does
        not fit it.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> kernel = jnp.ones((3, 1, 1)) / 3  # a mean of neighbors
      >>> print(absum_jax.conv_zero_padded_norm_bound(kernel, (8,)))
      1.0
    """
    kernel = validation.check_real("kernel", kernel)
    # A stride of 1 divides any input, so this checks only the other arguments.
    plain = circulant.circular_conv(
        kernel.shape, input_shape, 1, kernel_dilation, groups
    )
    strides = circulant.axis_values("strides", strides, len(plain.input_shape))
    circle = tuple(
        stride * math.ceil((n + (size - 1) * dilation) / stride)
        for n, size, dilation, stride in zip(
            plain.input_shape,
            plain.kernel_size,
            plain.kernel_dilation,
            strides,
            strict=True,
        )
    )
    return conv_spectral_norm(
        kernel,
        circle,
        strides=strides,
        kernel_dilation=kernel_dilation,
        groups=groups,
    )


def conv_induced_inf_norm(
    kernel: chex.Array,
    input_shape: Sequence[int] | None = None,
    *,
    kernel_dilation: int | Sequence[int] = 1,
) -> chex.Array:
    r"""Computes the norm of a circular convolution induced by the maximum norm.

    .. math::
      \|A\|_\infty = \max_{\|x\|_\infty = 1} \|A x\|_\infty
      = \max_o \sum_i \sum_{l, m} |k_{l, m, i, o}|

    (eq. 8 to 10 of the paper). For one filter it bounds the spectral norm. Strides and
    groups do not change it.

    Args:
      kernel: real, (spatial..., in / groups, out), such as HWIO. bfloat16 and float16
        are computed in float32.
      input_shape: the spatial sizes of the input; None stands for any size that is at
        least the kernel's extent. On a smaller input, taps of the kernel that fall on
        the same place are added first.
      kernel_dilation: one for all spatial axes, or one each.

    Returns:
      A scalar, in float32 or, for a float64 kernel, float64.

    Raises:
      ValueError: if the kernel is not real or has no spatial axes, or an argument does
        not fit it.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> kernel = jnp.array([1.0, -2.0, 0.5]).reshape(3, 1, 1)
      >>> print(absum_jax.conv_induced_inf_norm(kernel))
      3.5
      >>> print(absum_jax.conv_induced_inf_norm(kernel, (2,)))  # |1 + 0.5| + |-2|
      3.5
    """
    kernel = validation.check_real("kernel", kernel)
    if input_shape is None:
        ones = (1,) * max(kernel.ndim - 2, 0)
        conv = circulant.circular_conv(kernel.shape, ones, 1, kernel_dilation)
        input_shape = [
            1 + (size - 1) * dilation
            for size, dilation in zip(
                conv.kernel_size, conv.kernel_dilation, strict=True
            )
        ]
    kernel, conv = circulant.checked(kernel, input_shape, 1, kernel_dilation, 1)
    for axis in range(len(conv.input_shape)):
        places, place = np.unique(conv.positions(axis), return_inverse=True)
        onto = jnp.asarray(place[:, None] == range(len(places)), kernel.dtype)
        wrapped = jnp.tensordot(kernel, onto, ((axis,), (0,)), precision="highest")
        kernel = jnp.moveaxis(wrapped, -1, axis)
    return jnp.max(jnp.sum(jnp.abs(kernel), axis=range(kernel.ndim - 1)))
