"""Accuracy of each method against a parameter of an attack."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.methods import METHODS
from experiments.reporting.plots.axes import line_with_band


def draw(
    x: Sequence[float],
    panels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str,
    marker: str | None = None,
    marked: float | None = None,
) -> Figure:
    """Draws panels side by side, each with a line for each method.

    Panels are accuracies (seeds, x) of each method, by title; a vertical line is drawn
    at `marked`.
    """
    figure = Figure(figsize=(4.4 * len(panels), 3.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (title, accuracies) in zip(axes, panels.items(), strict=True):
        for method, values in accuracies.items():
            mean, std = 100 * values.mean(axis=0), 100 * values.std(axis=0)
            line_with_band(
                ax, x, mean, std,
                color=METHODS[method].color, label=METHODS[method].label, marker=marker,
            )  # fmt: skip
        if marked is not None:
            ax.axvline(marked, color="gray", lw=0.6, ls=":")
        ax.set_title(title, fontsize=9)
        ax.set(xlabel=xlabel, ylim=(0, 100))
    axes[0].set_ylabel(ylabel)
    if any(panels.values()):
        axes[0].legend(fontsize=7)
    return figure
