"""Writes figures to disk."""

import pathlib

import matplotlib
from matplotlib.figure import Figure

from experiments.jobs import files


def save(figure: Figure, stem: pathlib.Path) -> list[pathlib.Path]:
    """Writes a figure as png and pdf, atomically; `stem` is without suffix."""
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
