"""Accuracy of each method against a parameter of an attack."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.reporting.plots.axes import (
    legend_beside,
    line_with_band,
    percentages,
)
from experiments.reporting.plots.styles import method_style, spread_markers
from experiments.statistics.summary import spread


def draw(
    x: Sequence[float],
    panels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str,
    marked: float | None = None,
) -> Figure:
    """Draws panels side by side, each with a line for each method.

    Panels are accuracies (seeds, x) of each method, by title; a vertical line is drawn
    at `marked`.
    """
    figure = Figure(figsize=(4.0 * len(panels) + 1.7, 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (title, accuracies) in zip(axes, panels.items(), strict=True):
        for method, values in accuracies.items():
            mean, std = 100 * values.mean(axis=0), 100 * spread(values)
            line_with_band(ax, x, mean, std, **method_style(method))
        if marked is not None:
            ax.axvline(marked, color="gray", lw=0.6, ls=":")
        ax.set_title(title, fontsize=9)
        ax.set_xlabel(xlabel)
        percentages(ax)
        spread_markers(ax)
    axes[0].set_ylabel(ylabel)
    legend_beside(axes[-1])
    return figure
