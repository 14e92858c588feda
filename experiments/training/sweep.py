"""Trains what is missing of a set of models, resuming what was interrupted."""

import contextlib
import pathlib
import shutil
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import Split
from experiments.models import Classifier
from experiments.progress import progress
from experiments.training import (
    checkpoints,
    constraints,
    devices,
    optimization,
    plan,
    runs,
    step,
)
from experiments.training.config import RunConfig
from experiments.training.devices import Placement, pad_settings
from experiments.training.diagnostics import Recorder

SECONDS_BETWEEN_CHECKPOINTS = 10
_CHECKPOINTS = "checkpoints"
# Training that pauses while each epoch is computed.
Epochs = Generator[None, None, None]


def _sweeps_dir(runs_dir: pathlib.Path, configs: Sequence[RunConfig]) -> pathlib.Path:
    return runs_dir / configs[0].dataset / configs[0].model / "in-progress"


def _unfinished(
    folder: pathlib.Path, missing: Collection[RunConfig]
) -> Iterator[plan.Unfinished]:
    """The sweeps with a checkpoint that hold a missing model.

    Others may be another part's, at work on them.
    """
    for candidate in sorted(folder.glob("*")):
        sweep = plan.load_members(candidate)
        if sweep is None or set(sweep.members).isdisjoint(missing):
            continue
        epochs = checkpoints.latest_step(candidate / _CHECKPOINTS)
        if epochs is not None:
            yield plan.Unfinished(candidate, sweep, epochs)


def epochs_begun(runs_dir: pathlib.Path, configs: Sequence[RunConfig]) -> list[int]:
    """After how many epochs the training of some models would go on.

    Args:
      runs_dir: the folder of all runs.
      configs: models of one data set and network that are not complete.
    """
    begun = dict.fromkeys(configs, 0)
    for source in _unfinished(_sweeps_dir(runs_dir, configs), configs):
        for member in begun.keys() & set(source.sweep.members):
            begun[member] = max(begun[member], source.epochs)
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


def _initial_state(classifier: Classifier, sweep: plan.Sweep) -> step.TrainState:
    h = _hyperparameters(classifier, sweep)
    return step.init_sweep(classifier, jnp.array(sweep.seeds), h)


def _restored_state(
    classifier: Classifier, sweep: plan.Sweep, source: plan.Unfinished
) -> step.TrainState:
    """The sweep's models out of the last checkpoint of an unfinished sweep."""
    shape = jax.eval_shape(lambda: _initial_state(classifier, source.sweep))
    folder = source.folder / _CHECKPOINTS
    state = checkpoints.load_step(folder, source.epochs, shape)
    rows = np.array([source.sweep.seeds.index(seed) for seed in sweep.seeds])
    columns = np.array([source.sweep.settings.index(s) for s in sweep.settings])
    return jax.tree.map(lambda leaf: leaf[rows[:, None], columns], state)


def _training(
    classifier: Classifier, data: Split, task: plan.Task, runs_dir: pathlib.Path,
    folder: pathlib.Path, placement: Placement, seconds_between_checkpoints: int,
    spectral_norms: bool, tensorboard: bool, advance: Callable[..., None],
) -> Epochs:  # fmt: skip
    """Trains one sweep to the end.

    Yields:
      While an epoch is being computed, so that others can be begun elsewhere.
    """
    sweep, source = task
    recipe = sweep.members[0].recipe
    first = source.epochs if source else 0
    members = [runs.Run(runs_dir, member) for member in sweep.members]
    if source:
        state = _restored_state(classifier, sweep, source)
    else:
        state = _initial_state(classifier, sweep)
    settings = len(sweep.settings)
    padded = placement.padded(settings)
    state = jax.device_put(pad_settings(state, 1, padded), placement.state)
    h = jax.device_put(
        pad_settings(_hyperparameters(classifier, sweep), 0, padded), placement.settings
    )
    images, labels, seeds = jax.device_put(
        (data.images, data.labels, np.array(sweep.seeds)), placement.everywhere
    )

    def trained(tree: Any) -> Any:
        """Without padding."""
        if padded == settings:
            return tree
        return jax.tree.map(lambda leaf: leaf[:, :settings], tree)

    recorder = Recorder(
        classifier, data.images.shape[1:], recipe.epochs,
        with_spectral_norms=spectral_norms,
    )  # fmt: skip
    constrained = constraints.constrained(sweep.settings)
    budget = recipe.adversary and recipe.adversary.as_arrays()
    started = time.perf_counter()
    done = first
    epochs = range(first, recipe.epochs)
    if (state.diverged_at > 0).all():  # and then came an interruption
        advance(len(epochs))
        epochs = range(0)
    plan.save_members(folder, sweep)
    with (
        contextlib.ExitStack() as stack,
        checkpoints.writer(folder / _CHECKPOINTS, seconds_between_checkpoints) as save,
    ):
        for run in members:
            stack.enter_context(contextlib.closing(run))
            run.begin(first, tensorboard=tensorboard)
        for epoch in epochs:
            at = optimization.schedule(epoch, recipe.epochs, recipe.milestones)
            state, metrics = step.train_epoch(
                classifier, state, seeds, h, images, labels, at,
                batch_size=recipe.batch_size, augmented=recipe.augmented,
                constrained=constrained, budget=budget, batch_sharding=placement.batch,
            )  # fmt: skip
            yield
            losses, accuracies, diverged = (
                np.asarray(trained(values)).ravel()
                for values in (*metrics, state.diverged_at)
            )
            done = epoch + 1
            told = recorder.lines(done, trained(state.variables.params))
            # The metrics go first: what is ahead of the checkpoint is dropped on
            # resuming, what is behind it would be missing.
            for run, diagnostics, *line in zip(
                members, told, losses, accuracies, diverged, strict=True
            ):
                run.log(done, float(line[0]), float(line[1]), int(line[2]))
                run.log_diagnostics(diagnostics)
            save(done, trained(state))
            has_ended = bool((diverged > 0).all())
            advance(
                recipe.epochs - epoch if has_ended else 1, len(labels) * len(members)
            )
            if has_ended:
                break
        if len(members) > 1:
            # Were only some of them finished when it is killed, the others would go on
            # in another program, whose last digits are others.
            save(done, trained(state), final=True)
    provenance = runs.provenance() | {
        "seconds": time.perf_counter() - started,
        "epochs_in_these_seconds": done - first,
        "seeds_in_one_program": sweep.seeds,
        "settings_in_one_program": sweep.settings,
        "devices_in_one_program": dict(placement.mesh.shape),
    }
    flat = jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]),
        trained(state.variables),
    )
    for i, run in enumerate(members):
        run.finish(jax.tree.map(lambda leaf, i=i: leaf[i], flat), provenance)


def _in_turns(
    tasks: Sequence[Callable[[Placement], Epochs]],
    placements: Sequence[Placement],
) -> None:
    """Runs tasks, one a placement at a time; all that are begun advance together."""
    waiting = iter(tasks)
    with contextlib.ExitStack() as stack:

        def begin(placement: Placement) -> Epochs | None:
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
    data: Split,
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
        placements = devices.apart(how_many, batch_size, data_parallel)
    how = "" if recipe.adversary is None else " adversarially"
    plural = "model" if len(missing) == 1 else "models"
    title = f"training {len(missing)} {plural}{how} on {configs[0].dataset}"
    begun = sum(task.source.epochs for task in tasks if task.source)
    with progress(
        len(tasks) * recipe.epochs, title, "epoch", initial=begun, rate_of="image"
    ) as advance:

        def training(task: plan.Task) -> Callable[[Placement], Epochs]:
            def begin(placement: Placement) -> Epochs:
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
    for folder in sweeps_dir.glob("*"):
        sweep = plan.load_members(folder)
        if sweep is None or set(sweep.members).isdisjoint(configs):
            continue
        if all(runs.Run(runs_dir, c).is_complete for c in sweep.members):
            # Last what tells that it is finished. Another part that had models in it
            # may be removing it too.
            shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
