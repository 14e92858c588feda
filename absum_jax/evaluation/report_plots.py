"""The plot of a robustness report; needs the extra `plot`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from absum_jax import plotting
from absum_jax.evaluation.robustness import ReportRow, RobustnessReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colors, safe for the color-blind.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (4, 4)))
_MARKERS = ("o", "^", "s", "D", "v", "P", "x")


def plot_report(report: RobustnessReport) -> np.ndarray:
    """Draws a report in percent: accuracy per frequency, against eps and the radius.

    If all rows of a panel have the same strength, their accuracies are drawn side by
    side. Error bars are the intervals of the rows.

    Args:
      report: from :func:`robustness_report`. If it does not have the whole grid of
        frequencies, their panel is left out.

    Returns:
      The axes (3,), or (2,) without the grid, of a new figure of `pyplot`,
      `axes[0].figure`.

    Raises:
      ValueError: if `report` is not a report.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> import matplotlib; matplotlib.use("Agg")
      >>> x = jax.random.uniform(jax.random.key(0), (10, 4, 4, 1))
      >>> dark = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], -1)
      >>> report = absum_jax.robustness_report(
      ...     dark, x, dark(x).argmax(-1), key=jax.random.key(1),
      ...     single_fourier_eps=0.1, eps=[0.1, 0.2], step_size=0.1, steps=2,
      ... )
      >>> heatmap, eps, radius = absum_jax.plot_report(report)
      >>> eps.get_ylabel()
      'accuracy (%)'
    """
    if not isinstance(report, RobustnessReport):
        raise ValueError(f"`report` must be a RobustnessReport, got {report!r}.")
    axes = plotting.new_axes(2 if report.grid is None else 3)
    if report.grid is not None:
        ax = plotting.plot_frequency_heatmap(100 * report.grid, ax=axes[0], vmax=100)
        ax.set_title("single Fourier attack", fontsize=9)
        ax.figure.colorbar(ax.images[0], ax=ax, label="accuracy (%)", shrink=0.8)
    clean = next(row for row in report.rows if row.attack == "clean")
    # The single frequencies are in the heat map, and the parts in AutoAttack.
    others = "single Fourier", "AutoAttack:"
    rows = [row for row in report.rows if not row.attack.startswith(others)]
    for ax, measure, unit in (
        (axes[-2], "eps", ""), (axes[-1], "radius", "cycles per image"),
    ):  # fmt: skip
        ax.axhline(100 * clean.accuracy, color="gray", lw=0.8, ls=":", label="clean")
        _plot_rows(ax, [row for row in rows if row.measure == measure], measure, unit)
    return axes


def _plot_rows(ax: "Axes", rows: Sequence[ReportRow], measure: str, unit: str) -> None:
    """Draws accuracies in percent with their intervals, a line for each attack."""
    ax.set_prop_cycle(color=_COLORS, linestyle=_DASHES, marker=_MARKERS)
    strengths = {row.strength for row in rows}
    is_one = len(strengths) == 1
    attacks = list(dict.fromkeys(row.attack for row in rows))
    for i, attack in enumerate(attacks):
        of_attack = sorted(row for row in rows if row.attack == attack)
        low, accuracy, high = (
            100 * np.array([getattr(row, name) for row in of_attack])
            for name in ("low", "accuracy", "high")
        )
        ax.errorbar(
            [i if is_one else row.strength or 0.0 for row in of_attack],
            accuracy,
            np.maximum([accuracy - low, high - accuracy], 0),
            markerfacecolor="none", capsize=2, label=attack,
        )  # fmt: skip
    ax.ticklabel_format(style="plain", useOffset=False)
    ax.set(ylabel="accuracy (%)", ylim=(-3, 103))
    if is_one:
        ax.set(
            xlabel=f"{measure} = {strengths.pop():.4g} {unit}",
            xlim=(-1, len(attacks)), xticks=[],
        )  # fmt: skip
    else:
        ax.set_xlabel(f"{measure} ({unit})" if unit else measure)
    # Above the axes, where it covers nothing.
    legend = ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=7, handlelength=4
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
