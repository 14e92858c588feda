"""Accuracy on filtered images against the radius that filters them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.methods import METHODS

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
    """Draws a panel for each kind of filter, a line a method.

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
            color = METHODS[method].color
            ax.plot(radii, mean, color=color, label=METHODS[method].label, lw=1.2)
            ax.fill_between(
                radii, mean - std, mean + std, color=color, alpha=0.15, lw=0
            )
        ax.axvline(marked, color="gray", lw=0.6, ls=":")
        ax.set_title(_TITLES[kind], fontsize=9)
        ax.set(xlabel="radius r (cycles per image)", ylim=(0, 100))
    axes[0].set_ylabel("accuracy (%)")
    axes[0].legend(fontsize=7, loc="lower right")
    return figure
