"""Runs the items of a reproduction, each in a separate process."""

import concurrent.futures
import contextlib
import dataclasses
import math
import multiprocessing
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from absum_jax.markdown import aligned
from experiments import cli
from experiments.composed import flag, flat
from experiments.data import DataOptions, NamedDataset
from experiments.jobs.errors import UsageError
from experiments.options import check_choices, check_positive, check_seeds, shown
from experiments.reproduce import plan
from experiments.reproduce.items import Item, Number, Profile, items

# A command that does not end after so many interruptions is killed; it resumes from its
# last checkpoint.
_INTERRUPTIONS = 6
_SECONDS_BETWEEN = 5
# The exit code when the minutes are over (EX_TEMPFAIL of `sysexits.h`).
_STOPPED = 75


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """Make the tables and figures of the paper, the most important first, each by a
    separate command, after the plan is printed. If interrupted, rerun the same command
    to resume. If one of the commands fails, the others still run, and the failure is
    reported at the end."""  # noqa: D205, D209

    profile: Profile = "full"
    """full: the runs of results/CRITERIA.md, which take days on a CPU, and then the
    published schedules of large networks, which need accelerators. smoke: every table
    and figure on mnist5k, far from converged, in minutes."""

    only: tuple[Number, ...] | None = None
    """Tables and figures to make; None is all."""

    datasets: tuple[NamedDataset, ...] | None = None
    """Data sets of the profile; None is all. Figures without a data set are made
    anyway."""

    seeds: tuple[int, ...] | None = None
    """Seeds of all models; None is the profile's choice for each command."""

    minutes: float | None = None
    """Stop after this many minutes; None is no limit. Rerun the same command to resume,
    here or on another machine with a copy of the runs folder."""

    dry_run: bool = False
    """Only print the plan."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of trained models."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables and figures."""

    data: DataOptions = dataclasses.field(default_factory=DataOptions)

    def __post_init__(self) -> None:
        if self.only is not None:
            check_choices("--only", self.only)
        if self.datasets is not None:
            known = {item.dataset: None for item in items(self.profile) if item.dataset}
            where = f"--datasets with --profile {self.profile}"
            check_choices(where, self.datasets, known)
        if self.seeds is not None:
            check_seeds(self.seeds)
        if self.minutes is not None:
            check_positive("--minutes", (self.minutes,))


def _arguments(item: Item, options: ReproduceOptions) -> list[str]:
    """Returns the command line of an item, with folders and options of the data."""
    fields = flat(cli.parse(item.command, item.arguments[1:]))
    folders = {"runs_dir": options.runs_dir, "results_dir": options.results_dir}
    given = [
        f"{flag(name)}={value}"
        for name, value in folders.items() if name in fields
    ]  # fmt: skip
    for field in dataclasses.fields(DataOptions):
        value = getattr(options.data, field.name)
        if field.name in fields and value != field.default:
            name = flag(field.name)
            given.append(name if value is True else f"{name}={value}")
    return [*item.arguments, *given]


def _duration(seconds: float | None) -> str:
    """Formats a time in a suitable unit; empty if it is unknown."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _plan(commands: Sequence[tuple[Item, list[str]]], runs_dir: pathlib.Path) -> str:
    """Makes the plan as Markdown."""
    planner = plan.Planner(runs_dir)
    notes: dict[str, list[str]] = {}
    rows, times = [], []
    for item, (name, *options) in commands:
        found = planner.estimate(name, cli.parse(name, options))
        train = f"{found.to_train} of {found.models}" if found.models else ""
        evaluate = ""
        if found.seconds is not None:
            times.append(found.seconds)
            evaluate = f"{found.to_evaluate} of {found.evaluations}"
        rows.append((str(item), train, evaluate, _duration(found.seconds)))
        if found.note:
            notes.setdefault(found.note, []).append(str(item))
    rates = "those of two cores of an AMD EPYC, as nothing is measured here yet"
    if planner.measured:
        measured = (f"{name} {rate:.3g}" for name, rate in planner.measured.items())
        rates = f"steps of training a second, measured here: {', '.join(measured)}"
    untimed = len(rows) - len(times)
    summary = (
        f"Estimated time: {_duration(sum(times) if times else None) or 'unknown'}, "
        f"without compilation, reading of data and {untimed} of {len(rows)} commands, "
        "which have no time here. What several commands need is counted once. Rates: "
        f"{rates}."
    )
    header = ("command", "models to train", "evaluations to do", "time")
    lines = [f"- {note} ({'; '.join(named)})" for note, named in notes.items()]
    return "\n".join([*aligned(header, rows), "", summary, "", *lines]).rstrip()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Interrupts a command, and kills it if it takes too long.

    It is interrupted several times, because Python drops an interruption that arrives
    during a library's callback.
    """
    for _ in range(_INTERRUPTIONS):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_BETWEEN)
            return
    process.kill()


def _run(arguments: Sequence[str], deadline: float) -> int | None:
    """Runs a command until a deadline of `time.monotonic`; returns its exit code.

    That is None if there was no time left or the command was stopped, which it is also
    if this process is interrupted.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    command = [sys.executable, "-m", "experiments", *arguments]
    with subprocess.Popen(command) as process:
        try:
            return process.wait(None if math.isinf(left) else left)
        except subprocess.TimeoutExpired:
            _stop(process)
            return None
        except BaseException:
            _stop(process)
            raise


def _terminated(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def run(options: ReproduceOptions) -> list[pathlib.Path]:
    """Prints the plan and runs it.

    Raises:
      SystemExit: with code 1 if a command failed, 75 if --minutes are over.
    """
    # A shell may have set the signal to be ignored, here and in the commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminated)
    deadline = time.monotonic() + 60 * (options.minutes or math.inf)
    chosen = items(options.profile, options.only, options.seeds, options.datasets)
    if not chosen:
        raise UsageError(
            f"--profile {options.profile} makes none of {shown(options.only)} on "
            f"{shown(options.datasets)}."
        )
    commands = [(item, _arguments(item, options)) for item in chosen]
    # In a separate process: this one must not occupy the accelerator.
    with concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn")
    ) as planning:
        text = planning.submit(_plan, commands, options.runs_dir).result()
    print(f"\n{text}\n", flush=True)
    if options.dry_run:
        return []
    failed = []
    try:
        for i, (item, arguments) in enumerate(commands):
            print(f"\n[{i + 1} of {len(commands)}] {item}", flush=True)
            began = time.monotonic()
            code = _run(arguments, deadline)
            if code is None:
                print(f"\nstopped after {options.minutes:g} minutes: rerun to resume")
                raise SystemExit(_STOPPED)
            if code:
                failed.append(f"{item}: exit code {code}")
            print(f"{item}: {_duration(time.monotonic() - began)}", flush=True)
        print(f"\nall {len(commands)} commands have run")
    finally:
        if failed:
            print("\nfailed:\n" + "\n".join(failed), file=sys.stderr)
    if failed:
        raise SystemExit(1)
    return []
