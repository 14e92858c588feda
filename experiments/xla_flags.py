"""Turns off fusions with which XLA's CPU backend computes wrong numbers.

Call `turn_off_ynnpack_fusions` before importing jax.
"""

import os
from importlib import metadata

NO_YNNPACK_FUSIONS = "--xla_cpu_experimental_ynn_fusion_type="
# An unknown flag aborts the process.
_OLDEST, _NEWEST = (0, 10), (0, 12)


def without_ynnpack_fusions(flags: str, jaxlib: str | None = None) -> str:
    """Returns `XLA_FLAGS` with the flag that turns the fusions off.

    Flags that mention the fusions or name a file of flags are returned unchanged, as
    are those for a version of jaxlib that may lack the flag; None is the installed one.
    """
    version = jaxlib or metadata.version("jaxlib")
    major, minor = map(int, version.split(".")[:2])
    is_known = _OLDEST <= (major, minor) <= _NEWEST
    is_file = bool(flags.strip()) and not flags.lstrip().startswith("-")
    if NO_YNNPACK_FUSIONS in flags or is_file or not is_known:
        return flags
    return f"{flags} {NO_YNNPACK_FUSIONS}".strip()


def turn_off_ynnpack_fusions() -> None:
    """Adds the flag to this process's `XLA_FLAGS`, for jax and for child processes."""
    flags = without_ynnpack_fusions(os.environ.get("XLA_FLAGS", ""))
    if flags:
        os.environ["XLA_FLAGS"] = flags
