"""Measures, tabulates and writes runtimes for Figures 6(a) and 6(b)."""

import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from matplotlib.figure import Figure

from experiments.composed import result_options
from experiments.jobs import locks
from experiments.jobs.progress import progress
from experiments.methods import METHODS
from experiments.names import Name
from experiments.reporting import document, naming
from experiments.reporting.columns import aligned
from experiments.reporting.plots.saving import save
from experiments.reporting.plots.styles import method_style
from experiments.runtimes.log import Conditions, Log
from experiments.training import devices

TIMED_METHODS = ("none", "weight_decay", "l1", "absum", "snc", "snc_numpy")
# Files have the name with an underscore.
TimedMethod = Annotated[
    str, Name(lambda: TIMED_METHODS, spelled={"snc_numpy": "snc-numpy"})
]
NAMES = {n: m.label for n, m in METHODS.items()} | {"snc_numpy": "SNC, NumPy"}

_Measurement = TypeVar("_Measurement", bound=Conditions)


def clip_method(method: str, snc: str | None = None) -> str | None:
    """Returns how a method clips; None if it does not.

    SNC clips by `snc`, or else by the library's default on the devices in use.
    """
    default = "eigh" if devices.on_cpu() else "polar"
    return {"snc": snc or default, "snc_numpy": "numpy"}.get(method)


def strength(method: str) -> float | None:
    """Returns the strength that the paper times a method with: lambda, or sigma."""
    # P, appendix, "Computational Cost".
    return {"none": None, "snc": 1.0, "snc_numpy": 1.0}.get(method, 1e-4)


def timed_style(method: str) -> dict[str, Any]:
    """Returns how a timed method is drawn, as `method_style` does."""
    if method in METHODS:
        return method_style(method)
    return method_style("snc") | {
        "linestyle": (0, (2, 2)), "marker": "p", "label": NAMES[method],
    }  # fmt: skip


def measure_missing(
    folder: pathlib.Path,
    groups: Collection[Sequence[_Measurement]],
    is_enough: Callable[[_Measurement, Log], bool],
    measure: Callable[[Sequence[_Measurement], Log], None],
    task: str,
) -> Log:
    """Completes the log of timings in a folder, which is locked meanwhile.

    Measurements of a group are timed in turns by `measure`, which adds them to the log.
    """
    with locks.exclusive(folder, "measures runtimes"):
        log = Log(folder / "measurements.jsonl")
        missing = [[m for m in group if not is_enough(m, log)] for group in groups]
        if total := sum(map(len, missing)):
            with progress(total, task, "runtime") as advance:
                for group in filter(None, missing):
                    measure(group, log)
                    advance(len(group))
    return log


def clip_note(rows: Sequence[Mapping[str, Any]], clips: str, by_numpy: str) -> str:
    """Explains how SNC clips in either form and in NumPy; empty without SNC."""
    methods = {row["method"]: row["clip"] for row in rows if row["clip"] is not None}
    note = f" {clips}" if methods else ""
    if "snc" in methods:
        note += f" SNC clips by the method {methods['snc']}."
    return note + (f" {by_numpy}" if "snc_numpy" in methods else "")


def markdown(
    title: str,
    header: Sequence[str],
    cells: Sequence[Sequence[str]],
    note: str,
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> str:
    """Makes the table with its title, its note and the conditions of the rows."""
    conditions = (
        f"{about['device']}, {about['cpu_cores']} CPU cores ({about['cpu_model']}), "
        f"jax {about['packages']['jax']}, NumPy {about['packages']['numpy']}"
    )
    if threads := rows[0]["openblas_num_threads"]:
        conditions += f", OPENBLAS_NUM_THREADS={threads}"
    return document.page(title, aligned(header, cells), note, f"{conditions}.")


def without_methods(methods: Collection[str]) -> list[str]:
    """Returns which of the methods that the paper times a figure lacks."""
    return naming.without({m: NAMES[m] for m in TIMED_METHODS}, methods)


def write(
    stem: pathlib.Path,
    title: str,
    options: Any,
    rows: Sequence[Mapping[str, Any]],
    table: str,
    figure: Figure,
) -> list[pathlib.Path]:
    """Prints the table and writes it as json, csv and md, and the figure.

    The table's files are `stem` with a suffix, in a folder named as the figure.
    """
    print(f"\n{table}\n")
    content = {"title": title, "options": result_options(options), "rows": rows}
    written = document.write(stem, content, table, rows)
    return written + save(figure, title, stem.with_name(stem.parent.name))
