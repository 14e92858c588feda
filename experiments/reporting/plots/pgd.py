"""Accuracy under PGD against eps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.methods import METHODS


def draw(
    eps: Sequence[float], accuracies: Mapping[str, np.ndarray], title: str
) -> Figure:
    """Draws a line a method.

    Args:
      eps: radii of the attack.
      accuracies: (seeds, eps) of each method.
      title: of the figure.
    """
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    ax = figure.subplots()
    for method, values in accuracies.items():
        mean, std = 100 * values.mean(axis=0), 100 * values.std(axis=0)
        color = METHODS[method].color
        ax.plot(eps, mean, marker=".", color=color, label=METHODS[method].label)
        ax.fill_between(eps, mean - std, mean + std, color=color, alpha=0.15, lw=0)
    ax.set_title(title, fontsize=9)
    ax.set(xlabel="eps", ylabel="accuracy under PGD (%)", ylim=(0, 100))
    if accuracies:
        ax.legend(fontsize=7)
    return figure
