"""Figures 2, 4 and 5: robustness and training loss against the strength."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.config import NONE
from experiments.methods import LAMBDA, METHODS
from experiments.reporting.evaluated import ACCURACIES, SingleFourierModel
from experiments.reporting.plots.axes import (
    legend_beside,
    line_with_band,
    log_scale,
    percentages,
)
from experiments.reporting.plots.styles import method_style
from experiments.reporting.selection import by_setting
from experiments.statistics.summary import spread

_DASHES = {"max": ":", "avg": "-", "min": "--"}

_Models: TypeAlias = Sequence[SingleFourierModel]


def by_method(models: _Models) -> dict[str, list[SingleFourierModel]]:
    """Groups the models of each method that has a strength."""
    grouped: dict[str, list[SingleFourierModel]] = {}
    for model in models:
        if model.run.config.method != NONE.method:
            grouped.setdefault(model.run.config.method, []).append(model)
    return grouped


def _plot(
    ax: Axes, models: _Models, value: Callable[[SingleFourierModel], float],
    **style: str,
) -> None:  # fmt: skip
    """Draws mean and standard deviation over seeds against the strength.

    In the style of the method, but for what `style` has.
    """
    points = []
    for setting, group in sorted(by_setting(models).items(), key=lambda item: item[0]):
        values = np.array([value(model) for model in group])
        if np.isfinite(np.mean(values)):
            points.append((setting.strength, np.mean(values), spread(values)))
    if not points:
        return
    method = models[0].run.config.method
    line_with_band(ax, *np.array(points).T, **method_style(method) | style)
    kind = METHODS[method].strength
    assert kind is not None
    log_scale(ax, "x")
    ax.set_xlabel(kind.label)


def _percent(name: str) -> Callable[[SingleFourierModel], float]:
    return lambda model: 100 * ACCURACIES[name](model.test)


def _accuracy(models: _Models) -> str:
    """Returns what accuracies are called; of two kinds, the stricter is drawn."""
    return "accuracy" if models[0].test.top5 is None else "Top-1 accuracy"


def figure2(models: _Models) -> Figure | None:
    """Draws the accuracy of L1 under its worst frequency; None without L1 models."""
    l1 = by_method(models).get("l1")
    if not l1:
        return None
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    ax = figure.subplots()
    _plot(ax, l1, _percent("min"))
    percentages(ax)
    ax.set_ylabel(f"{_accuracy(models)} at the\nworst frequency (%)")
    ax.set_title(METHODS["l1"].label, fontsize=9)
    return figure


def figure4(models: _Models) -> Figure | None:
    """Draws max, mean and min accuracy over frequencies of each method."""
    methods = by_method(models)
    if not methods:
        return None
    figure = Figure(figsize=(3.0 * len(methods) + 1.6, 3.4), layout="constrained")
    axes = figure.subplots(1, len(methods), squeeze=False, sharey=True)[0]
    for ax, (method, group) in zip(axes, methods.items(), strict=True):
        for name, dash in _DASHES.items():
            _plot(ax, group, _percent(name), linestyle=dash, label=name)
        percentages(ax)
        ax.set_title(METHODS[method].label, fontsize=9)
    axes[0].set_ylabel(f"{_accuracy(models)} under attack (%)")
    # One for all panels, without their colors.
    legend_beside(
        axes[-1], [Line2D([], [], c="k", ls=d, label=n) for n, d in _DASHES.items()]
    )
    return figure


def _lowest_loss(model: SingleFourierModel) -> float:
    loss = model.lowest_loss
    return float("nan") if loss is None else loss


def figure5(models: _Models) -> Figure | None:
    """Draws the lowest training loss of each method with a strength lambda."""
    methods = {
        method: group
        for method, group in by_method(models).items()
        if METHODS[method].strength == LAMBDA
    }
    if not methods:
        return None
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    ax = figure.subplots()
    for group in methods.values():
        _plot(ax, group, _lowest_loss)
    ax.set_ylabel("lowest training loss (nats)")
    if ax.get_lines():
        log_scale(ax)
    legend_beside(ax)
    return figure


FIGURES = {"figure2": figure2, "figure4": figure4, "figure5": figure5}
