"""Proximal operators and penalties of one convolution kernel."""

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from absum_jax import _validation as validation


def resolve_spatial_axes(
    shape: Sequence[int], spatial_axes: Sequence[int] | None
) -> tuple[int, ...]:
    """Returns the spatial axes of a kernel as sorted non-negative numbers.

    Args:
      shape: the kernel's shape.
      spatial_axes: the axes; None means all but the last two, which is right
        for WIO, HWIO and DHWIO kernels.

    Raises:
      ValueError: if there is no spatial axis, or one is out of range or repeated.
    """
    ndim = len(shape)
    if spatial_axes is None:
        if ndim < 3:
            raise ValueError(
                f"`kernel` of shape {tuple(shape)} has no spatial axes: at least three "
                "axes are expected (spatial..., in, out)."
            )
        return tuple(range(ndim - 2))
    axes = validation.as_tuple(spatial_axes) or ()
    valid = [
        axis for axis in axes if validation.is_integer(axis) and -ndim <= axis < ndim
    ]
    resolved = tuple(sorted(int(axis) % ndim for axis in valid))
    if not axes or len(set(resolved)) != len(axes):
        raise ValueError(
            f"`spatial_axes` must be distinct axes of a kernel of shape {tuple(shape)},"
            f" got {spatial_axes!r}."
        )
    return resolved


def accumulation_dtype(*arrays: chex.Array) -> jnp.dtype:
    """Returns the dtype for sums: float32, or float64 if an input has it."""
    # `jnp.result_type` refuses to mix dtypes under strict promotion.
    dtypes = [jnp.dtype(jnp.float32), *(array.dtype for array in arrays)]
    inexact = (dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact))
    return jax.dtypes.canonicalize_dtype(max(inexact, key=lambda d: d.itemsize))


@functools.partial(jax.jit, static_argnames="axes")
def absum_shift(
    kernel: chex.Array, threshold: chex.Numeric, axes: tuple[int, ...]
) -> chex.Array:
    """Computes what eq. 13 subtracts from the coefficients of each filter (channel).

    The three branches of eq. 13 are one clip: the mean of the filter if
    |sum| <= size * threshold, and +-threshold otherwise.

    Returns:
      The shift, of the kernel's rank with spatial axes of size 1.
    """
    dtype = accumulation_dtype(kernel)
    # A product, because reductions over leading axes are several times slower on a CPU.
    ones = jnp.ones([kernel.shape[axis] for axis in axes], dtype)
    contracted = (axes, tuple(range(len(axes))))
    sums = jnp.tensordot(kernel.astype(dtype), ones, contracted, precision="highest")
    limit = validation.nonnegative(threshold, dtype)
    return jnp.expand_dims(jnp.clip(sums / ones.size, -limit, limit), axes)


def prox_absum(
    kernel: chex.Array,
    threshold: chex.Numeric,
    *,
    spatial_axes: Sequence[int] | None = None,
) -> chex.Array:
    r"""Applies the proximal operator of Absum to every channel of a kernel.

    For each filter :math:`k` of :math:`h` coefficients, with :math:`t` the threshold,

    .. math::
      \operatorname{prox}(k)
      = \arg\min_u \tfrac12 \|u - k\|^2 + t\,|\textstyle\sum_i u_i|
      = k - \operatorname{clip}(\operatorname{mean}(k), -t, t)

    which is eq. 13 of the paper: its three branches are those of the clip. A filter of
    one coefficient (a 1x1 convolution) is soft-thresholded.

    By default the layout is (spatial..., in, out), HWIO in two dimensions, as in flax
    and haiku; it cannot be inferred from an array. Kernels of equinox and PyTorch,
    (out, in, spatial...), need `spatial_axes=(2, 3)`: without it, sums are taken over
    the channels, which regularizes something else.

    Args:
      kernel: a real kernel, by default (spatial..., in, out), such as HWIO. For
        bfloat16 and float16 the mean is computed in float32.
      threshold: :math:`\eta\lambda >= 0`, a scalar, possibly traced; a traced negative
        one gives NaN.
      spatial_axes: the axes of a filter; None means all but the last two, OIHW kernels
        need (2, 3), stacked HWIO kernels (-4, -3).

    Returns:
      The kernel after the operator, of the same shape and dtype.

    Raises:
      ValueError: if the kernel is not real or has no spatial axes, the threshold is
        negative, or `spatial_axes` does not fit the kernel.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> kernel = jnp.array([3.0, -1.0, 1.0]).reshape(3, 1, 1)
      >>> absum_jax.prox_absum(kernel, 0.5).ravel()  # |mean| = 1 > 0.5
      Array([ 2.5, -1.5,  0.5], dtype=float32)
      >>> absum_jax.prox_absum(kernel, 2.0).ravel()  # the sum becomes zero
      Array([ 2., -2.,  0.], dtype=float32)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eq. 13
    """
    kernel = validation.check_real("kernel", kernel)
    axes = resolve_spatial_axes(kernel.shape, spatial_axes)
    threshold = validation.check_nonnegative("threshold", threshold)
    shift = absum_shift(kernel, threshold, axes)
    return (kernel.astype(shift.dtype) - shift).astype(kernel.dtype)


def prox_l1(kernel: chex.Array, threshold: chex.Numeric) -> chex.Array:
    r"""Applies the proximal operator of the L1 norm: soft-thresholds each coefficient.

    .. math::
      \operatorname{prox}(k)_i = \operatorname{sign}(k_i) \max(|k_i| - t, 0)

    Args:
      kernel: a real array of any shape.
      threshold: :math:`t >= 0`, a scalar, possibly traced.

    Returns:
      The kernel after the operator, of the same shape and dtype.

    Raises:
      ValueError: if the kernel is not real or the threshold is negative.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> absum_jax.prox_l1(jnp.array([3.0, -1.0, 0.25]), 0.5)
      Array([ 2.5, -0.5,  0. ], dtype=float32)

    References:
      Parikh and Boyd, `Proximal Algorithms
      <https://web.stanford.edu/~boyd/papers/prox_algs.html>`_, 2014, section 6.5.2
    """
    kernel = validation.check_real("kernel", kernel)
    threshold = validation.check_nonnegative("threshold", threshold)
    dtype = accumulation_dtype(kernel)
    limit = validation.nonnegative(threshold, dtype)
    wide = kernel.astype(dtype)
    return (wide - jnp.clip(wide, -limit, limit)).astype(kernel.dtype)


def absum_penalty(
    kernel: chex.Array, *, spatial_axes: Sequence[int] | None = None
) -> chex.Array:
    r"""Computes the Absum penalty of a kernel, the sum of its channels' absolute sums.

    .. math::
      g(K) = \sum_{i, o} \Big| \sum_{l, m} k_{l, m, i, o} \Big|

    The second term of eq. 12 is :math:`\lambda` times the sum of this over the layers.
    Kernels of equinox and PyTorch, (out, in, spatial...), need `spatial_axes=(2, 3)`.

    Args:
      kernel: a real kernel, by default (spatial..., in, out), such as HWIO.
      spatial_axes: as in :func:`prox_absum`.

    Returns:
      A scalar, in float32 or, for a float64 kernel, float64.

    Raises:
      ValueError: if the kernel is not real or has no spatial axes, or `spatial_axes`
        does not fit it.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> kernel = jnp.array([[3.0, -1.0], [-1.0, -2.0]]).reshape(2, 1, 2)
      >>> absum_jax.absum_penalty(kernel)  # |3 - 1| + |-1 - 2|
      Array(5., dtype=float32)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eq. 12
    """
    kernel = validation.check_real("kernel", kernel)
    axes = resolve_spatial_axes(kernel.shape, spatial_axes)
    sums = jnp.sum(kernel, axis=axes, dtype=accumulation_dtype(kernel))
    return jnp.sum(jnp.abs(sums))
