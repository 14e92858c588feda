"""The Single Fourier Attack: one frequency, the same for every image and channel."""

from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _validation as validation
from absum_jax import fourier

SCALES = ("linf", "l2", "coefficient")


def _check_frequency(name: str, value: Any, size: int) -> None:
    try:
        array = validation.as_array(name, value)
    except ValueError:
        array = np.asarray(None)
    if array.ndim or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"`{name}` must be an integer scalar, got {value!r}.")
    if validation.is_concrete(array) and not 0 <= int(array) < size:
        raise ValueError(f"`{name}` must lie in 0..{size - 1}, got {value!r}.")


def scaled_pattern(
    l: chex.Numeric,
    m: chex.Numeric,
    shape: Sequence[int],
    eps: chex.Numeric,
    scale: str,
) -> chex.Array:
    """Computes the pattern of frequency (l, m), unchecked."""
    theta = fourier.phase(l, m, shape)
    # 2 Re[(1 + j) exp(-j theta)], the sum of eq. 6 with its complex conjugate.
    pattern = 2 * (jnp.cos(theta) + jnp.sin(theta))
    if scale == "linf":
        pattern /= jnp.max(jnp.abs(pattern))
    elif scale == "l2":
        pattern /= jnp.linalg.norm(pattern)
    return validation.nonnegative(eps, pattern.dtype) * pattern


def single_fourier_perturbation(
    l: chex.Numeric,
    m: chex.Numeric,
    shape: Sequence[int],
    eps: chex.Numeric,
    *,
    scale: str = "linf",
) -> chex.Array:
    r"""Computes the perturbation of the Single Fourier Attack for one frequency.

    .. math::
      \delta_{pq} \propto (1 + j) e^{-j\theta_{pq}} + (1 - j) e^{j\theta_{pq}}
      = 2\sqrt2 \cos(\theta_{pq} - \pi/4), \qquad
      \theta_{pq} = 2\pi (l p / h + m q / w)

    (l, m) and (h - l, w - m) are the same frequency with two phases, and give different
    patterns.

    Args:
      l: frequency along the rows, 0 <= l < height, in cycles per image.
      m: frequency along the columns, 0 <= m < width, in cycles per image.
      shape: (height, width).
      eps: magnitude, non-negative, in units of the pixels (usually [0, 1]).
      scale: what eps measures. `"linf"`: the largest absolute value, the reading
        that reproduces the paper's numbers; `"l2"`: the Euclidean norm, as in Yin et
        al.; `"coefficient"`: the factor of eq. 6 as printed, with values up to
        :math:`2\sqrt2\,\varepsilon`.

    Returns:
      The perturbation (height, width), not clipped.

    Raises:
      ValueError: if a concrete frequency is out of range, eps is negative or infinite,
        the shape is not (height, width), or the scale is unknown.

    Example:
      >>> import absum_jax
      >>> absum_jax.single_fourier_perturbation(0, 2, (1, 4), 0.5).round(3)
      Array([[ 0.5, -0.5,  0.5, -0.5]], dtype=float32)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eq. 6;
      Tsuzuku and Sato, `On the Structural Sensitivity of Deep Convolutional Networks
      to the Directions of Fourier Basis Functions
      <https://arxiv.org/abs/1809.04098>`_, 2019;
      Yin et al., `A Fourier Perspective on Model Robustness
      <https://arxiv.org/abs/1906.08988>`_, 2019
    """
    height, width = fourier.check_image_shape(shape)
    _check_frequency("l", l, height)
    _check_frequency("m", m, width)
    eps = validation.check_nonnegative("eps", eps, finite=True)
    validation.check_choice("scale", scale, SCALES)
    return scaled_pattern(l, m, (height, width), eps, scale)


def add_pattern(
    x: chex.Array, pattern: chex.Array, bounds: tuple[chex.Numeric, chex.Numeric]
) -> chex.Array:
    """Adds a pattern (..., height, width, channels or 1) and clips, unchecked."""
    attacked = x + jax.lax.broadcast_to_rank(pattern.astype(x.dtype), x.ndim)
    return jnp.clip(attacked, *(jnp.asarray(bound, x.dtype) for bound in bounds))


def single_fourier_attack(
    x: chex.Array,
    l: chex.Numeric,
    m: chex.Numeric,
    eps: chex.Numeric,
    *,
    scale: str = "linf",
    bounds: tuple[chex.Numeric, chex.Numeric] = (0.0, 1.0),
) -> chex.Array:
    """Attacks images by the Single Fourier Attack with one frequency.

    It adds the same perturbation, from :func:`single_fourier_perturbation`, to every
    image and channel, and clips the result to the bounds. The sum is rounded to the
    dtype of the images: in bfloat16 by up to 0.2 % of a pixel's value, so that a small
    eps needs float32 images.

    Args:
      x: images (..., height, width, channels), floating-point, within the bounds.
      l: frequency along the rows, 0 <= l < height, in cycles per image.
      m: frequency along the columns, 0 <= m < width, in cycles per image.
      eps: magnitude, non-negative, in units of the pixels.
      scale: what eps measures, as in :func:`single_fourier_perturbation`.
      bounds: the range of pixel values.

    Returns:
      The attacked images, of the shape and dtype of `x`.

    Raises:
      ValueError: if the images are integers, or concrete and not finite or outside of
        the bounds by more than 1e-6, or for the reasons of
        :func:`single_fourier_perturbation`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> x = jnp.full((1, 1, 4, 1), 0.75)
      >>> absum_jax.single_fourier_attack(x, 0, 2, 0.5).ravel().round(3)
      Array([1.  , 0.25, 1.  , 0.25], dtype=float32)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eq. 6
    """
    bounds = validation.check_bounds(bounds)
    x = validation.check_images(x, bounds)
    pattern = single_fourier_perturbation(l, m, x.shape[-3:-1], eps, scale=scale)
    return add_pattern(x, pattern[..., None], bounds)
