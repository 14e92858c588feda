"""Methods and notes of Figures 6(a) and 6(b)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from experiments.jobs.errors import UsageError
from experiments.options import check_choices
from experiments.reporting.labels import METHOD_COLORS, METHOD_NAMES
from experiments.training import devices

MethodName = Literal["none", "weight_decay", "l1", "absum", "snc", "snc_numpy"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
# P, appendix, "Computational Cost".
_STRENGTH, _MAX_NORM = 1e-4, 1.0

NAMES = METHOD_NAMES | {"snc_numpy": "SNC, NumPy"}
COLORS = METHOD_COLORS | {"snc_numpy": METHOD_COLORS["snc"]}


def check_methods(methods: Sequence[str]) -> None:
    """Refuses an empty list, duplicates and unknown methods."""
    check_choices("--methods", methods)
    unknown = set(methods) - set(METHODS)
    if unknown:
        raise UsageError(
            f"--methods must be among {', '.join(METHODS)}, got {sorted(unknown)}."
        )


def clip_method() -> str:
    """Returns how the library clips on the devices in use, if nothing else is asked."""
    return "eigh" if devices.on_cpu() else "polar"


def strength(method: str) -> float | None:
    """Returns the strength (lambda, for SNC sigma) that the paper times."""
    strengths = {"none": None, "snc": _MAX_NORM, "snc_numpy": _MAX_NORM}
    return strengths.get(method, _STRENGTH)


def conditions(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a sentence on what rows were measured on."""
    threads = rows[0]["openblas_num_threads"]
    return (
        f"{about['device']}, {about['cpu_cores']} CPU cores, "
        f"jax {about['packages']['jax']}, NumPy {about['packages']['numpy']}"
        + (f", OPENBLAS_NUM_THREADS={threads}." if threads else ".")
    )
