"""Writes figures to disk."""

import pathlib
import textwrap

import matplotlib
from matplotlib.figure import Figure

from experiments.jobs import files

_LETTERS_PER_INCH = 12  # of the title, in its size of font


def save(figure: Figure, title: str, stem: pathlib.Path) -> list[pathlib.Path]:
    """Writes a figure with its title as png and pdf, atomically.

    Lines of the title that are wider than the figure are broken; `stem` is without
    suffix.
    """
    width = int(_LETTERS_PER_INCH * figure.get_figwidth())
    lines = [textwrap.fill(line, width) for line in title.splitlines()]
    figure.suptitle("\n".join(lines), fontsize=10)
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        return [
            files.write_atomically(
                pathlib.Path(f"{stem}.{kind}"),  # a stem may contain a dot
                lambda stream, kind=kind: figure.savefig(  # type: ignore[misc]
                    stream, format=kind, dpi=150, bbox_inches="tight"
                ),
            )
            for kind in ("png", "pdf")
        ]
