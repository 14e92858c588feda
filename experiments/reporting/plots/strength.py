"""Figures 2, 4 and 5: robustness and training loss against the strength."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.config import NONE
from experiments.methods import LAMBDA, METHODS
from experiments.reporting.outcomes import Outcome

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]


def _curve(outcomes: Sequence[Outcome], value: Callable[[Outcome], float]) -> Curve:
    """Strengths in rising order, with mean and standard deviation over seeds."""
    by_strength: dict[float, list[float]] = {}
    for outcome in outcomes:
        by_strength.setdefault(outcome.run.config.strength, []).append(value(outcome))
    strengths = sorted(by_strength)
    values = [by_strength[strength] for strength in strengths]
    return (
        np.array(strengths),
        np.array([*map(np.mean, values)]),
        np.array([*map(np.std, values)]),
    )


def by_method(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes of each method that has a strength."""
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.run.config.method != NONE.method:
            grouped.setdefault(outcome.run.config.method, []).append(outcome)
    return grouped


ACCURACIES: Mapping[str, tuple[Callable[[Outcome], float], str]] = {
    "max": (lambda outcome: float(outcome.test.frequencies.max), ":"),
    "avg": (lambda outcome: float(outcome.test.frequencies.mean), "-"),
    "min": (lambda outcome: float(outcome.test.frequencies.min), "--"),
}


def _plot(
    ax: Axes,
    outcomes: Sequence[Outcome],
    value: Callable[[Outcome], float],
    *,
    style: str,
    label: str,
    scale: float = 100,
) -> None:
    strengths, mean, std = _curve(outcomes, value)
    finite = np.isfinite(mean)
    if not finite.any():
        return
    strengths, mean, std = strengths[finite], mean[finite], std[finite]
    color = METHODS[outcomes[0].run.config.method].color
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
    strength = METHODS[outcomes[0].run.config.method].strength
    assert strength is not None
    ax.set_xlabel(strength.label)


def _accuracy(outcomes: Sequence[Outcome]) -> str:
    """What the accuracies are called; of two kinds, the stricter is drawn."""
    return "accuracy" if outcomes[0].test.top5 is None else "Top-1 accuracy"


def figure2(outcomes: Sequence[Outcome]) -> Figure | None:
    """Accuracy of L1 under its worst frequency; None without L1 models."""
    l1 = by_method(outcomes).get("l1")
    if not l1:
        return None
    figure = Figure(figsize=(4.2, 3.2))
    ax = figure.subplots()
    _plot(ax, l1, ACCURACIES["min"][0], style="-", label=METHODS["l1"].label)
    ylabel = f"{_accuracy(outcomes)} at the worst frequency (%)"
    ax.set(ylabel=ylabel, ylim=(0, 100), title="L1")
    return figure


def figure4(outcomes: Sequence[Outcome]) -> Figure | None:
    """Accuracy under attack of each method: max, mean and min over frequencies."""
    methods = by_method(outcomes)
    if not methods:
        return None
    figure = Figure(figsize=(3.2 * len(methods) + 0.6, 3.2), layout="constrained")
    axes = figure.subplots(1, len(methods), squeeze=False, sharey=True)[0]
    for ax, (method, group) in zip(axes, methods.items(), strict=True):
        for label, (value, style) in ACCURACIES.items():
            _plot(ax, group, value, style=style, label=label)
        ax.set(ylim=(0, 100), title=METHODS[method].label)
    axes[0].set_ylabel(f"{_accuracy(outcomes)} under attack (%)")
    axes[0].legend(loc="lower left")
    return figure


def _lowest_loss(outcome: Outcome) -> float:
    loss = outcome.lowest_loss
    return float("nan") if loss is None else loss


def figure5(outcomes: Sequence[Outcome]) -> Figure | None:
    """The lowest training loss of each method with a strength lambda."""
    methods = {
        method: group
        for method, group in by_method(outcomes).items()
        if METHODS[method].strength == LAMBDA
    }
    if not methods:
        return None
    figure = Figure(figsize=(4.6, 3.2))
    ax = figure.subplots()
    for method, group in methods.items():
        _plot(ax, group, _lowest_loss, style="-", label=METHODS[method].label, scale=1)
    ax.set(ylabel="lowest training loss (nats)")
    if ax.get_lines():
        ax.set_yscale("log")
        ax.legend()
    return figure


FIGURES = {"figure2": figure2, "figure4": figure4, "figure5": figure5}
