"""Low- and high-pass filters: the High-Frequency attack and its opposite."""

import functools

import chex
import jax.numpy as jnp

from absum_jax import _validation as validation
from absum_jax import fourier
from absum_jax._sharding import with_automatic_axes
from absum_jax.prox import accumulation_dtype


def filtered(x: chex.Array, radius: chex.Numeric, low: bool | chex.Array) -> chex.Array:
    """Removes the frequencies beyond a radius, or those within it.

    Args:
      x: images (..., height, width, channels).
      radius: in cycles per image, possibly traced. A negative radius, which cannot be
        refused if it is traced, gives NaN.
      low: whether low frequencies pass, possibly traced. If they do and the radius is
        infinite, the images are returned unchanged, to the bit.
    """
    height, width = x.shape[-3:-1]
    # Both are rounded alike, so that a radius equal to a frequency's includes it.
    distance = jnp.asarray(fourier.frequency_radius((height, width)), jnp.float32)
    within = distance <= jnp.asarray(radius, jnp.float32)
    kept = within == low
    dtype = accumulation_dtype(x)
    spectrum = jnp.fft.rfft2(x.astype(dtype), axes=(-3, -2))
    spectrum = jnp.where(kept[:, : width // 2 + 1, None], spectrum, 0)
    result = jnp.fft.irfft2(spectrum, s=(height, width), axes=(-3, -2))
    everything = jnp.isinf(radius) & low
    result = jnp.where(everything, x, result.astype(x.dtype))
    return validation.nan_if_negative(jnp.asarray(radius, jnp.float32), result)


def _pass(x: chex.Array, radius: chex.Numeric, *, low: bool) -> chex.Array:
    x = validation.check_images(x)
    radius = validation.check_nonnegative("radius", radius)
    return with_automatic_axes(
        functools.partial(filtered, low=low), x, jnp.asarray(radius), like=x
    )


def low_pass(x: chex.Array, radius: chex.Numeric) -> chex.Array:
    r"""Removes the high frequencies of images: the High-Frequency attack.

    .. math::
      Z^l_{ij} = \begin{cases} Z_{ij} & d((i, j), (c_i, c_j)) \le r \\ 0 &
      \text{otherwise} \end{cases}

    with Z the Fourier transform of each channel and the distance d from frequency
    zero. The paper's "half of the image width" is a diameter: r = width / 4.

    Args:
      x: images (..., height, width, channels), floating-point.
      radius: r, non-negative, in cycles per image, possibly traced. On a rectangular
        image, a frequency (l, m) has l cycles per height and m per width.

    Returns:
      Images of the same shape and dtype, not clipped: values may slightly exceed the
      range of the input.

    Raises:
      ValueError: if the images are integers, not finite or have too few axes, or the
        radius is negative.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> stripes = jnp.array([1.0, 0.0, 1.0, 0.0]).reshape(1, 4, 1)
      >>> absum_jax.low_pass(stripes, 1).ravel()
      Array([0.5, 0.5, 0.5, 0.5], dtype=float32)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eq. 18;
      Wang et al., `High Frequency Component Helps Explain the Generalization of
      Convolutional Neural Networks <https://arxiv.org/abs/1905.13545>`_, 2019
    """
    return _pass(x, radius, low=True)


def high_pass(x: chex.Array, radius: chex.Numeric) -> chex.Array:
    r"""Removes the low frequencies of images, including the mean.

    .. math::
      Z^h_{ij} = \begin{cases} 0 & d((i, j), (c_i, c_j)) \le r \\ Z_{ij} &
      \text{otherwise} \end{cases}

    The result is what :func:`low_pass` with the same radius removes.

    Args:
      x: images (..., height, width, channels), floating-point.
      radius: r, non-negative, in cycles per image, as in :func:`low_pass`.

    Returns:
      Images of the same shape and dtype, with mean zero, not clipped.

    Raises:
      ValueError: for the reasons of :func:`low_pass`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> stripes = jnp.array([1.0, 0.0, 1.0, 0.0]).reshape(1, 4, 1)
      >>> absum_jax.high_pass(stripes, 1).ravel()
      Array([ 0.5, -0.5,  0.5, -0.5], dtype=float32)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eq. 19
    """
    return _pass(x, radius, low=False)
