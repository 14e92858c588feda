"""Runs the items of a reproduction, each in a process of its own."""

import dataclasses
import math
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from absum_jax._markdown import aligned
from experiments import cli
from experiments.data import DataOptions, DatasetName
from experiments.errors import UsageError
from experiments.options import check_choices, check_positive, check_seeds
from experiments.reproduce import plan
from experiments.reproduce.items import Item, Number, Profile, items

# What a command has for its last checkpoint when it is stopped.
_SECONDS_TO_STOP = 30


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """Make the tables and figures of the paper, the most important first, each by a
    command in a process of its own. Prints the plan first. If interrupted, rerun the
    same command: it resumes. A command that fails does not stop the others and is
    reported at the end."""  # noqa: D205, D209

    profile: Profile = "full"
    """full: the runs of results/CRITERIA.md, which take days on a CPU, and then the
    published schedules of large networks, which need accelerators. smoke: every table
    and figure on the embedded data, far from converged, in minutes."""

    only: tuple[Number, ...] | None = None
    """Tables and figures to make; None is all."""

    datasets: tuple[DatasetName, ...] | None = None
    """Data sets to make them on; None is all of the profile."""

    seeds: tuple[int, ...] | None = None
    """Seeds of all models; None is what the profile has for each item."""

    minutes: float | None = None
    """Stop after so many minutes, for a machine that is lent; None is when all is done.
    The same command resumes, also elsewhere with a copy of the runs folder."""

    dry_run: bool = False
    """Print the plan alone."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of trained models."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables and figures."""

    data: DataOptions = dataclasses.field(default_factory=DataOptions)

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        if self.only is not None:
            check_choices("--only", self.only)
        if self.datasets is not None:
            check_choices("--datasets", self.datasets)
        if self.seeds is not None:
            check_seeds(self.seeds)
        if self.minutes is not None:
            check_positive("--minutes", (self.minutes,))


def _arguments(item: Item, options: ReproduceOptions) -> list[str]:
    """The command line of an item, with the folders."""
    kind = cli.options_type(item.command)
    fields = {field.name for field in dataclasses.fields(kind)}
    folders = {"runs_dir": options.runs_dir, "results_dir": options.results_dir}
    given = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in folders.items() if name in fields
    ]  # fmt: skip
    if "data" in fields:
        for field in dataclasses.fields(DataOptions):
            value = getattr(options.data, field.name)
            if value != field.default:
                name = field.name.replace("_", "-")
                given.append(f"--{name}" if value is True else f"--{name}={value}")
    return [*item.arguments, *given]


def _duration(seconds: float | None) -> str:
    """A time in the largest unit that it fills; empty for an unknown one."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _plan(commands: Sequence[tuple[Item, list[str]]], runs_dir: pathlib.Path) -> str:
    """The plan as markdown."""
    measured_here = plan.measured(runs_dir)
    rows, total = [], 0.0
    for item, arguments in commands:
        name, *options = arguments
        found = plan.estimate(name, cli.parse(name, options), measured_here)
        total += found.seconds or 0
        counts = ("", "")
        if found.models:
            counts = (
                f"{found.models - found.trained} of {found.models}",
                f"{found.evaluations - found.evaluated} of {found.evaluations}",
            )
        rows.append((str(item), *counts, _duration(found.seconds), found.note))
    header = ("command", "models to train", "evaluations", "time", "")
    rates = ", ".join(
        f"{network} {rate:.3g} a second" for network, rate in measured_here.items()
    )
    source = (
        f"steps of training measured here: {rates}"
        if rates
        else "rates of two cores of an AMD EPYC, as nothing is measured here yet"
    )
    notes = [
        f"Estimated time: {_duration(total)}, without compilation, reading of data and "
        "commands without a time. What commands share is counted for each. Rates: "
        f"{source}."
    ]
    return "\n".join([*aligned(header, rows), "", *notes])


def _run(arguments: Sequence[str], deadline: float) -> int | None:
    """Runs a command, and stops it at a time of `time.monotonic`.

    Returns:
      Its exit code; None if it was stopped.
    """
    command = [sys.executable, "-m", "experiments", *arguments]
    with subprocess.Popen(command, cwd=pathlib.Path.cwd()) as process:
        try:
            left = deadline - time.monotonic()
            return process.wait(None if math.isinf(left) else max(left, 0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
            return None


def run(options: ReproduceOptions) -> list[pathlib.Path]:
    """Prints the plan, and runs it.

    Raises:
      SystemExit: with code 1 if a command failed.
    """
    started = time.monotonic()
    deadline = started + 60 * (options.minutes or math.inf)
    chosen = items(options.profile, options.only, options.seeds, options.datasets)
    if not chosen:
        raise UsageError(
            f"the profile {options.profile} makes nothing of --only {options.only} on "
            f"--datasets {options.datasets}."
        )
    commands = [(item, _arguments(item, options)) for item in chosen]
    print(f"\n{_plan(commands, options.runs_dir)}\n", flush=True)
    if options.dry_run:
        return []
    failed = []
    for i, (item, arguments) in enumerate(commands):
        print(f"\n[{i + 1} of {len(commands)}] {item}", flush=True)
        began = time.monotonic()
        code = _run(arguments, deadline)
        if code is None:
            print(f"\nstopped after {options.minutes:g} minutes: rerun to resume")
            break
        if code:
            failed.append(f"{item}: exit code {code}")
        print(f"{item}: {_duration(time.monotonic() - began)}", flush=True)
    else:
        print(f"\nall {len(commands)} commands have run")
    if failed:
        print("\nfailed:\n" + "\n".join(failed), file=sys.stderr)
        raise SystemExit(1)
    return []
