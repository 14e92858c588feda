"""Pictures of accuracy over spatial frequencies; needs the extra `plot`."""

from typing import TYPE_CHECKING, Any

import chex
import numpy as np

from absum_jax import fourier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D


def _grid(grid: Any) -> np.ndarray:
    grid = np.asarray(grid)
    if grid.ndim != 2:
        raise ValueError(
            f"`grid` must have the axes (height, width), got shape {grid.shape}."
        )
    return grid


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.gca()


def plot_frequency_heatmap(
    grid: chex.Array, *, ax: "Axes | None" = None, **imshow: Any
) -> "AxesImage":
    """A heat map of values per frequency, low frequencies in the centre.

    Args:
      grid: values (height, width) in the DFT's order (frequency zero first), such as
        the accuracies of :func:`single_fourier_accuracy`.
      ax: matplotlib axes; None is the current ones.
      **imshow: passed to `Axes.imshow`; colours run from 0 to 1 unless told.

    Returns:
      The image, for a colour bar.

    Raises:
      ValueError: if the grid has not two axes.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> import matplotlib; matplotlib.use("Agg")
      >>> image = absum_jax.plot_frequency_heatmap(jnp.eye(28))
      >>> image.get_extent()
      [-14.5, 13.5, 13.5, -14.5]
    """
    grid = _grid(grid)
    ax = _axes(ax)
    height, width = grid.shape
    # After fftshift the first row is frequency -(height // 2).
    left, top = -(width // 2) - 0.5, -(height // 2) - 0.5
    options: dict[str, Any] = {
        "vmin": 0.0,
        "vmax": 1.0,
        "cmap": "magma",
        "interpolation": "nearest",
    }
    image = ax.imshow(
        np.fft.fftshift(grid),
        extent=(left, left + width, top + height, top),
        **(options | imshow),
    )
    ax.set_xlabel("m (cycles per image)")
    ax.set_ylabel("l (cycles per image)")
    return image


def plot_radial_mean(
    grid: chex.Array, *, ax: "Axes | None" = None, **plot: Any
) -> "Line2D":
    """The mean of values over rings of equal frequency, against the radius.

    Args:
      grid: values (height, width) in the DFT's order, as in
        :func:`plot_frequency_heatmap`.
      ax: matplotlib axes; None is the current ones.
      **plot: passed to `Axes.plot`, such as `label`.

    Returns:
      The line.

    Raises:
      ValueError: if the grid has not two axes.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> import matplotlib; matplotlib.use("Agg")
      >>> line = absum_jax.plot_radial_mean(jnp.ones((28, 28)), label="none")
      >>> len(line.get_xdata())  # radii 0 to 20
      21
    """
    grid = _grid(grid)
    ax = _axes(ax)
    means = np.asarray(fourier.radial_mean(grid))
    (line,) = ax.plot(np.arange(len(means)), means, **plot)
    ax.set_xlabel("frequency (cycles per image)")
    return line
