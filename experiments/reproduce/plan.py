"""Estimates what commands will train, evaluate and reuse, and how long it takes."""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.config import Adversary
from experiments.data import DATASETS, pgd_of
from experiments.evaluation import gradient
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.evaluation.frequency import radii_of
from experiments.jobs import files
from experiments.jobs.errors import UsageError, damage_named
from experiments.options import ModelOptions, filled_up, pairs
from experiments.published import SINGLE_FOURIER_FREQUENCIES
from experiments.training import devices
from experiments.training.runs import Run
from experiments.workspace import Workspace, loaded


class Rates(NamedTuple):
    """Gives the speed of a network on all devices of the machine together."""

    steps: float  # training steps of one model per second, at its published batch size
    forward: float  # images per second
    gradient: float  # steps of PGD on one image per second


# Measured on two cores of an AMD EPYC: results/benchmarks/cpu.md; the narrow network
# while other programs were running.
_ON_CPU: Mapping[str, Rates] = {
    "small_cnn": Rates(steps=702, forward=130_000, gradient=63_000),
    "resnet18": Rates(steps=0.75, forward=313, gradient=148),
    "resnet18_eighth": Rates(steps=7, forward=2_800, gradient=1_600),
}


class Need(NamedTuple):
    """Describes the computation that an evaluation of a model needs."""

    attack: str  # as in the name of its file
    images: EvaluationSet
    points: int
    forward: int  # forward passes of an image for each point
    gradient: int = 0  # steps of PGD for each point


class Estimate(NamedTuple):
    """Counts the work of a command."""

    models: int = 0
    to_train: int = 0
    evaluations: int = 0
    to_evaluate: int = 0
    # None if no rate is known; then evaluations are not counted.
    seconds: float | None = None
    note: str = ""


def _needs(command: str, workspace: Workspace, options: Any) -> Iterator[Need]:
    """Yields the evaluations of each model, with those that select strengths."""
    images, dataset = workspace.test, workspace.options.dataset
    shape = images.split.image_shape
    sweep = getattr(options, "sweep", options)
    chooses = getattr(sweep, "select_on", "paper") != "paper"
    if command in ("evaluate", "table1", "snc-readings") or chooses:
        stride = getattr(sweep, "frequency_stride", 1)
        height, width = (
            math.ceil(min(size, SINGLE_FOURIER_FREQUENCIES) / stride)
            for size in shape[:2]
        )
        yield Need("single-fourier", images, points=height, forward=width)
        if workspace.selection is not images:
            yield Need("single-fourier", workspace.selection, height, forward=width)
    if command in ("evaluate", "table3"):
        for kind in ("low-pass", "high-pass"):
            yield Need(kind, images, points=len(radii_of(shape)), forward=1)
    if DATASETS[dataset].conditions.pgd is None:
        return
    steps = gradient.published_steps(dataset).steps
    if command == "table2" or (command == "evaluate" and pairs(sweep.seeds)):
        yield Need("transfer", images, len(sweep.methods), forward=1)
        # Each model is attacked once, for all others.
        yield Need("transfer", images, 1, forward=0, gradient=steps)
    if command == "table4":
        steps = options.evaluation.steps
    if command in ("evaluate", "table4"):
        eps = len(pgd_of(dataset).test_eps)
        yield Need("pgd", images, eps, forward=0, gradient=steps)
    if command in ("evaluate", "figure7"):
        yield Need("power-spectrum", images, 1, forward=0, gradient=steps)


def _models(
    command: str, workspace: Workspace, options: Any
) -> list[tuple[Run, Adversary | None]]:
    """Returns the models that a command trains, if they are known in advance."""
    sweep = getattr(options, "sweep", options)
    if command == "table4":
        return [
            (run, options.adversary(training))
            for training in options.training
            for run in workspace.runs(
                sweep.settings(options.table(training)), sweep.seeds,
                options.adversary(training),
            )
        ]  # fmt: skip
    settings = sweep.settings() if sweep is not options else options.settings
    seeds = filled_up(sweep.seeds) if command == "table2" else sweep.seeds
    return [(run, None) for run in workspace.runs(settings, seeds)]


@contextlib.contextmanager
def _damage_ignored(path: pathlib.Path) -> Iterator[None]:
    """Ignores a file that cannot be read: the commands that use it report it."""
    with contextlib.suppress(UsageError, OSError), damage_named(path, "remove it"):
        yield


def _points(run: Run, need: Need) -> int:
    """Counts the finished points of an evaluation."""
    examples = len(need.images.split)
    most = 0
    for path in run.folder.glob(f"{need.attack}-*.jsonl"):
        with _damage_ignored(path):
            header, *lines = files.read_lines(path) or [""]
            if json.loads(header)["examples"] == examples:
                most = max(most, sum('"point": ' in line for line in lines))
    return min(most, need.points)


def measured(runs_dir: pathlib.Path) -> dict[str, float]:
    """Finds how many steps of one model per second this machine trained each network.

    The program that finished last counts, adversarial training does not.
    """
    found = []
    here = devices.available()[0].device_kind
    for path in runs_dir.glob("*/*/*/*/seed-*/provenance.json"):
        with _damage_ignored(path):
            provenance = json.loads(path.read_text())
            config = json.loads((path.parent / "config.json").read_text())
            steps = provenance["steps_in_these_seconds"]
            if provenance["device"] != here or config["recipe"]["adversary"]:
                continue
            # Most of the time of a few steps is compilation.
            if steps >= 1000:
                seeds = len(provenance["seeds_in_one_program"])
                models = seeds * len(provenance["settings_in_one_program"])
                rate = models * steps / provenance["seconds"]
                found.append((path.stat().st_mtime, config["model"], rate))
    return {network: rate for _, network, rate in sorted(found)}


def rates_of(network: str, measured_here: Mapping[str, float]) -> Rates | None:
    """Returns a network's rates: reference values, scaled to the rate measured here."""
    reference = _ON_CPU.get(network)
    if reference is not None and network in measured_here:
        scale = measured_here[network] / reference.steps
        return Rates(*(scale * rate for rate in reference))
    return reference if devices.on_cpu() else None


def _training_seconds(
    rates: Rates, options: ModelOptions, adversary: Adversary | None
) -> float:
    step = 1 / rates.steps
    if adversary is not None:
        batch_size = options.recipe(adversary).batch_size
        step += adversary.steps * batch_size / rates.gradient
    return options.training_steps(adversarial=adversary is not None) * step


class Planner:
    """Estimates the work of commands that run one after the other.

    The work of an earlier command counts as done for the later ones. Finished models in
    the folder of runs show how fast this machine is.
    """

    def __init__(self, runs_dir: pathlib.Path):
        self.measured = measured(runs_dir)
        self._planned: set[Any] = set()

    def _is_new(self, *key: Any) -> bool:
        """Checks whether something was not planned yet, and plans it."""
        is_new = key not in self._planned
        self._planned.add(key)
        return is_new

    def estimate(self, command: str, options: Any) -> Estimate:
        """Counts the work of a command."""
        sweep = getattr(options, "sweep", options)
        trained: ModelOptions | None = getattr(sweep, "models", None)
        if trained is None:
            return Estimate(note="timings" if command.startswith("figure6") else "")
        try:
            workspace = loaded(
                trained,
                test_examples=getattr(sweep, "test_examples", None),
                hold_out=getattr(sweep, "select_on", None) == "validation",
            )
            models = _models(command, workspace, options)
            needs = list(_needs(command, workspace, options))
            to_train = [
                adversary
                for run, adversary in models
                if not run.is_complete and self._is_new(run.folder)
            ]
        except UsageError as error:
            return Estimate(note=str(error))
        rates = rates_of(trained.model, self.measured)
        if rates is None:
            note = f"no rate of {trained.model} is known here"
            return Estimate(len(models), len(to_train), note=note)
        seconds = sum(_training_seconds(rates, trained, each) for each in to_train)
        to_evaluate = 0
        for run, _ in models:
            for need in needs:
                points = _points(run, need) if run.is_complete else 0
                examples = len(need.images.split)
                key = (run.folder, need.images.name, examples, *need[:1], *need[2:])
                if points == need.points or not self._is_new(*key):
                    continue
                to_evaluate += 1
                images = (need.points - points) * examples
                seconds += images * need.forward / rates.forward
                seconds += images * need.gradient / rates.gradient
        evaluations = len(models) * len(needs)
        return Estimate(len(models), len(to_train), evaluations, to_evaluate, seconds)
