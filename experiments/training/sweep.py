"""Trains what is missing of a set of models, resuming what was interrupted."""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence

import jax

from experiments.config import RunConfig
from experiments.data import Split, StreamedSplit
from experiments.jobs import agreement, files
from experiments.jobs.errors import UsageError
from experiments.jobs.progress import progress
from experiments.methods import METHODS
from experiments.models import Classifier
from experiments.training import checkpoints, devices, feeds, plan, programs, runs
from experiments.training.constraints import is_ever_due
from experiments.training.devices import Placement
from experiments.training.loop import CHECKPOINTS, Pauses, beginning, train

SECONDS_BETWEEN_CHECKPOINTS = 10


def _sweeps_dir(runs_dir: pathlib.Path, configs: Sequence[RunConfig]) -> pathlib.Path:
    return runs_dir / configs[0].dataset / configs[0].model / "in-progress"


def _begun(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, plan.Sweep]]:
    """Finds the sweeps in progress, but for damaged ones, with their folders."""
    for candidate in files.folders(folder):
        with contextlib.suppress(UsageError):
            sweep = plan.load_members(candidate)
            if sweep is not None:
                yield candidate, sweep


def _unfinished(
    folder: pathlib.Path, missing: Collection[RunConfig]
) -> Iterator[plan.Unfinished]:
    """The sweeps with a checkpoint that hold a missing model.

    Others may be another part's, at work on them.
    """
    for candidate, sweep in _begun(folder):
        if not set(sweep.members).isdisjoint(missing):
            for steps in checkpoints.saved_steps(candidate / CHECKPOINTS)[:1]:
                yield plan.Unfinished(candidate, sweep, steps)


def _print_once(line: str) -> None:
    if agreement.is_first():
        print(line)


def _report_damaged(folder: pathlib.Path) -> None:
    """Reports sweeps in progress whose models are not known, as they are damaged."""
    for candidate in files.folders(folder):
        try:
            sweep = plan.load_members(candidate)
            if sweep is None and files.exists(candidate / CHECKPOINTS):
                raise UsageError(
                    f"{candidate / 'members.json'} is missing; remove {candidate}."
                )
        except UsageError as error:
            _print_once(f"{error} Its models begin again.")


def _whole(
    classifier: Classifier,
    source: plan.Unfinished,
    missing: Collection[RunConfig],
    runs_dir: pathlib.Path,
    epoch_steps: int,
) -> plan.Unfinished | None:
    """Finds the last step of a sweep from which training can go on.

    Reports later ones: they are damaged, or the logs lack their epochs.
    """
    folder = source.folder / CHECKPOINTS
    abstract = jax.eval_shape(lambda: beginning(classifier, source.sweep))
    members = [config for config in source.sweep.members if config in missing]
    for steps in checkpoints.saved_steps(folder):
        try:
            checkpoints.load_step(folder, steps, abstract)
            for config in members:
                runs.Run(runs_dir, config).logged(steps // epoch_steps)
        except UsageError as error:
            _print_once(str(error))
        else:
            return source._replace(steps=steps)
    return None


def _check_can_train(
    folder: pathlib.Path, runs_dir: pathlib.Path, missing: Sequence[RunConfig]
) -> None:
    """Refuses records, and trained models whose provenance is lost.

    A model without one is as it should be where a kill cut its training short.
    """
    if runs.Run(runs_dir, missing[0]).is_record:
        raise UsageError(
            f"{runs_dir} has records, and none of {len(missing)} of these models, such "
            f"as {missing[0].path}: train in another --runs-dir."
        )
    begun = {member for _, sweep in _begun(folder) for member in sweep.members}
    for config in missing:
        run = runs.Run(runs_dir, config)
        if config not in begun and run.is_trained:
            raise run.without_provenance()


def _warn_of_idle_constraints(configs: Sequence[RunConfig], last_step: int) -> None:
    """Warns of constrained models whose training ends before the first clip."""
    idle = [
        config
        for config in configs
        if (constraint := METHODS[config.method].constraint)
        and not is_ever_due(constraint, last_step, config.settle_steps or 0)
    ]
    if idle and agreement.is_first():
        plural = "model" if len(idle) == 1 else "models"
        print(
            f"warning: {len(idle)} {plural} with SNC, such as {idle[0].path}, will be "
            f"the same as without: no clip is due in {last_step} steps of training.",
            file=sys.stderr,
        )


def epochs_begun(runs_dir: pathlib.Path, configs: Sequence[RunConfig]) -> list[int]:
    """After how many epochs the training of some models would go on.

    Args:
      runs_dir: the folder of all runs.
      configs: models of one data set and network that are not complete.
    """
    begun = dict.fromkeys(configs, 0)
    for source in _unfinished(_sweeps_dir(runs_dir, configs), configs):
        for member in begun.keys() & set(source.sweep.members):
            examples, recipe = member.train_examples, member.recipe
            epochs = source.steps // programs.steps_of(examples, recipe.batch_size)
            begun[member] = max(begun[member], epochs)
    return list(begun.values())


def _in_turns(
    tasks: Sequence[Callable[[Placement], Pauses]],
    placements: Sequence[Placement],
) -> None:
    """Runs tasks, one a placement at a time; all that are begun advance together."""
    waiting = iter(tasks)
    with contextlib.ExitStack() as stack:

        def begin(placement: Placement) -> Pauses | None:
            task = next(waiting, None)
            if task is None:
                return None
            return stack.enter_context(contextlib.closing(task(placement)))

        running = [begin(placement) for placement in placements]
        while any(running):
            for i, placement in enumerate(placements):
                task = running[i]
                if task is not None and next(task, "ended") == "ended":
                    running[i] = begin(placement)


def train_missing(
    classifier: Classifier,
    data: Split | StreamedSplit,
    configs: Sequence[RunConfig],
    runs_dir: pathlib.Path,
    *,
    data_parallel: int | None = None,
    seconds_between_checkpoints: int = SECONDS_BETWEEN_CHECKPOINTS,
    spectral_norms: bool = False,
    tensorboard: bool = False,
) -> list[runs.Run]:
    """Trains the models that are not in the runs folder yet.

    Small networks train in one program, divided over all devices; large ones
    one by one, as many at a time as there are groups of devices, or one if its images
    are streamed or there are several processes. Models that an interrupted sweep has
    begun go on from its last checkpoint. Nobody else may be training these models in
    this runs folder.

    Args:
      classifier: the network.
      data: the training images.
      configs: the models, alike but for seed and setting.
      runs_dir: the folder of all runs.
      data_parallel: how many devices share a batch; None leaves none idle.
      seconds_between_checkpoints: the least time between two.
      spectral_norms: whether diagnostics have them, at some epochs.
      tensorboard: whether to log for TensorBoard too.

    Returns:
      The runs, complete, in the order of the configurations.

    Raises:
      UsageError: if the devices or the batch cannot be divided as asked.
    """
    wanted = [runs.Run(runs_dir, config) for config in configs]
    missing = [run.config for run in wanted if not run.is_complete]
    if len(missing) < len(wanted):
        done = [run for run in wanted if run.is_complete]
        earlier = sum(run.parameters_digest is None for run in done)
        note = f"; {earlier} of them unverified, without digests" if earlier else ""
        print(f"{len(done)} of {len(wanted)} models are trained already{note}")
    sweeps_dir = _sweeps_dir(runs_dir, configs)
    if not missing:
        _remove_finished(sweeps_dir, runs_dir, configs)
        return wanted
    _check_can_train(sweeps_dir, runs_dir, missing)
    _remove_finished(sweeps_dir, runs_dir, configs)
    recipe = configs[0].recipe
    steps = feeds.steps_of(data, classifier, recipe.batch_size)
    _report_damaged(sweeps_dir)
    unfinished = [
        _whole(classifier, source, missing, runs_dir, steps.epoch)
        for source in _unfinished(sweeps_dir, missing)
    ]
    tasks = plan.plan(missing, filter(None, unfinished), together=classifier.is_small)
    how_many, batch_size = len(missing), recipe.batch_size
    if classifier.is_small:
        how_many = max(len(task.sweep.settings) for task in tasks)
        placements = [devices.joint_placement(how_many, batch_size, data_parallel)]
    else:
        if not isinstance(data, Split):
            # One model on all devices: several would each decode the images.
            how_many = 1
        placements = devices.separate_placements(how_many, batch_size, data_parallel)[
            :how_many
        ]
    how = "" if recipe.adversary is None else " adversarially"
    plural = "model" if len(missing) == 1 else "models"
    title = f"training {len(missing)} {plural}{how} on {configs[0].dataset}"
    _warn_of_idle_constraints(missing, recipe.epochs * steps.epoch)
    # Of what is told of only once an epoch, epochs are counted.
    unit, size = "step", 1
    if steps.at_a_time == steps.epoch:
        unit, size = "epoch", steps.epoch
    begun = sum(task.source.steps for task in tasks if task.source)
    with progress(
        len(tasks) * recipe.epochs * steps.epoch // size, title, unit,
        initial=begun // size, rate_of="image",
    ) as advance_units:  # fmt: skip

        def advance(done: int, images: int) -> None:
            nonlocal begun
            before, begun = begun // size, begun + done
            advance_units(begun // size - before, done * images)

        def training(task: plan.Task) -> Callable[[Placement], Pauses]:
            def begin(placement: Placement) -> Pauses:
                folder = sweeps_dir / task.sweep.digest
                yield from train(
                    classifier, data, task, runs_dir, folder, placement,
                    seconds_between_checkpoints, spectral_norms, tensorboard, advance,
                )  # fmt: skip
                _remove_finished(sweeps_dir, runs_dir, configs)

            return begin

        _in_turns([training(task) for task in tasks], placements)
    return wanted


def _remove_finished(
    sweeps_dir: pathlib.Path, runs_dir: pathlib.Path, configs: Collection[RunConfig]
) -> None:
    """Removes what is left of sweeps of some of these models that are complete."""
    for folder, sweep in _begun(sweeps_dir):
        if set(sweep.members).isdisjoint(configs):
            continue
        if all(runs.Run(runs_dir, c).is_complete for c in sweep.members):
            # Last what tells that it is finished. Another part that had models in it
            # may be removing it too.
            files.remove(folder / CHECKPOINTS)
            files.remove(folder)
