"""Figures 2, 4 and 5: robustness and training loss against the strength."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.config import NONE, SNC_METHODS
from experiments.reporting.evaluated import SingleFourierModel
from experiments.reporting.labels import METHOD_COLORS, METHOD_NAMES

_STRENGTH = r"regularization strength $\lambda$"
_STRENGTHS = dict.fromkeys(SNC_METHODS, r"bound on the spectral norm $\sigma$")

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]


def _curve(
    models: Sequence[SingleFourierModel], value: Callable[[SingleFourierModel], float]
) -> Curve:
    """Strengths in rising order, with mean and standard deviation over seeds."""
    by_strength: dict[float, list[float]] = {}
    for model in models:
        by_strength.setdefault(model.run.config.strength, []).append(value(model))
    strengths = sorted(by_strength)
    values = [by_strength[strength] for strength in strengths]
    return (
        np.array(strengths),
        np.array([*map(np.mean, values)]),
        np.array([*map(np.std, values)]),
    )


def by_method(
    models: Sequence[SingleFourierModel],
) -> dict[str, list[SingleFourierModel]]:
    """Outcomes of each method that has a strength."""
    grouped: dict[str, list[SingleFourierModel]] = {}
    for model in models:
        if model.run.config.method != NONE.method:
            grouped.setdefault(model.run.config.method, []).append(model)
    return grouped


ACCURACIES: Mapping[str, tuple[Callable[[SingleFourierModel], float], str]] = {
    "max": (lambda model: float(model.test.frequencies.max), ":"),
    "avg": (lambda model: float(model.test.frequencies.mean), "-"),
    "min": (lambda model: float(model.test.frequencies.min), "--"),
}


def _plot(
    ax: Axes,
    models: Sequence[SingleFourierModel],
    value: Callable[[SingleFourierModel], float],
    *,
    style: str,
    label: str,
    scale: float = 100,
) -> None:
    strengths, mean, std = _curve(models, value)
    finite = np.isfinite(mean)
    if not finite.any():
        return
    strengths, mean, std = strengths[finite], mean[finite], std[finite]
    color = METHOD_COLORS[models[0].run.config.method]
    ax.plot(strengths, scale * mean, style, color=color, marker=".", label=label)
    ax.fill_between(
        strengths,
        scale * (mean - std),
        scale * (mean + std),
        color=color,
        alpha=0.15,
        lw=0,
    )
    ax.set_xscale("log")
    ax.set_xlabel(_STRENGTHS.get(models[0].run.config.method, _STRENGTH))


def _accuracy(models: Sequence[SingleFourierModel]) -> str:
    """What the accuracies are called; of two kinds, the stricter is drawn."""
    return "accuracy" if models[0].test.top5 is None else "Top-1 accuracy"


def figure2(models: Sequence[SingleFourierModel]) -> Figure | None:
    """Accuracy of L1 under its worst frequency; None without L1 models."""
    l1 = by_method(models).get("l1")
    if not l1:
        return None
    figure = Figure(figsize=(4.2, 3.2))
    ax = figure.subplots()
    _plot(ax, l1, ACCURACIES["min"][0], style="-", label=METHOD_NAMES["l1"])
    ylabel = f"{_accuracy(models)} at the worst frequency (%)"
    ax.set(ylabel=ylabel, ylim=(0, 100), title="L1")
    return figure


def figure4(models: Sequence[SingleFourierModel]) -> Figure | None:
    """Accuracy under attack of each method: max, mean and min over frequencies."""
    methods = by_method(models)
    if not methods:
        return None
    figure = Figure(figsize=(3.2 * len(methods) + 0.6, 3.2), layout="constrained")
    axes = figure.subplots(1, len(methods), squeeze=False, sharey=True)[0]
    for ax, (method, group) in zip(axes, methods.items(), strict=True):
        for label, (value, style) in ACCURACIES.items():
            _plot(ax, group, value, style=style, label=label)
        ax.set(ylim=(0, 100), title=METHOD_NAMES[method])
    axes[0].set_ylabel(f"{_accuracy(models)} under attack (%)")
    axes[0].legend(loc="lower left")
    return figure


def _lowest_loss(model: SingleFourierModel) -> float:
    loss = model.lowest_loss
    return float("nan") if loss is None else loss


def figure5(models: Sequence[SingleFourierModel]) -> Figure | None:
    """The lowest training loss of each method with a strength lambda."""
    methods = by_method(models)
    for method in SNC_METHODS:
        methods.pop(method, None)
    if not methods:
        return None
    figure = Figure(figsize=(4.6, 3.2))
    ax = figure.subplots()
    for method, group in methods.items():
        _plot(ax, group, _lowest_loss, style="-", label=METHOD_NAMES[method], scale=1)
    ax.set(ylabel="lowest training loss (nats)")
    if ax.get_lines():
        ax.set_yscale("log")
        ax.legend()
    return figure


FIGURES = {"figure2": figure2, "figure4": figure4, "figure5": figure5}
