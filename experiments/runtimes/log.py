"""Timings on disk, each of which is recorded as soon as it is measured."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

import absum_jax
from experiments.jobs import digests, files, machine
from experiments.jobs.errors import damage_named
from experiments.runtimes.timing import in_turns, seconds_of

# Total after which nothing is timed again: its median would hardly change.
_ENOUGH_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """The machine that a runtime is measured on; subclasses add what is measured."""

    backend: str = dataclasses.field(default_factory=jax.default_backend)
    device: str = dataclasses.field(
        default_factory=lambda: jax.devices()[0].device_kind
    )
    cpu_cores: int | None = dataclasses.field(default_factory=os.cpu_count)
    cpu_model: str = dataclasses.field(default_factory=machine.cpu_model)
    # On a loaded CPU, LAPACK is ten times slower with threads that wait for each other.
    openblas_num_threads: str | None = dataclasses.field(
        default_factory=lambda: os.environ.get("OPENBLAS_NUM_THREADS")
    )
    xla_flags: str = dataclasses.field(
        default_factory=lambda: os.environ.get("XLA_FLAGS", "")
    )
    jax_version: str = jax.__version__
    absum_jax_version: str = absum_jax.__version__


@dataclasses.dataclass(frozen=True)
class Timings:
    """The timings of a measurement, in seconds."""

    compile_s: list[float] = dataclasses.field(default_factory=list)
    step_s: list[float] = dataclasses.field(default_factory=list)
    # Of all timed steps of an epoch, and of clipping all convolutions once.
    epoch_s: list[float] = dataclasses.field(default_factory=list)
    clip_s: list[float] = dataclasses.field(default_factory=list)


def is_enough(seconds: Sequence[float], repeats: int) -> bool:
    """Checks whether something need not be timed again."""
    return len(seconds) >= repeats or sum(seconds) >= _ENOUGH_SECONDS


class Log:
    """Timings on disk, one line each. An incomplete last line is dropped."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._timings: dict[str, Timings] = {}
        lines = files.read_json_lines(path)
        with damage_named(path, "remove it"):
            for line in lines:
                if not digests.is_whole(line):
                    raise ValueError("a line is not as it was written")
                timings = self._timings_of(line["measurement"])
                getattr(timings, line["kind"]).append(line["seconds"])
        files.write_json_lines(path, lines)

    def _timings_of(self, measurement: dict[str, Any]) -> Timings:
        key = json.dumps(measurement, sort_keys=True)
        return self._timings.setdefault(key, Timings())

    def add(self, measurement: Conditions, kind: str, seconds: float) -> None:
        """Appends a timing of some kind, which is a field of `Timings`."""
        fields = dataclasses.asdict(measurement)
        line = {"measurement": fields, "kind": kind, "seconds": seconds}
        files.append_json_line(self._path, digests.with_checksum(line))
        getattr(self._timings_of(fields), kind).append(seconds)

    def __getitem__(self, measurement: Conditions) -> Timings:
        """Returns the timings of a measurement."""
        return self._timings_of(dataclasses.asdict(measurement))

    def lacks(self, measurement: Conditions, kind: str, repeats: int) -> bool:
        """Checks whether a measurement needs more timings of a kind."""
        return not is_enough(getattr(self[measurement], kind), repeats)

    def warm_up(
        self, measurement: Conditions, kind: str, function: Callable[[], Any]
    ) -> None:
        """Calls a function once; adds the timing if once is enough."""
        seconds = seconds_of(function)
        if seconds >= _ENOUGH_SECONDS:
            self.add(measurement, kind, seconds)

    def time_in_turns(
        self, functions: Mapping[Any, Callable[[], Any]], kind: str, repeats: int
    ) -> None:
        """Times the compiled functions of measurements in turns, and adds the timings.

        Stops when each has enough: so many repeats, or fewer if they take a minute.
        """
        for measurement, seconds in in_turns(
            functions, lambda measurement: self.lacks(measurement, kind, repeats)
        ):
            self.add(measurement, kind, seconds)
