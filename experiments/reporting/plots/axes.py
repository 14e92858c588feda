"""Axes of figures, and the lines on them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter
from matplotlib.typing import ColorType


class _PlainNumbers(LogFormatter):
    """Writes 0.2 where matplotlib has 2e-01, at the same ticks."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def log_scale(ax: Axes) -> None:
    """Makes the y axis logarithmic, with plain numbers as labels."""
    ax.set_yscale("log")
    # Minor ticks have numbers where the axis spans less than a decade and a half.
    for set_formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        set_formatter(_PlainNumbers(minor_thresholds=(1.5, 0.5)))


def line_with_band(
    ax: Axes,
    x: Sequence[float] | np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    *,
    color: ColorType,
    label: str,
    style: str = "-",
    marker: str | None = None,
    alpha: float = 0.15,
) -> None:
    """Draws a line of means over seeds in a band of one standard deviation."""
    ax.plot(x, mean, style, color=color, label=label, marker=marker)
    ax.fill_between(x, mean - std, mean + std, color=color, alpha=alpha, lw=0)
