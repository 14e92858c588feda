"""Norms of a convolution."""

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
from absum_jax.spectral.hermitian import GramPower, Split


def max_squarings(rank: int, dtype: jnp.dtype) -> int:
    """After how many squarings the bound is the norm to rounding, in any case."""
    if rank == 1:
        return 0
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    return math.ceil(math.log2(math.log(rank) / tolerance)) - 2


def tall(matrix: chex.Array) -> chex.Array:
    """Matrices, transposed if they have fewer rows than columns."""
    if matrix.shape[-2] < matrix.shape[-1]:
        return jnp.swapaxes(matrix, -1, -2)
    return matrix


def _power_of_largest(matrix: chex.Array) -> GramPower:
    """Squares Gram matrices of tall ones until the largest of all norms is known."""
    dtype = matrix.real.dtype
    tolerance = 4 * float(jnp.finfo(dtype).eps)

    def undecided(state: GramPower) -> chex.Array:
        return jnp.max(state.upper) > jnp.max(state.lower) * (1 + tolerance)

    return hermitian.gram_power(
        Split.of(matrix), undecided, max_squarings(matrix.shape[-1], dtype)
    )


@jax.custom_jvp
def _largest_norm(matrix: chex.Array) -> chex.Array:
    """The largest spectral norm of tall complex matrices (..., rows, columns)."""
    return jnp.max(_power_of_largest(matrix).upper)


@_largest_norm.defjvp
def _largest_norm_jvp(
    primals: tuple[chex.Array], tangents: tuple[chex.Array]
) -> tuple[chex.Array, chex.Array]:
    """The mean of Re u^H dA v over the leading singular vectors u, v."""
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
    weights = jnp.matmul(a, projector, precision="highest") / divisor
    return norm, jnp.sum(weights.real * da.real + weights.imag * da.imag)


@functools.partial(jax.jit, static_argnames="conv")
def _spectral_norm(conv: CircularConv, kernel: chex.Array) -> chex.Array:
    def norm(kernel: chex.Array) -> chex.Array:
        unit, scale = circulant.normalized(kernel)
        blocks_norm = circulant.map_chunks(
            lambda blocks: _largest_norm(tall(blocks)), conv, unit
        )
        return scale * jnp.max(blocks_norm)

    return with_automatic_axes(norm, kernel)


@functools.partial(jax.jit, static_argnames="conv")
def rescale_kernels(
    kernels: chex.Array, conv: CircularConv, max_norm: chex.Array
) -> chex.Array:
    """Scales each kernel of a stack (layers, ...) down to a bound on its norm.

    A negative bound, which traced values cannot be refused for, gives NaN.
    """
    max_norm = validation.nonnegative(max_norm, kernels.dtype)

    def rescale(kernel: chex.Array) -> chex.Array:
        norm = _spectral_norm(conv, kernel)
        within = norm <= max_norm
        return kernel * jnp.where(within, 1, max_norm / jnp.where(within, 1, norm))

    layers = functools.partial(circulant.map_layers, rescale, conv)
    return with_automatic_axes(layers, kernels, like=kernels)


def conv_spectral_norm(
    kernel: chex.Array,
    input_shape: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> chex.Array:
    r"""The spectral norm of a circular convolution, in matrix products alone.

    .. math:: \sigma(A) = \max_{\|x\|_2 = 1} \|A x\|_2

    (eq. 7 of the paper), the largest of :func:`conv_singular_values`. The Gram matrix
    of each frequency is squared over and over, scaled in between; the norm lies between
    the bounds that its Frobenius norm and its trace give, and the squaring ends when
    they agree to rounding; on CPUs too this is faster than eigenvalues. Differentiable,
    once; with equal largest singular values the gradient is one of the subgradients,
    and at 0 it is 0.

    Args:
      kernel: real, (spatial..., in / groups, out), such as HWIO. bfloat16 and float16
        are computed in float32.
      input_shape: the spatial sizes of the input.
      strides: one for all spatial axes, or one each; they divide `input_shape`.
      kernel_dilation: likewise.
      groups: groups of channels.

    Returns:
      A scalar, in float32 or, for a float64 kernel, float64. The upper bound: up to
      rounding, never below the norm.

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
    return _spectral_norm(conv, kernel)


def conv_zero_padded_norm_bound(
    kernel: chex.Array,
    input_shape: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> chex.Array:
    """An upper bound of the spectral norm of a convolution with zero padding.

    On a circle that the kernel cannot wrap around, larger than the input by the
    kernel's extent less one, a circular convolution of the input beside zeros has every
    output of the padded one. Leaving out the others does not raise the norm: the
    spectral norm on that circle is a bound for `SAME`, `VALID` and any other padding
    with zeros.

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
      >>> kernel = jnp.ones((3, 1, 1)) / 3  # a mean of neighbours
      >>> print(absum_jax.conv_zero_padded_norm_bound(kernel, (8,)))
      1.0
    """
    kernel = validation.check_real("kernel", kernel)
    # A stride of one divides any input: this checks all the rest.
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
    r"""The norm of a circular convolution that the maximum norm induces.

    .. math::
      \|A\|_\infty = \max_{\|x\|_\infty = 1} \|A x\|_\infty
      = \max_o \sum_i \sum_{l, m} |k_{l, m, i, o}|

    (eq. 8 to 10 of the paper). For one filter it bounds the spectral norm. Strides and
    groups do not change it.

    Args:
      kernel: real, (spatial..., in / groups, out), such as HWIO. bfloat16 and float16
        are computed in float32.
      input_shape: the spatial sizes of the input; None is at least the kernel's extent.
        On a smaller input taps of a kernel fall on one place and are added first.
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
        input_shape = tuple(
            1 + (size - 1) * dilation
            for size, dilation in zip(
                kernel.shape[:-2],
                circulant.axis_values(
                    "kernel_dilation", kernel_dilation, kernel.ndim - 2
                ),
                strict=True,
            )
        ) or (1,)
    kernel, conv = circulant.checked(kernel, input_shape, 1, kernel_dilation, 1)
    for axis in range(len(conv.input_shape)):
        places, place = np.unique(conv.positions(axis), return_inverse=True)
        onto = jnp.asarray(place[:, None] == range(len(places)), kernel.dtype)
        wrapped = jnp.tensordot(kernel, onto, ((axis,), (0,)), precision="highest")
        kernel = jnp.moveaxis(wrapped, -1, axis)
    return jnp.max(jnp.sum(jnp.abs(kernel), axis=range(kernel.ndim - 1)))
