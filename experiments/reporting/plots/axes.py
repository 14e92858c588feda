"""Axes of figures."""

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter


class _PlainNumbers(LogFormatter):
    """Writes 0.2 where matplotlib has 2e-01, at the same ticks."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def log_scale(ax: Axes) -> None:
    """Makes the y axis logarithmic, and writes plain numbers beside it."""
    ax.set_yscale("log")
    # Minor ticks have numbers where the axis spans less than a decade and a half.
    for set_formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        set_formatter(_PlainNumbers(minor_thresholds=(1.5, 0.5)))
