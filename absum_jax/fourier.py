"""The Fourier basis of images, and functions of spatial frequency."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _validation as validation
from absum_jax._sharding import with_automatic_axes
from absum_jax.prox import accumulation_dtype


def check_image_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Returns (height, width), refusing anything but two positive integers."""
    sizes = validation.as_tuple(shape)
    if sizes is None or len(sizes) != 2:
        raise ValueError(f"`shape` must be (height, width), got {shape!r}.")
    height, width = (validation.check_positive_int("shape", size) for size in sizes)
    return height, width


def phase(l: chex.Numeric, m: chex.Numeric, shape: Sequence[int]) -> chex.Array:
    r"""Computes the phase of one Fourier basis function at every pixel.

    .. math::
      \theta_{pq} = 2\pi (l p / h + m q / w) \bmod 2\pi

    The angle is reduced in integers before any rounding, so that large images lose no
    accuracy.

    Args:
      l: frequency along the rows (downwards), in cycles per image.
      m: frequency along the columns (to the right), in cycles per image.
      shape: (height, width).

    Returns:
      Phases (height, width) in radians, in [-pi, pi).
    """
    height, width = check_image_shape(shape)
    pixels = jnp.arange(height), jnp.arange(width)
    rows, columns = (
        (jnp.asarray(frequency, along.dtype) * along) % along.size
        for frequency, along in zip((l, m), pixels, strict=True)
    )
    size = height * width
    turns = (rows[:, None] * width + columns[None, :] * height + size // 2) % size
    return 2 * jnp.pi * ((turns - size // 2) / size)


def frequency_radius(shape: Sequence[int]) -> np.ndarray:
    """Computes the distance of each frequency of a DFT from frequency zero.

    Args:
      shape: (height, width).

    Returns:
      Radii (height, width) in cycles per image, in the DFT's order (zero first).

    Raises:
      ValueError: if the shape does not consist of two positive integers.

    Example:
      >>> import absum_jax
      >>> absum_jax.frequency_radius((4, 4))[0]
      array([0., 1., 2., 1.])
    """
    height, width = check_image_shape(shape)
    rows = np.fft.fftfreq(height, 1 / height)
    columns = np.fft.fftfreq(width, 1 / width)
    return np.hypot(rows[:, None], columns[None, :])


def radial_mean(grid: chex.Array) -> chex.Array:
    """Averages a grid over rings of equal frequency.

    Ring r contains the frequencies whose radius rounds to r; the corners of the grid
    have the radius hypot(height, width) / 2.

    Args:
      grid: values (..., height, width) in the DFT's order (frequency zero first),
        such as the accuracies of :func:`single_fourier_accuracy`.

    Returns:
      Means (..., rings); entry r is the mean of the ring at r cycles per image.

    Raises:
      ValueError: if the grid has fewer than two axes.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> absum_jax.radial_mean(jnp.eye(3))  # rings 0 and 1
      Array([1.  , 0.25], dtype=float32)
    """
    grid = jnp.asarray(validation.check_numbers("grid", grid))
    if grid.ndim < 2 or not grid.size:
        raise ValueError(
            f"`grid` must have the axes (..., height, width), got shape {grid.shape}."
        )
    shape = grid.shape[-2:]
    rings = np.rint(frequency_radius(shape)).astype(int).ravel()
    membership = np.eye(rings.max() + 1)[rings]
    dtype = accumulation_dtype(grid)
    weights = jnp.asarray(membership / membership.sum(axis=0), dtype)
    values = grid.reshape(*grid.shape[:-2], -1).astype(dtype)
    return jnp.matmul(values, weights, precision=jax.lax.Precision.HIGHEST)


def powers(x: chex.Array) -> chex.Array:
    """Computes the power of each channel at each frequency, unchecked.

    Args:
      x: arrays (batch, height, width, channels).

    Returns:
      Powers of the same shape in at least float32, in the DFT's order (frequency zero
      first).
    """
    spectrum = jnp.fft.fft2(x.astype(accumulation_dtype(x)), axes=(1, 2), norm="ortho")
    return spectrum.real**2 + spectrum.imag**2


def power_spectrum(perturbation: chex.Array) -> chex.Array:
    r"""Computes the mean power of perturbations at each frequency.

    .. math::
      P_{lm} = \frac{1}{h w} \left\langle |\mathcal{F}(\delta)_{lm}|^2 \right\rangle

    averaged over batch and channels. By Parseval's theorem its sum is the mean squared
    L2 norm of a channel.

    Args:
      perturbation: (batch, height, width, channels), floating-point, in any range.

    Returns:
      Powers (height, width) in at least float32, with low frequencies in the center:
      frequency zero is at (height // 2, width // 2).

    Raises:
      ValueError: if the perturbations are integers, not finite, empty or do not have
        four axes.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> stripes = jnp.array([1.0, -1.0, 1.0, -1.0]).reshape(1, 1, 4, 1)
      >>> absum_jax.power_spectrum(stripes)  # frequencies -2, -1, 0, 1
      Array([[4., 0., 0., 0.]], dtype=float32)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, Figure 7
    """
    perturbation = validation.check_images(
        perturbation, batched=True, name="perturbation"
    )
    if not perturbation.size:
        raise ValueError("`perturbation` must hold at least one image.")

    def power(perturbation: chex.Array) -> chex.Array:
        return jnp.fft.fftshift(powers(perturbation).mean(axis=(0, 3)))

    return with_automatic_axes(power, perturbation)
