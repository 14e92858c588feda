"""Trains what is missing of a set of models, resuming what was interrupted."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import files
from experiments.data import Split, StreamedSplit
from experiments.models import Classifier
from experiments.progress import progress
from experiments.training import (
    checkpoints,
    constraints,
    devices,
    feeds,
    optimization,
    plan,
    runs,
    step,
)
from experiments.training.config import RunConfig
from experiments.training.devices import Placement, pad_settings
from experiments.training.diagnostics import Recorder

SECONDS_BETWEEN_CHECKPOINTS = 10
_CHECKPOINTS = "steps"
# Training that pauses while steps are computed.
Pauses = Generator[None, None, None]


class _Progress(NamedTuple):
    """What a checkpoint holds."""

    state: step.TrainState
    sums: step.Metrics  # over the steps of the epoch so far, (seeds, settings)


def _sweeps_dir(runs_dir: pathlib.Path, configs: Sequence[RunConfig]) -> pathlib.Path:
    return runs_dir / configs[0].dataset / configs[0].model / "in-progress"


def _unfinished(
    folder: pathlib.Path, missing: Collection[RunConfig]
) -> Iterator[plan.Unfinished]:
    """The sweeps with a checkpoint that hold a missing model.

    Others may be another part's, at work on them.
    """
    for candidate in files.folders(folder):
        sweep = plan.load_members(candidate)
        if sweep is None or set(sweep.members).isdisjoint(missing):
            continue
        steps = checkpoints.latest_step(candidate / _CHECKPOINTS)
        if steps is not None:
            yield plan.Unfinished(candidate, sweep, steps)


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
            epochs = source.steps // step.steps_of(examples, recipe.batch_size)
            begun[member] = max(begun[member], epochs)
    return list(begun.values())


def _hyperparameters(
    classifier: Classifier, sweep: plan.Sweep
) -> optimization.Hyperparameters:
    recipe = sweep.members[0].recipe
    h = optimization.hyperparameters(
        sweep.settings, recipe.learning_rate, recipe.momentum, recipe.decay
    )
    # One program serves small networks whatever their methods.
    return h if classifier.is_small else optimization.without_unused(h, sweep.settings)


def _beginning(classifier: Classifier, sweep: plan.Sweep) -> _Progress:
    h = _hyperparameters(classifier, sweep)
    state = step.init_sweep(classifier, jnp.array(sweep.seeds), h)
    nothing = jnp.zeros_like(state.diverged_at, jnp.float32)
    return _Progress(state, step.Metrics(nothing, nothing))


def _restored(
    classifier: Classifier, sweep: plan.Sweep, source: plan.Unfinished
) -> _Progress:
    """The sweep's models out of the last checkpoint of an unfinished sweep."""
    shape = jax.eval_shape(lambda: _beginning(classifier, source.sweep))
    found = checkpoints.load_step(source.folder / _CHECKPOINTS, source.steps, shape)
    rows = np.array([source.sweep.seeds.index(seed) for seed in sweep.seeds])
    columns = np.array([source.sweep.settings.index(s) for s in sweep.settings])
    return jax.tree.map(lambda leaf: leaf[rows[:, None], columns], found)


class _Log:
    """What is told of the models of a sweep after each epoch.

    Args:
      members: the models.
      recorder: of their convolutions.
    """

    def __init__(self, members: Sequence[runs.Run], recorder: Recorder):
        self._members, self._recorder = members, recorder

    def add(self, epoch: int, progress: _Progress, steps: int) -> None:
        """Writes the metrics of an epoch.

        Args:
          epoch: how many are done.
          progress: at its end, of this process.
          steps: how many an epoch has.
        """
        losses, accuracies, diverged = (
            np.asarray(values).ravel()
            for values in (
                progress.sums.loss / steps,
                progress.sums.accuracy / steps,
                progress.state.diverged_at,
            )
        )
        told = self._recorder.lines(epoch, progress.state.variables.params)
        for run, diagnostics, *line in zip(
            self._members, told, losses, accuracies, diverged, strict=True
        ):
            run.log(epoch, float(line[0]), float(line[1]), int(line[2]))
            run.log_diagnostics(diagnostics)


def _training(
    classifier: Classifier, data: Split | StreamedSplit, task: plan.Task,
    runs_dir: pathlib.Path, folder: pathlib.Path, placement: Placement,
    seconds_between_checkpoints: int, spectral_norms: bool, tensorboard: bool,
    advance: Callable[[int, int], None],
) -> Pauses:  # fmt: skip
    """Trains one sweep to the end.

    Args:
      classifier: the network.
      data: the training images.
      task: the sweep, and what to go on from.
      runs_dir: the folder of all runs.
      folder: of the sweep while it trains.
      placement: on which devices.
      seconds_between_checkpoints: the least time between two.
      spectral_norms: whether diagnostics have them.
      tensorboard: whether to log for TensorBoard too.
      advance: is told of steps that are done, and of images a step and model.

    Yields:
      While steps are being computed, so that others can be begun elsewhere.
    """
    sweep, source = task
    recipe = sweep.members[0].recipe
    steps = feeds.steps_of(data, classifier, recipe.batch_size)
    first = source.steps if source else 0
    members = [runs.Run(runs_dir, member) for member in sweep.members]
    progress = (
        _restored(classifier, sweep, source)
        if source
        else _beginning(classifier, sweep)
    )
    settings = len(sweep.settings)
    padded = placement.padded(settings)
    state, sums = devices.put(pad_settings(progress, 1, padded), placement.state)
    h = devices.put(
        pad_settings(_hyperparameters(classifier, sweep), 0, padded), placement.settings
    )

    def trained(tree: Any) -> Any:
        """Without padding."""
        if padded == settings:
            return tree
        return jax.tree.map(lambda leaf: leaf[:, :settings], tree)

    def own(tree: Any) -> Any:
        return devices.own(trained(tree), placement.everywhere)

    log = _Log(
        members,
        Recorder(
            classifier, data.image_shape, recipe.epochs,
            with_spectral_norms=spectral_norms,
        ),
    )  # fmt: skip
    started = time.perf_counter()
    done, last = first, recipe.epochs * steps.epoch
    plan.save_members(folder, sweep)
    with (
        contextlib.ExitStack() as stack,
        checkpoints.writer(folder / _CHECKPOINTS, seconds_between_checkpoints) as save,
        feeds.opened(
            data, classifier, recipe, sweep.seeds,
            constraints.constrained(sweep.settings), placement, first,
        ) as feed,
    ):  # fmt: skip
        for run in members:
            stack.enter_context(contextlib.closing(run))
            run.begin(first // steps.epoch, tensorboard=tensorboard)
        while done < last:
            epoch, begun = divmod(done, steps.epoch)
            if begun == 0 and (np.asarray(own(state.diverged_at)) > 0).all():
                advance(last - done, 0)
                break
            how_many = min(steps.at_a_time, steps.epoch - begun)
            at = optimization.schedule(epoch, recipe.epochs, recipe.milestones)
            state, new = feed.train(state, h, at, begun, how_many)
            sums = jax.tree.map(jnp.add, sums, new)
            yield
            jax.block_until_ready(sums)
            done += how_many
            if done % steps.epoch == 0:
                # Metrics go first: what is ahead of the checkpoint is dropped on
                # resuming, what is behind it would be missing.
                log.add(epoch + 1, own(_Progress(state, sums)), steps.epoch)
                sums = jax.tree.map(jnp.zeros_like, sums)
            save(done, trained(_Progress(state, sums)))
            advance(how_many, recipe.batch_size * len(members))
        if len(members) > 1:
            # Were only some of them finished when it is killed, the others would go on
            # in another program, whose last digits are others.
            save(done, trained(_Progress(state, sums)), final=True)
    provenance = runs.provenance() | {
        "seconds": time.perf_counter() - started,
        "steps_in_these_seconds": done - first,
        "seeds_in_one_program": sweep.seeds,
        "settings_in_one_program": sweep.settings,
        "devices_in_one_program": dict(placement.mesh.shape),
    }
    flat = jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]),
        own(state.variables),
    )
    for i, run in enumerate(members):
        run.finish(jax.tree.map(lambda leaf, i=i: leaf[i], flat), provenance)


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

    Small networks train in one vmapped program, divided over all devices; large ones
    one by one, as many at a time as there are groups of devices. Models that an
    interrupted sweep has begun go on from its last checkpoint. One process at a time
    may work on a data set and model in a runs folder.

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
        print(
            f"{len(wanted) - len(missing)} of {len(wanted)} models are trained already"
        )
    sweeps_dir = _sweeps_dir(runs_dir, configs)
    _remove_finished(sweeps_dir, runs_dir, configs)
    if not missing:
        return wanted
    recipe = configs[0].recipe
    tasks = plan.plan(
        missing, list(_unfinished(sweeps_dir, missing)), together=classifier.is_small
    )
    how_many, batch_size = len(missing), recipe.batch_size
    if classifier.is_small:
        how_many = max(len(task.sweep.settings) for task in tasks)
        placements = [devices.together(how_many, batch_size, data_parallel)]
    else:
        if not isinstance(data, Split):
            # One model on all devices: several would each decode the images.
            how_many = 1
        placements = devices.apart(how_many, batch_size, data_parallel)
    how = "" if recipe.adversary is None else " adversarially"
    plural = "model" if len(missing) == 1 else "models"
    title = f"training {len(missing)} {plural}{how} on {configs[0].dataset}"
    steps = feeds.steps_of(data, classifier, recipe.batch_size)
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
            advance_units(done // size, done * images)

        def training(task: plan.Task) -> Callable[[Placement], Pauses]:
            def begin(placement: Placement) -> Pauses:
                folder = sweeps_dir / task.sweep.digest
                yield from _training(
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
    for folder in files.folders(sweeps_dir):
        sweep = plan.load_members(folder)
        if sweep is None or set(sweep.members).isdisjoint(configs):
            continue
        if all(runs.Run(runs_dir, c).is_complete for c in sweep.members):
            # Last what tells that it is finished. Another part that had models in it
            # may be removing it too.
            files.remove(folder / _CHECKPOINTS)
            files.remove(folder)
