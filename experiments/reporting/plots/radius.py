"""Accuracy on filtered images against the radius that filters them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.reporting.labels import METHOD_COLORS, METHOD_NAMES
from experiments.reporting.plots.axes import line_with_band

_TITLES = {
    "low-pass": "low-pass: frequencies within r are left",
    "high-pass": "high-pass: frequencies beyond r are left",
}


def draw(
    methods: Sequence[str],
    radii: Sequence[float],
    curves: Mapping[str, np.ndarray],
    marked: float,
) -> Figure:
    """Draws a panel for each kind of filter, with a line for each method.

    Args:
      methods: of the curves.
      radii: in cycles per image.
      curves: accuracies (methods, seeds, radii) of each kind.
      marked: the radius of the table.
    """
    figure = Figure(figsize=(4.2 * len(curves), 3.2), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for ax, (kind, accuracies) in zip(axes, curves.items(), strict=True):
        for method, values in zip(methods, 100 * accuracies, strict=True):
            mean, std = values.mean(axis=0), values.std(axis=0)
            line_with_band(
                ax, radii, mean, std,
                color=METHOD_COLORS[method], label=METHOD_NAMES[method], width=1.2,
            )  # fmt: skip
        ax.axvline(marked, color="gray", lw=0.6, ls=":")
        ax.set_title(_TITLES[kind], fontsize=9)
        ax.set(xlabel="radius r (cycles per image)", ylim=(0, 100))
    axes[0].set_ylabel("accuracy (%)")
    axes[0].legend(fontsize=7, loc="lower right")
    return figure
