"""Pictures of the frequency plane for each method, side by side."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

import absum_jax
from experiments.methods import METHODS


def side_by_side(
    pictures: Mapping[str, np.ndarray],
    show: Callable[[np.ndarray, Axes], ScalarMappable],
    rings: Callable[[np.ndarray], np.ndarray],
    *,
    size: tuple[float, float],
    label: str,
) -> tuple[Figure, list[Axes]]:
    """Draws a picture (h, w) for each method, and the means over rings of all.

    `show` draws a picture, and `rings` makes of it what is averaged over rings, with
    frequency zero first. The size is that of a picture, in inches, and the label that
    of the colour bar. Returns the figure, and its axes, those of the rings last.
    """
    count = len(pictures)
    figure = Figure(figsize=(size[0] * (count + 1) + 1, size[1]), layout="constrained")
    axes = figure.subplots(1, count + 1, width_ratios=[1] * count + [1.25])
    for ax, (method, picture) in zip(axes, pictures.items(), strict=False):
        shown = show(picture, ax)
        color, name = METHODS[method].color, METHODS[method].label
        ax.set_title(name, fontsize=9)
        if ax is not axes[0]:
            ax.set(ylabel="", yticklabels=[])
        absum_jax.plot_radial_mean(rings(picture), ax=axes[-1], color=color, label=name)
    figure.colorbar(shown, ax=axes[:count], label=label, shrink=0.8)
    axes[-1].legend(fontsize=7)
    return figure, list(axes)


def draw(grids: Mapping[str, np.ndarray], clean: Mapping[str, float]) -> Figure:
    """Draws the accuracy (h, w) of each method under every frequency, zero first."""
    low = min(float(grid.min()) for grid in grids.values())
    figure, axes = side_by_side(
        grids,
        lambda grid, ax: absum_jax.plot_frequency_heatmap(grid, ax=ax, vmin=low),
        lambda grid: grid,
        size=(2.6, 3.1),
        label="accuracy",
    )
    for ax, (method, grid) in zip(axes, grids.items(), strict=False):
        title = f"mean {100 * grid.mean():.1f} %, worst {100 * grid.min():.1f} %"
        ax.set_title(f"{METHODS[method].label}\n{title}", fontsize=9)
        axes[-1].axhline(clean[method], color=METHODS[method].color, lw=0.6, ls=":")
    axes[-1].set_title("mean over rings (dotted: clean)", fontsize=9)
    axes[-1].set_ylabel("accuracy")
    return figure
