"""Timings on disk, resumable one by one."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

import absum_jax
from experiments.jobs import digests, files
from experiments.jobs.errors import damage_named

# What took this long altogether is timed no further: its median would hardly move.
_ENOUGH_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a runtime is measured on; each kind of measurement adds what it is of."""

    backend: str = dataclasses.field(default_factory=jax.default_backend)
    device: str = dataclasses.field(
        default_factory=lambda: jax.devices()[0].device_kind
    )
    cpu_cores: int | None = dataclasses.field(default_factory=os.cpu_count)
    # Threads of LAPACK that wait for each other on a loaded CPU cost tenfold.
    openblas_num_threads: str | None = dataclasses.field(
        default_factory=lambda: os.environ.get("OPENBLAS_NUM_THREADS")
    )
    xla_flags: str = dataclasses.field(
        default_factory=lambda: os.environ.get("XLA_FLAGS", "")
    )
    jax_version: str = jax.__version__
    absum_jax_version: str = absum_jax.__version__


class Timings(NamedTuple):
    """What is known of a measurement, in seconds."""

    compile_s: list[float]
    step_s: list[float]
    epoch_s: list[float]  # of the timed steps of an epoch, all together
    clip_s: list[float]  # of all convolutions once, by themselves


def is_long(seconds: float) -> bool:
    """Whether something takes so long that once is enough."""
    return seconds >= _ENOUGH_SECONDS


def is_enough(seconds: Sequence[float], repeats: int) -> bool:
    """Whether something need not be timed again."""
    return len(seconds) >= repeats or is_long(sum(seconds))


class Log:
    """Timings on disk, one line each.

    Args:
      path: the file. A last line that a kill cut short is dropped.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._timings: dict[str, Timings] = {}
        lines = files.read_json_lines(path)
        with damage_named(path, "remove it"):
            for line in lines:
                if not digests.is_whole(line):
                    raise ValueError("a line is not as it was written")
                self._remember(line["measurement"], line["kind"], line["seconds"])
        files.write_json_lines(path, lines)

    def _remember(self, measurement: dict[str, Any], kind: str, seconds: float) -> None:
        key = json.dumps(measurement, sort_keys=True)
        timings = self._timings.setdefault(key, _none())
        getattr(timings, kind).append(seconds)

    def add(self, measurement: Conditions, kind: str, seconds: float) -> None:
        """Appends seconds of one of the kinds that are the fields of `Timings`."""
        fields = dataclasses.asdict(measurement)
        line = {"measurement": fields, "kind": kind, "seconds": seconds}
        files.append_json_line(self._path, digests.with_checksum(line))
        self._remember(fields, kind, seconds)

    def __getitem__(self, measurement: Conditions) -> Timings:
        """What is known of a measurement."""
        key = json.dumps(dataclasses.asdict(measurement), sort_keys=True)
        return self._timings.get(key, _none())


def _none() -> Timings:
    return Timings(*([] for _ in Timings._fields))
