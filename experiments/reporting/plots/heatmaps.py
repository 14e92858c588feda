"""Pictures of the frequency plane for each method, and means over rings of all."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import absum_jax
from experiments.methods import METHODS
from experiments.reporting.plots.axes import legend_beside
from experiments.reporting.plots.styles import method_style, spread_markers

_IN_A_ROW = 3


def side_by_side(
    pictures: Mapping[str, np.ndarray],
    show: Callable[[np.ndarray, Axes], Axes],
    rings: Callable[[np.ndarray], np.ndarray],
    *,
    label: str,
    rings_label: str,
) -> tuple[Figure, list[Axes]]:
    """Draws a picture (h, w) for each method, and the means over rings of all.

    `show` draws a picture, and `rings` makes of it what is averaged over rings, with
    frequency zero first. The labels are those of the color bar and of these means.
    Returns the figure, and its axes, those of the rings last.
    """
    columns = min(len(pictures), _IN_A_ROW)
    rows = -(-len(pictures) // columns)
    widths = 2.4 * columns + 1.1, 4.8
    figure = Figure(figsize=(sum(widths), 2.9 * rows + 0.6), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=widths)[0]
    grid = left.subplots(rows, columns, squeeze=False)
    axes, unused = np.split(grid.ravel(), [len(pictures)])
    of_rings = right.subplots()
    for ax, (method, picture) in zip(axes, pictures.items(), strict=True):
        show(picture, ax).set_title(METHODS[method].label, fontsize=9)
        if ax.get_subplotspec().colspan.start:
            ax.set(ylabel="", yticklabels=[])
        absum_jax.plot_radial_mean(rings(picture), ax=of_rings, **method_style(method))
    for ax in unused:
        ax.remove()
    left.colorbar(axes[0].images[0], ax=list(axes), label=label, shrink=0.8)
    of_rings.ticklabel_format(style="plain", useOffset=False)
    of_rings.set_title("means over rings", fontsize=9)
    of_rings.set_ylabel(rings_label)
    spread_markers(of_rings)
    legend_beside(of_rings)
    return figure, [*axes, of_rings]


def draw(grids: Mapping[str, np.ndarray], clean: Mapping[str, float]) -> Figure:
    """Draws the accuracy (h, w) of each method under every frequency, zero first."""
    percent = {method: 100 * grid for method, grid in grids.items()}
    low = min(grid.min() for grid in percent.values())
    figure, axes = side_by_side(
        percent,
        lambda grid, ax: absum_jax.plot_frequency_heatmap(
            grid, ax=ax, vmin=low, vmax=100
        ),
        lambda grid: grid,
        label="accuracy (%)",
        rings_label="accuracy (%)",
    )
    for ax, (method, grid) in zip(axes, percent.items(), strict=False):
        ax.set_title(
            f"{METHODS[method].label}, clean {100 * clean[method]:.1f} %\n"
            f"mean {grid.mean():.1f} %, worst {grid.min():.1f} %",
            fontsize=9,
        )
    return figure
