"""Trains what is missing of a set of models, resuming what was interrupted."""

import contextlib
import math
import pathlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import jax

from experiments.config import RunConfig
from experiments.data import Split, StreamedSplit
from experiments.jobs import files, processes
from experiments.jobs.errors import UsageError
from experiments.jobs.progress import progress
from experiments.methods import METHODS
from experiments.models import Classifier
from experiments.training import checkpoints, devices, plan, runs
from experiments.training.constraints import is_idle
from experiments.training.devices import Placement
from experiments.training.loop import (
    CHECKPOINTS,
    Turns,
    initial,
    steps_at_a_time,
    train,
)

SECONDS_BETWEEN_CHECKPOINTS = 10


def _print_on_first_process(line: str) -> None:
    if processes.is_first():
        print(line)


def _in_progress(
    folder: pathlib.Path, *, report_damaged: bool = False
) -> Iterator[tuple[pathlib.Path, plan.Sweep]]:
    """Finds the sweeps in progress, except damaged ones, with their folders."""
    for candidate in files.folders(folder):
        try:
            sweep = plan.load_members(candidate)
            if sweep is not None:
                yield candidate, sweep
            elif files.exists(candidate / CHECKPOINTS):
                raise UsageError(
                    f"{candidate / 'members.json'} is missing; remove {candidate}."
                )
        except UsageError as error:
            if report_damaged:
                _print_on_first_process(f"{error} Its models begin again.")


def _unfinished(
    folder: pathlib.Path, missing: Collection[RunConfig], *,
    report_damaged: bool = False,
) -> Iterator[plan.Unfinished]:  # fmt: skip
    """Finds the sweeps with a checkpoint that hold a missing model.

    Others may belong to another part of the work, which trains them now.
    """
    for candidate, sweep in _in_progress(folder, report_damaged=report_damaged):
        if not set(sweep.members).isdisjoint(missing):
            for steps in checkpoints.saved_steps(candidate / CHECKPOINTS)[:1]:
                yield plan.Unfinished(candidate, sweep, steps)


def _resumable(
    classifier: Classifier, source: plan.Unfinished, missing: Collection[RunConfig],
    runs_dir: pathlib.Path, epoch_steps: int,
) -> plan.Unfinished | None:  # fmt: skip
    """Finds the last step of a sweep that training can resume from.

    Reports later ones, which are damaged, or whose epochs are missing from the logs.
    """
    folder = source.folder / CHECKPOINTS
    abstract = jax.eval_shape(lambda: initial(classifier, source.sweep))
    members = [config for config in source.sweep.members if config in missing]
    for steps in checkpoints.saved_steps(folder):
        try:
            checkpoints.load_step(folder, steps, abstract)
            for config in members:
                runs.Run(runs_dir, config).logged(steps // epoch_steps)
        except UsageError as error:
            _print_on_first_process(str(error))
        else:
            return source._replace(steps=steps)
    return None


def _check_can_train(
    folder: pathlib.Path, runs_dir: pathlib.Path, missing: Sequence[RunConfig]
) -> None:
    """Refuses records, and trained models whose provenance is lost.

    Where a kill interrupted training, it is normal that there is none.
    """
    if runs.Run(runs_dir, missing[0]).is_record:
        raise UsageError(
            f"{runs_dir} has records, and none of {len(missing)} of these models, such "
            f"as {missing[0].path}: train in another --runs-dir."
        )
    begun = {member for _, sweep in _in_progress(folder) for member in sweep.members}
    for config in missing:
        if config not in begun:
            runs.Run(runs_dir, config).refuse_trained()


def _warn_of_idle_constraints(configs: Sequence[RunConfig], last_step: int) -> None:
    """Warns of methods whose training ends before their first clip."""
    idle = [c for c in configs if is_idle(c.method, last_step, c.settle_steps or 0)]
    if idle and processes.is_first():
        labels = " and ".join(dict.fromkeys(METHODS[c.method].label for c in idle))
        plural = "model" if len(idle) == 1 else "models"
        settling = ""
        if idle[0].settle_steps:
            settling = f", of which the last {idle[0].settle_steps} have none"
        print(
            f"warning: no clip of {labels} is due in {last_step} steps of training"
            f"{settling}: {len(idle)} {plural}, such as {idle[0].path}, will be the "
            "same as without.",
            file=sys.stderr,
        )


def epochs_begun(runs_dir: pathlib.Path, configs: Sequence[RunConfig]) -> list[int]:
    """Counts the epochs after which the training of each model would resume.

    The models are of one data set and network, and not complete.
    """
    begun = dict.fromkeys(configs, 0)
    for source in _unfinished(runs_dir / plan.in_progress(configs[0]), configs):
        for member in begun.keys() & set(source.sweep.members):
            epochs = source.steps // member.recipe.epoch_steps(member.train_examples)
            begun[member] = max(begun[member], epochs)
    return list(begun.values())


def _placements(
    classifier: Classifier, data: Split | StreamedSplit, tasks: Sequence[plan.Task],
    batch_size: int, data_parallel: int | None,
) -> list[Placement]:  # fmt: skip
    """Divides the devices among the sweeps that train at a time."""
    if classifier.is_small:
        sweeps = [task.sweep for task in tasks]
        settings = max(len(sweep.settings) for sweep in sweeps)
        seeds = math.gcd(*(len(sweep.seeds) for sweep in sweeps))
        return [devices.joint_placement(seeds, settings, batch_size, data_parallel)]
    # One model on all devices: several would each decode streamed images.
    models = len(tasks) if isinstance(data, Split) else 1
    return devices.separate_placements(models, batch_size, data_parallel)[:models]


def _run_in_turns(
    tasks: Iterable[plan.Task], placements: Sequence[Placement],
    begin: Callable[[plan.Task, Placement], Turns],
) -> None:  # fmt: skip
    """Trains one sweep per placement at a time; those that are begun take turns."""
    waiting = iter(tasks)
    with contextlib.ExitStack() as stack:

        def one_by_one(placement: Placement) -> Turns:
            for task in waiting:
                yield from begin(task, placement)

        turns = (contextlib.closing(one_by_one(placement)) for placement in placements)
        running = [stack.enter_context(each) for each in turns]
        while running:
            running = [each for each in running if next(each, "ended") != "ended"]


def train_missing(
    classifier: Classifier, data: Split | StreamedSplit, configs: Sequence[RunConfig],
    runs_dir: pathlib.Path, *, data_parallel: int | None = None,
    seconds_between_checkpoints: int = SECONDS_BETWEEN_CHECKPOINTS,
    spectral_norms: bool = False, tensorboard: bool = False,
) -> list[runs.Run]:  # fmt: skip
    """Trains the models that are not in the runs folder yet.

    Small networks train in one program, divided over all devices. Large ones train one
    by one, as many at a time as there are groups of devices, or one at a time if the
    images are streamed or there are several processes. Models of an interrupted sweep
    resume from its last checkpoint. No one else may train these models in this runs
    folder. The models differ only in seed and setting.

    `data_parallel` devices share a batch; None leaves no device idle. Diagnostics have
    spectral norms, if asked for, after some epochs.
    """
    wanted = [runs.Run(runs_dir, config) for config in configs]
    complete = [run for run in wanted if run.is_complete]
    missing = [run.config for run in wanted if run not in complete]
    if complete:
        earlier = sum(run.parameters_digest is None for run in complete)
        note = f"; {earlier} of them unverified, without digests" if earlier else ""
        print(f"{len(complete)} of {len(wanted)} models are trained already{note}")
    in_progress = runs_dir / plan.in_progress(configs[0])
    if missing:
        _check_can_train(in_progress, runs_dir, missing)
    _remove_finished(in_progress, runs_dir, configs)
    if not missing:
        return wanted
    recipe = configs[0].recipe
    epoch_steps = recipe.epoch_steps(len(data))
    resumable = [
        _resumable(classifier, source, missing, runs_dir, epoch_steps)
        for source in list(_unfinished(in_progress, missing, report_damaged=True))
    ]
    tasks = plan.plan(missing, filter(None, resumable), together=classifier.is_small)
    placements = _placements(classifier, data, tasks, recipe.batch_size, data_parallel)
    _warn_of_idle_constraints(missing, recipe.epochs * epoch_steps)
    how = "" if recipe.adversary is None else " adversarially"
    plural = "model" if len(missing) == 1 else "models"
    title = f"training {len(missing)} {plural}{how} on {configs[0].dataset}"
    # Where progress is reported only once an epoch, epochs are counted.
    unit, size = "step", 1
    if steps_at_a_time(data, classifier, epoch_steps) == epoch_steps:
        unit, size = "epoch", epoch_steps
    done = sum(task.source.steps for task in tasks if task.source)
    with progress(
        len(tasks) * recipe.epochs * epoch_steps // size, title, unit,
        initial=done // size, rate_of="image", compiles=True,
    ) as advance_units:  # fmt: skip

        def advance(steps: int, images: int) -> None:
            nonlocal done
            before, done = done, done + steps
            advance_units(done // size - before // size, steps * images)

        def begin(task: plan.Task, placement: Placement) -> Turns:
            yield from train(
                classifier, data, task, runs_dir, placement, advance,
                seconds_between_checkpoints=seconds_between_checkpoints,
                spectral_norms=spectral_norms, tensorboard=tensorboard,
            )  # fmt: skip
            _remove_finished(in_progress, runs_dir, configs)

        _run_in_turns(tasks, placements, begin)
    return wanted


def _remove_finished(
    folder: pathlib.Path, runs_dir: pathlib.Path, configs: Collection[RunConfig]
) -> None:
    """Removes what is left of sweeps of some of these models that are complete."""
    for candidate, sweep in _in_progress(folder):
        if set(sweep.members).isdisjoint(configs):
            continue
        if all(runs.Run(runs_dir, c).is_complete for c in sweep.members):
            # The file that names the models goes last, as it marks the sweep as
            # finished. Another part that had models in it may be removing it too.
            files.remove(candidate / CHECKPOINTS)
            files.remove(candidate)
