"""Filters of frequencies, such as the High-Frequency attack and its opposite."""

import functools

import chex
import jax.numpy as jnp

from absum_jax import _validation as validation
from absum_jax import fourier
from absum_jax._sharding import with_automatic_axes
from absum_jax.prox import accumulation_dtype


def filtered(
    x: chex.Array, inner: chex.Numeric, outer: chex.Numeric, inside: bool | chex.Array
) -> chex.Array:
    """Removes the frequencies outside of a ring, or those inside it.

    A frequency is inside if its distance d from frequency zero satisfies
    inner < d <= outer.

    Args:
      x: images (..., height, width, channels).
      inner: radius in cycles per image, possibly traced; negative infinity for a disk,
        which includes frequency zero. Another negative radius, which cannot be refused
        if it is traced, gives NaN.
      outer: radius in cycles per image, possibly traced. A negative one gives NaN.
      inside: whether the frequencies inside pass, possibly traced. If they do and the
        ring has all frequencies, the images are returned unchanged, to the bit.
    """
    height, width = x.shape[-3:-1]
    # All are rounded alike, so that a radius equal to a frequency's includes it.
    distance = jnp.asarray(fourier.frequency_radius((height, width)), jnp.float32)
    inner, outer = (jnp.asarray(radius, jnp.float32) for radius in (inner, outer))
    is_inside = (distance > inner) & (distance <= outer)
    kept = is_inside == inside
    dtype = accumulation_dtype(x)
    spectrum = jnp.fft.rfft2(x.astype(dtype), axes=(-3, -2))
    spectrum = jnp.where(kept[:, : width // 2 + 1, None], spectrum, 0)
    result = jnp.fft.irfft2(spectrum, s=(height, width), axes=(-3, -2))
    is_disk = jnp.isneginf(inner)
    everything = jnp.isinf(outer) & is_disk & inside
    result = jnp.where(everything, x, result.astype(x.dtype))
    radius = jnp.where(is_disk, outer, jnp.minimum(inner, outer))
    return validation.nan_if_negative(radius, result)


def _pass(x: chex.Array, *, inside: bool, **radii: chex.Numeric) -> chex.Array:
    """Filters images by the disk of a radius, or by the ring of two, low and high."""
    x = validation.check_images(x)
    checked = [validation.check_nonnegative(*radius) for radius in radii.items()]
    concrete = all(map(validation.is_concrete, checked))
    if concrete and float(checked[0]) > float(checked[-1]):
        low, high = radii.values()
        raise ValueError(f"`low` must be at most `high`, got {low!r} and {high!r}.")
    inner, outer = map(jnp.asarray, (-jnp.inf, *checked)[-2:])
    return with_automatic_axes(
        functools.partial(filtered, inside=inside), x, inner, outer, like=x
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
    return _pass(x, inside=True, radius=radius)


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
    return _pass(x, inside=False, radius=radius)


def band_pass(x: chex.Array, low: chex.Numeric, high: chex.Numeric) -> chex.Array:
    r"""Keeps a band of the frequencies of images, and removes all others.

    .. math::
      Z^b_{ij} = \begin{cases} Z_{ij} & r_1 < d((i, j), (c_i, c_j)) \le r_2 \\ 0 &
      \text{otherwise} \end{cases}

    with Z and d as in :func:`low_pass`. A band excludes its lower boundary and includes
    its upper one, so that an image is the sum of `low_pass(x, r1)`,
    `band_pass(x, r1, r2)` and `high_pass(x, r2)`. The mean of a channel, frequency
    zero, is in no band.

    Args:
      x: images (..., height, width, channels), floating-point.
      low: r1, non-negative, in cycles per image, as in :func:`low_pass`.
      high: r2, at least `low`. A band between equal radii is empty.

    Returns:
      Images of the same shape and dtype, with mean zero, not clipped.

    Raises:
      ValueError: if the images are integers, not finite or have too few axes, a radius
        is negative, or `low` is larger than `high`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> stripes = jnp.array([1.0, 0.0, 1.0, 0.0]).reshape(1, 4, 1)
      >>> absum_jax.band_pass(stripes, 1, 2).ravel()
      Array([ 0.5, -0.5,  0.5, -0.5], dtype=float32)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eqs. 18 and 19,
      of which it is both; Yin et al., `A Fourier Perspective on Model Robustness
      <https://arxiv.org/abs/1906.08988>`_, 2019
    """
    return _pass(x, inside=True, low=low, high=high)


def band_stop(x: chex.Array, low: chex.Numeric, high: chex.Numeric) -> chex.Array:
    r"""Removes a band of the frequencies of images, and keeps all others.

    The result is the image without its :func:`band_pass` of the same radii: frequencies
    at :math:`r_1 < d \le r_2` are removed.

    Args:
      x: images (..., height, width, channels), floating-point.
      low: r1, non-negative, in cycles per image, as in :func:`band_pass`.
      high: r2, at least `low`.

    Returns:
      Images of the same shape and dtype, with the same mean, not clipped: values may
      slightly exceed the range of the input.

    Raises:
      ValueError: for the reasons of :func:`band_pass`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> stripes = jnp.array([1.0, 0.0, 1.0, 0.0]).reshape(1, 4, 1)
      >>> absum_jax.band_stop(stripes, 1, 2).ravel()
      Array([0.5, 0.5, 0.5, 0.5], dtype=float32)

    References:
      Yin et al., `A Fourier Perspective on Model Robustness
      <https://arxiv.org/abs/1906.08988>`_, 2019
    """
    return _pass(x, inside=False, low=low, high=high)
