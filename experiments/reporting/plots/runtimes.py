"""What Figures 6(a) and 6(b) have in common."""

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from matplotlib.figure import Figure

from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS
from experiments.options import check_choices
from experiments.reporting.plots.saving import save
from experiments.training import devices

TimedMethod = Literal["none", "weight_decay", "l1", "absum", "snc", "snc_numpy"]
TIMED_METHODS: tuple[TimedMethod, ...] = get_args(TimedMethod)
# P, appendix, "Computational Cost".
_STRENGTH, _MAX_NORM = 1e-4, 1.0

NAMES = {n: m.label for n, m in METHODS.items()} | {"snc_numpy": "SNC, NumPy"}
COLORS = {n: m.color for n, m in METHODS.items()} | {"snc_numpy": METHODS["snc"].color}


def check_methods(methods: Sequence[str]) -> None:
    """Refuses none, one twice, and unknown ones."""
    check_choices("--methods", methods)
    unknown = set(methods) - set(TIMED_METHODS)
    if unknown:
        raise UsageError(
            f"--methods must be among {', '.join(TIMED_METHODS)}, got "
            f"{sorted(unknown)}."
        )


def clip_method() -> str:
    """Returns how the library clips on the devices in use, if nothing else is asked."""
    return "eigh" if devices.on_cpu() else "polar"


def strength(method: str) -> float | None:
    """What the paper times a method with: lambda, for SNC sigma."""
    strengths = {"none": None, "snc": _MAX_NORM, "snc_numpy": _MAX_NORM}
    return strengths.get(method, _STRENGTH)


def conditions(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What rows were measured on, as a sentence."""
    threads = rows[0]["openblas_num_threads"]
    return (
        f"{about['device']}, {about['cpu_cores']} CPU cores, "
        f"jax {about['packages']['jax']}, NumPy {about['packages']['numpy']}"
        + (f", OPENBLAS_NUM_THREADS={threads}." if threads else ".")
    )


def write(
    stem: pathlib.Path,
    document: Mapping[str, Any],
    table: str,
    figure: Figure,
    figure_stem: pathlib.Path,
) -> list[pathlib.Path]:
    """Writes a result as json, csv, md, png and pdf.

    Args:
      stem: of the first three.
      document: the json, whose `rows` are the csv.
      table: the md.
      figure: the picture.
      figure_stem: of the picture's files.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(document["rows"][0]))
    writer.writeheader()
    writer.writerows(document["rows"])
    return [
        files.write_json(stem.with_suffix(".json"), document),
        files.write_text(stem.with_suffix(".csv"), text.getvalue()),
        files.write_text(stem.with_suffix(".md"), table + "\n"),
        *save(figure, figure_stem),
    ]
