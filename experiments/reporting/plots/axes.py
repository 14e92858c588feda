"""Axes of figures, their ticks and legends, and the lines on them."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter


class _PlainNumbers(LogFormatter):
    """Writes 0.2, not 2e-01, and powers of ten where an axis goes far from 1."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        # The base class decides which ticks have labels.
        if not super().__call__(x, pos):
            return ""
        assert self.axis is not None
        low, high = self.axis.get_view_interval()
        if low > 1e-4 and high < 1e5:
            return f"{x:g}"
        exponent = math.floor(math.log10(x) + 1e-9)
        factor = x / 10**exponent
        times = "" if math.isclose(factor, 1) else rf"{factor:g} \times "
        return f"${times}10^{{{exponent}}}$"


def log_scale(ax: Axes, name: Literal["x", "y"] = "y") -> None:
    """Makes an axis logarithmic, with plain numbers or powers of ten as labels."""
    ax.set(**{f"{name}scale": "log"})
    axis = ax.xaxis if name == "x" else ax.yaxis
    # Minor ticks have numbers where the axis spans less than a decade and a half.
    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(_PlainNumbers(minor_thresholds=(1.5, 0.5)))
    # They are shorter, and their numbers stand in line with the others.
    axis.set_tick_params(which="minor", pad=5)


def percentages(ax: Axes) -> None:
    """Makes the y axis go from 0 to 100, with room for markers at both ends."""
    ax.set_ylim(-3, 103)


def legend_beside(ax: Axes, handles: Sequence[Artist] | None = None) -> None:
    """Puts the legend to the right of the last axes in a row, where it covers nothing.

    Without handles, it is that of the lines of `ax`.
    """
    if handles is None:
        handles, _ = ax.get_legend_handles_labels()
    if handles:
        ax.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8,
            handlelength=4,
        )  # fmt: skip


def line_with_band(
    ax: Axes, x: Sequence[float] | np.ndarray, mean: np.ndarray, std: np.ndarray,
    **style: Any,
) -> None:  # fmt: skip
    """Draws a line of means over seeds in a band of one standard deviation."""
    ax.plot(x, mean, **style)
    low, high = mean - std, mean + std
    ax.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)
