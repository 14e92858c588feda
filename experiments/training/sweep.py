"""Trains what is missing of a set of models, resuming what was interrupted."""

import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import Split
from experiments.models import Classifier
from experiments.progress import progress
from experiments.training import checkpoints, constraints, plan, runs, step
from experiments.training.config import RunConfig

_CHECKPOINTS = "checkpoints"


def _unfinished(folder: pathlib.Path) -> Iterator[plan.Unfinished]:
    for candidate in sorted(folder.glob("*")):
        sweep = plan.load_members(candidate)
        if sweep is None:
            continue
        epochs = checkpoints.latest_step(candidate / _CHECKPOINTS)
        if epochs is not None:
            yield plan.Unfinished(candidate, sweep, epochs)


def _hyperparameters(sweep: plan.Sweep) -> step.Hyperparameters:
    config = sweep.members[0]
    return step.hyperparameters(sweep.settings, config.learning_rate, config.momentum)


def _initial_state(classifier: Classifier, sweep: plan.Sweep) -> step.TrainState:
    return step.init_sweep(classifier, jnp.array(sweep.seeds), _hyperparameters(sweep))


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


def _train(
    classifier: Classifier, data: Split, task: plan.Task, runs_dir: pathlib.Path,
    folder: pathlib.Path,
) -> None:  # fmt: skip
    sweep, source = task
    config = sweep.members[0]
    first = source.epochs if source else 0
    members = [runs.Run(runs_dir, member) for member in sweep.members]
    if source:
        state = _restored_state(classifier, sweep, source)
    else:
        state = _initial_state(classifier, sweep)
    images, labels = jnp.asarray(data.images), jnp.asarray(data.labels)
    seeds, h = jnp.array(sweep.seeds), _hyperparameters(sweep)
    constrained = constraints.constrained(sweep.settings)
    budget = config.adversary and config.adversary.as_arrays()
    started = time.perf_counter()
    how = "" if budget is None else " adversarially"
    title = f"training {len(members)} models{how} on {config.dataset}"
    with (
        checkpoints.writer(folder / _CHECKPOINTS) as checkpointer,
        progress(config.epochs, title, "epoch", initial=first) as advance,
    ):
        plan.save_members(folder, sweep)
        for run in members:
            run.begin(first)
        for epoch in range(first, config.epochs):
            state, metrics = step.train_epoch(
                classifier, state, seeds, h, images, labels,
                jnp.asarray(epoch), jnp.asarray(config.epochs),
                batch_size=config.batch_size, constrained=constrained, budget=budget,
            )  # fmt: skip
            losses, accuracies = (np.asarray(values).ravel() for values in metrics)
            # The metrics go first: what is ahead of the checkpoint is dropped on
            # resuming, what is behind it would be missing.
            for run, loss, accuracy in zip(members, losses, accuracies, strict=True):
                run.log(epoch + 1, float(loss), float(accuracy))
            checkpointer.save_async(epoch + 1, state, force=True)
            advance(1)
    provenance = runs.provenance() | {
        "seconds": time.perf_counter() - started,
        "epochs_in_these_seconds": config.epochs - first,
        "seeds_in_one_program": sweep.seeds,
        "settings_in_one_program": sweep.settings,
    }
    flat = jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), state.params
    )
    for i, run in enumerate(members):
        run.finish(jax.tree.map(lambda leaf, i=i: leaf[i], flat), provenance)


def train_missing(
    classifier: Classifier,
    data: Split,
    configs: Sequence[RunConfig],
    runs_dir: pathlib.Path,
) -> list[runs.Run]:
    """Trains the models that are not in the runs folder yet.

    All of them train in one vmapped program. A checkpoint is written after every
    epoch; models that an interrupted sweep has begun go on from there. One process at a
    time may work on a data set and model in a runs folder.

    Args:
      classifier: the network.
      data: the training images.
      configs: the models, alike but for seed and setting.
      runs_dir: the folder of all runs.

    Returns:
      The runs, complete, in the order of the configurations.
    """
    wanted = [runs.Run(runs_dir, config) for config in configs]
    missing = [run.config for run in wanted if not run.is_complete]
    if len(missing) < len(wanted):
        print(
            f"{len(wanted) - len(missing)} of {len(wanted)} models are trained already"
        )
    sweeps_dir = runs_dir / configs[0].dataset / configs[0].model / "in-progress"
    _remove_finished(sweeps_dir, runs_dir)
    if missing:
        for task in plan.plan(missing, list(_unfinished(sweeps_dir))):
            _train(classifier, data, task, runs_dir, sweeps_dir / task.sweep.digest)
            _remove_finished(sweeps_dir, runs_dir)
    return wanted


def _remove_finished(sweeps_dir: pathlib.Path, runs_dir: pathlib.Path) -> None:
    for folder in sweeps_dir.glob("*"):
        sweep = plan.load_members(folder)
        if sweep and all(runs.Run(runs_dir, c).is_complete for c in sweep.members):
            shutil.rmtree(folder)
