"""Compiles the product's programs for TPUs: `python -m benchmarks.compiled`.

Needs the package libtpu, but no TPU. Each row is written to
`results/benchmarks/compiled.jsonl` as soon as it is known, and is not computed again by
the same versions: remove its line to do so. All rows of these versions are shown in
`compiled.md` beside it.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import pathlib
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tyro

from absum_jax.markdown import aligned
from benchmarks.compiled import compiler, programs
from benchmarks.rows import stored
from experiments.jobs import files
from experiments.jobs.errors import UsageError

_FOLDER = pathlib.Path(__file__).parents[2] / "results" / "benchmarks"
ROWS = _FOLDER / "compiled.jsonl"
# One chip, a host, and pods of 256 chips.
TOPOLOGIES = "v5e:1x1", "v5e:2x4", "v5e:16x16", "v6e:16x16"


class Chip(NamedTuple):
    """A kind of chip."""

    gigabytes: float  # of memory
    tflops: float  # in bfloat16, at most


_SOURCE = "cloud.google.com/tpu/docs, November 2026"
CHIPS = {"v5e": Chip(16, 197), "v5p": Chip(95, 459), "v6e": Chip(32, 918)}


class Compiler:
    """A process that compiles, started anew after a program that it does not survive.

    Args:
      timeout: seconds that a program may take.
    """

    def __init__(self, timeout: float):
        self._timeout = timeout
        self._process: subprocess.Popen[str] | None = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", compiler.__name__],
                env=os.environ | compiler.ENVIRONMENT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            self._answers: queue.Queue[str] = queue.Queue()
            threading.Thread(
                target=_pass_on, args=(self._process, self._answers), daemon=True
            ).start()
        return self._process

    def compile(self, program: str, topology: str) -> dict[str, Any]:
        """Returns what the process answers, or why it does not.

        Raises:
          TimeoutError: if it takes too long.
        """
        process = self._started()
        assert process.stdin is not None
        asked = json.dumps({"program": program, "topology": topology})
        print(asked, file=process.stdin, flush=True)
        try:
            line = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            self.close()
            raise TimeoutError(f"not compiled after {self._timeout:g} s") from None
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.close()
        return {"failure": f"the compiler ended with exit code {process.wait()}"}

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            # Waits, and closes the pipes, of which one may be broken.
            with contextlib.suppress(BrokenPipeError):
                process.__exit__(None, None, None)


def _pass_on(process: subprocess.Popen[str], answers: "queue.Queue[str]") -> None:
    """Passes lines of JSON on, and an empty line at the end of the process."""
    assert process.stdout is not None
    with contextlib.suppress(ValueError):  # closed
        for line in process.stdout:
            if line.startswith("{"):
                answers.put(line)
    answers.put("")


def compute(
    names: Sequence[str], topologies: Sequence[str], path: pathlib.Path,
    compiling: Compiler, versions: dict[str, str],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yields the row of each program and topology, computed or read from a file.

    What takes too long is tried again the next time.
    """
    for name in names:
        for topology in topologies:
            key = {"program": name, "topology": topology} | versions
            compiled = functools.partial(compiling.compile, name, topology)
            try:
                yield stored(path, key, compiled)
            except TimeoutError as error:
                yield key | {"failure": str(error)}


def chip_of(topology: str) -> Chip:
    """Returns the kind of chip of a topology."""
    return CHIPS[topology.partition(":")[0]]


def _size(value: float) -> str:
    return f"{value / 2**20:,.0f} MiB"


def columns(row: dict[str, Any]) -> dict[str, str]:
    """Formats a row of the table."""
    if "failure" in row:
        return dict.fromkeys(_COLUMNS, "") | {"memory": "fails"}
    chip = chip_of(row["topology"])
    memory = sum(row[name] for name in ("arguments", "results", "temporary", "code"))
    seconds, operations = row["estimated_seconds"], row["flops"]
    fastest = (operations or 0) / chip.tflops / 1e12
    is_plausible = seconds and seconds > fastest
    exchanges = [
        f"{of_kind['count']} {kind}, "
        f"{sum(size for name, size in of_kind.items() if name != 'count'):,} B"
        for kind, of_kind in row["exchanges"].items()
    ]
    values = (
        _size(memory), f"{100 * memory / 1e9 / chip.gigabytes:.1f} %",
        _size(row["temporary"]),
        "" if operations is None else f"{operations / 1e9:,.1f}",
        f"{1e3 * seconds:.2f}" if is_plausible else "", "; ".join(exchanges),
        f"{row['seconds']:.0f}",
    )  # fmt: skip
    return dict(zip(_COLUMNS, values, strict=True))


_COLUMNS = (
    "memory", "of the chip's", "temporary", "GFLOP", "estimate, ms", "exchanges",
    "compiled in, s",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """What is compiled."""

    topology: tuple[str, ...] = TOPOLOGIES
    """Kind of chip and shape of the slice, such as v5e:16x16."""
    programs: tuple[str, ...] = tuple(programs.PROGRAMS)
    """Names of programs; all by default."""
    rows: pathlib.Path = ROWS
    """The file that rows are read from, and appended to."""
    timeout: float = 3600
    """Seconds after which a program counts as one that does not compile."""

    def __post_init__(self) -> None:
        """Refuses unknown names."""
        if unknown := set(self.programs) - set(programs.PROGRAMS):
            raise UsageError(
                f"--programs must be among {', '.join(programs.PROGRAMS)}; got "
                f"{', '.join(sorted(unknown))}."
            )
        for topology in self.topology:
            if not re.fullmatch(rf"({'|'.join(CHIPS)}):\d+(x\d+)+", topology):
                raise UsageError(
                    f"--topology must be one of {', '.join(CHIPS)} and a shape, such "
                    f"as v5e:2x2; got {topology}."
                )


def _versions() -> dict[str, str]:
    try:
        return {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            "libtpu is not installed: pip install the version that the extra `tpu` of "
            "the installed jax names."
        ) from error


_TITLE = "# Compiled for TPUs"
_INTRODUCTION = f"""\
Written by `python -m benchmarks.compiled`: what the compiler for TPUs says of the
programs in [programs.py](../../benchmarks/compiled/programs.py). Nothing has run on a
TPU. Memory is that of one chip: arguments, results, temporary arrays and code, beside
the chip's capacity ({_SOURCE}). Operations
are those of one chip in a single pass through each loop, and so is the compiler's
estimate of the time, which is left out where it is less than the operations take at the
chip's peak. Exchanges are counted once in a loop, with the bytes that each chip puts
in. Compilation was timed on two CPU cores beside other work. Failures are explained in
[How it scales](../../docs/scaling.md)."""


def failure(row: dict[str, Any]) -> str:
    """Formats why a program does not compile, as an item of a list."""
    reason = re.sub(r"\s+", " ", row["failure"]).replace("|", "/")
    return f"- {row['program']}: {reason[:200]}"


def page(rows: Sequence[dict[str, Any]], versions: dict[str, str]) -> str:
    """Makes the page with a table for each topology, and the failures below it."""
    lines = [_TITLE, "", _INTRODUCTION, ""]
    lines += [", ".join(f"{name} {version}" for name, version in versions.items())]
    for topology in dict.fromkeys(row["topology"] for row in rows):
        chosen = [row for row in rows if row["topology"] == topology]
        cells = [(row["program"], *columns(row).values()) for row in chosen]
        failures = [failure(row) for row in chosen if "failure" in row]
        chips = math.prod(map(int, topology.partition(":")[2].split("x")))
        shown = f"{chips} chip{'s' if chips > 1 else ''}"
        lines += [
            "",
            f"## {topology}, {shown}",
            "",
            *aligned(("program", *_COLUMNS), cells),
            *([""] if failures else []),
            *failures,
        ]
    return "\n".join(lines) + "\n"


def main(options: Options) -> bool:
    """Writes and prints the page; returns whether all that was asked for compiles."""
    versions = _versions()
    with contextlib.closing(Compiler(options.timeout)) as compiling:
        rows = list(
            compute(
                options.programs, options.topology, options.rows, compiling, versions
            )
        )  # fmt: skip
    known = [
        row
        for row in files.read_json_lines(options.rows)
        if row.items() >= versions.items() and row["program"] in programs.PROGRAMS
    ]
    known.sort(key=lambda row: list(programs.PROGRAMS).index(row["program"]))
    known.sort(key=lambda row: row["topology"])
    files.write_text(options.rows.with_suffix(".md"), page(known, versions))
    print(page(rows, versions))
    return not any("failure" in row for row in rows)


if __name__ == "__main__":
    try:
        sys.exit(not main(tyro.cli(Options)))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
