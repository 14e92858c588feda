"""Accuracy of each method under every single frequency, side by side."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

import absum_jax
from experiments.methods import METHODS


def draw(grids: Mapping[str, np.ndarray], clean: Mapping[str, float]) -> Figure:
    """Draws a heat map a method, and their radial means.

    Args:
      grids: accuracies (h, w) of each method, frequency zero first.
      clean: clean accuracy of each method.
    """
    figure = Figure(figsize=(2.6 * len(grids) + 3.6, 3.1), layout="constrained")
    axes = figure.subplots(1, len(grids) + 1, width_ratios=[1] * len(grids) + [1.25])
    low = min(float(grid.min()) for grid in grids.values())
    for ax, (method, grid) in zip(axes, grids.items(), strict=False):
        picture = absum_jax.plot_frequency_heatmap(grid, ax=ax, vmin=low)
        ax.set_title(
            f"{METHODS[method].label}\nmean {100 * grid.mean():.1f} %, "
            f"worst {100 * grid.min():.1f} %",
            fontsize=9,
        )
        if ax is not axes[0]:
            ax.set_ylabel("")
            ax.set_yticklabels([])
    figure.colorbar(picture, ax=axes[: len(grids)], label="accuracy", shrink=0.8)
    last = axes[-1]
    for method, grid in grids.items():
        color = METHODS[method].color
        absum_jax.plot_radial_mean(
            grid, ax=last, color=color, label=METHODS[method].label
        )
        last.axhline(clean[method], color=color, lw=0.6, ls=":")
    last.set_title("mean over rings (dotted: clean)", fontsize=9)
    last.set_ylabel("accuracy")
    last.legend(fontsize=7)
    return figure
