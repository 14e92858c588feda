"""Plots of accuracy and power over spatial frequencies; needs the extra `plot`.

Every function draws in axes of matplotlib and returns them.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import chex
import numpy as np

from absum_jax import _validation as validation
from absum_jax import fourier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


def _grid(grid: Any, name: str = "grid") -> np.ndarray:
    grid = np.asarray(validation.check_numbers(name, grid))
    if grid.ndim != 2 or not grid.size:
        raise ValueError(
            f"`{name}` must have the axes (height, width), got shape {grid.shape}."
        )
    return grid


@contextlib.contextmanager
def _matplotlib() -> Iterator[None]:
    """Raises an error that names the extra to install if matplotlib is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"plots need {error.name}: pip install 'absum-jax[plot]'", name=error.name
        ) from error


def new_axes(panels: int) -> np.ndarray:
    """Creates a figure of `pyplot` and returns the axes (panels,), side by side."""
    with _matplotlib():
        from matplotlib import pyplot

    figure = pyplot.figure(figsize=(3.6 * panels, 3.4), layout="constrained")
    return figure.subplots(1, panels, squeeze=False)[0]


def whole_numbers(*axes: "Axis") -> None:
    """Puts ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        locator = MaxNLocator("auto", steps=(1, 2, 5, 10), integer=True, min_n_ticks=1)
        axis.set_major_locator(locator)


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        if not hasattr(ax, "imshow"):
            raise ValueError(f"`ax` must be axes of matplotlib, got {ax!r}.")
        return ax
    with _matplotlib():
        from matplotlib import pyplot

    return pyplot.gca()


def plot_frequency_heatmap(
    grid: chex.Array, *, ax: "Axes | None" = None, **imshow: Any
) -> "Axes":
    """Draws a heat map of values per frequency, with low frequencies in the center.

    Args:
      grid: values (height, width) in the DFT's order (frequency zero first), such as
        the accuracies of :func:`single_fourier_accuracy`.
      ax: matplotlib axes; None is the current axes.
      **imshow: passed to `Axes.imshow`; by default colors range from 0 to 1.

    Returns:
      The axes. For a color bar, use its last image, `ax.images[-1]`.

    Raises:
      ValueError: if the grid does not have two axes.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> import matplotlib; matplotlib.use("Agg")
      >>> ax = absum_jax.plot_frequency_heatmap(jnp.eye(28))
      >>> ax.images[-1].get_extent()
      [-14.5, 13.5, 13.5, -14.5]
    """
    return _show_centred(np.fft.fftshift(_grid(grid)), _axes(ax), imshow)


def _show_centred(grid: np.ndarray, ax: "Axes", imshow: dict[str, Any]) -> "Axes":
    height, width = grid.shape
    # After fftshift the first row is frequency -(height // 2).
    left, top = -(width // 2) - 0.5, -(height // 2) - 0.5
    options: dict[str, Any] = {
        "vmin": 0.0,
        "vmax": 1.0,
        "cmap": "magma",
        "interpolation": "nearest",
    }
    ax.imshow(
        grid,
        extent=(left, left + width, top + height, top),
        **(options | imshow),
    )
    ax.set_xlabel("m (cycles per image)")
    ax.set_ylabel("l (cycles per image)")
    whole_numbers(ax.xaxis, ax.yaxis)
    return ax


def plot_radial_mean(
    grid: chex.Array, *, ax: "Axes | None" = None, **plot: Any
) -> "Axes":
    """Draws the mean of values over rings of equal frequency, against the radius.

    Args:
      grid: values (height, width) in the DFT's order, as in
        :func:`plot_frequency_heatmap`.
      ax: matplotlib axes; None is the current axes.
      **plot: passed to `Axes.plot`, such as `label`.

    Returns:
      The axes, whose last line, `ax.lines[-1]`, is the one drawn.

    Raises:
      ValueError: if the grid does not have two axes.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> import matplotlib; matplotlib.use("Agg")
      >>> ax = absum_jax.plot_radial_mean(jnp.ones((28, 28)), label="none")
      >>> len(ax.lines[-1].get_xdata())  # radii 0 to 20
      21
    """
    grid = _grid(grid)
    ax = _axes(ax)
    means = np.asarray(fourier.radial_mean(grid))
    ax.plot(np.arange(len(means)), means, **plot)
    ax.set_xlabel("frequency (cycles per image)")
    whole_numbers(ax.xaxis)
    return ax


def normalized_log(spectrum: chex.Array) -> np.ndarray:
    """Computes the logarithm of a power spectrum, shifted and scaled to [0, 1].

    Powers of zero are replaced by the smallest positive power.

    Args:
      spectrum: powers (height, width), non-negative, such as the result of
        :func:`power_spectrum`.

    Returns:
      Values (height, width), 0 at the smallest power and 1 at the largest; all zeros
      for a constant spectrum.

    Raises:
      ValueError: if the spectrum does not have two axes, or has a negative or NaN
        power.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> absum_jax.normalized_log(jnp.array([[1.0, 10.0, 100.0]]))
      array([[0. , 0.5, 1. ]])

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, Figure 7
    """
    power = _grid(spectrum, "spectrum").astype(float)
    if not (power >= 0).all():
        raise ValueError("`spectrum` must be non-negative powers.")
    if not power.any():
        return np.zeros_like(power)
    logarithm = np.log(np.maximum(power, power[power > 0].min()))
    low, high = logarithm.min(), logarithm.max()
    return (logarithm - low) / (high - low) if high > low else np.zeros_like(power)


def plot_power_spectrum(
    spectrum: chex.Array, *, ax: "Axes | None" = None, **imshow: Any
) -> "Axes":
    """Draws a power spectrum, logarithmic and scaled to [0, 1].

    Args:
      spectrum: powers (height, width) with low frequencies in the center, from
        :func:`power_spectrum`.
      ax: matplotlib axes; None is the current axes.
      **imshow: passed to `Axes.imshow`.

    Returns:
      The axes. For a color bar, use its last image, `ax.images[-1]`.

    Raises:
      ValueError: for the reasons of :func:`normalized_log`.

    Example:
      >>> import absum_jax, jax
      >>> import matplotlib; matplotlib.use("Agg")
      >>> noise = jax.random.normal(jax.random.key(0), (10, 28, 28, 1))
      >>> ax = absum_jax.plot_power_spectrum(absum_jax.power_spectrum(noise))
      >>> ax.images[-1].get_clim()
      (0.0, 1.0)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, Figure 7
    """
    return _show_centred(normalized_log(spectrum), _axes(ax), imshow)
