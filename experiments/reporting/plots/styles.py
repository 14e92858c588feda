"""The lines and points that stand for methods in figures."""

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.methods import METHODS

DASHES = ("-", "--", "-.", ":")
# Of methods that are registered without; those of the table have others.
_SPARE_MARKERS = ("*", "<", ">", "p", "d", "h", "X", "1")
# A line has about so many markers.
_MARKERS_OF_A_LINE = 10


def method_style(name: str) -> dict[str, Any]:
    """Returns how a method is drawn, label included, as options of `Axes.plot`.

    A method without dash or marker of its own takes both from those that are left.
    """
    method = METHODS[name]
    dash, marker = method.dash, method.marker
    if dash is None or marker is None:
        taken = [(other.dash, other.marker) for other in METHODS.values()]
        pairs = itertools.product(_SPARE_MARKERS, DASHES)
        spare = [(d, m) for m, d in pairs if (d, m) not in taken]
        without = [
            n for n, other in METHODS.items() if None in (other.dash, other.marker)
        ]
        dash, marker = spare[without.index(name) % len(spare)]
    return {
        "color": method.color,
        "linestyle": dash,
        "marker": marker,
        # Where lines coincide, all of their markers are seen.
        "markerfacecolor": "none",
        "label": method.label,
    }


def spread_markers(ax: Axes) -> None:
    """Leaves some ten markers of each line, at different points of different lines."""
    lines = ax.get_lines()
    for i, line in enumerate(lines):
        step = max(1, np.size(line.get_xdata()) // _MARKERS_OF_A_LINE)
        line.set_markevery((i * step // len(lines), step))
