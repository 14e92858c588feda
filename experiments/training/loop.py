"""Trains one sweep to the end, from its beginning or from a checkpoint."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import Split, StreamedSplit
from experiments.models import Classifier
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
from experiments.training.devices import Placement, pad_settings, unpad_settings
from experiments.training.diagnostics import Recorder

# The folder of a sweep's checkpoints, in the sweep's own.
CHECKPOINTS = "steps"
# Training that pauses while steps are computed.
Pauses = Generator[None, None, None]


class Progress(NamedTuple):
    """What a checkpoint holds."""

    state: step.TrainState
    sums: step.Metrics  # over the steps of the epoch so far, (seeds, settings)


def _hyperparameters(
    classifier: Classifier, sweep: plan.Sweep
) -> optimization.Hyperparameters:
    recipe = sweep.members[0].recipe
    h = optimization.hyperparameters(
        sweep.settings, recipe.learning_rate, recipe.momentum, recipe.decay
    )
    # One program serves small networks whatever their methods.
    return h if classifier.is_small else optimization.without_unused(h, sweep.settings)


def beginning(classifier: Classifier, sweep: plan.Sweep) -> Progress:
    """A sweep before its first step."""
    h = _hyperparameters(classifier, sweep)
    state = step.init_sweep(classifier, jnp.array(sweep.seeds), h)
    nothing = jnp.zeros_like(state.diverged_at, jnp.float32)
    return Progress(state, step.Metrics(nothing, nothing))


def _restored(
    classifier: Classifier, sweep: plan.Sweep, source: plan.Unfinished
) -> Progress:
    """The sweep's models out of the last checkpoint of an unfinished sweep."""
    shape = jax.eval_shape(lambda: beginning(classifier, source.sweep))
    found = checkpoints.load_step(source.folder / CHECKPOINTS, source.steps, shape)
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

    def add(self, epoch: int, progress: Progress, steps: int) -> None:
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


def train(
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
    start = (
        _restored(classifier, sweep, source) if source else beginning(classifier, sweep)
    )
    settings = len(sweep.settings)
    padded = placement.padded(settings)
    state, sums = devices.put(pad_settings(start, 1, padded), placement.state)
    del start  # a copy of what the device has now
    settle_steps = max(member.settle_steps or 0 for member in sweep.members)
    h = devices.put(
        pad_settings(_hyperparameters(classifier, sweep), 0, padded), placement.settings
    )

    def trained(tree: Any) -> Any:
        """Without padding."""
        return tree if padded == settings else unpad_settings(tree, 1, settings)

    def own(tree: Any) -> Any:
        return devices.local_copies(trained(tree), placement.replicated)

    log = _Log(
        members,
        Recorder(
            classifier, data.image_shape, recipe.epochs,
            with_spectral_norms=spectral_norms,
        ),
    )  # fmt: skip
    started = time.perf_counter()
    done, last = first, recipe.epochs * steps.epoch
    goes_on_here = source is not None and source.folder == folder
    checkpoints.keep(folder / CHECKPOINTS, first if goes_on_here else None)
    plan.save_members(folder, sweep)
    with (
        contextlib.ExitStack() as stack,
        checkpoints.writer(folder / CHECKPOINTS, seconds_between_checkpoints) as save,
        feeds.opened(
            data, classifier, recipe, sweep.seeds,
            constraints.constrained(sweep.settings, settle_steps), placement, first,
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
                log.add(epoch + 1, own(Progress(state, sums)), steps.epoch)
                sums = jax.tree.map(jnp.zeros_like, sums)
            save(done, trained(Progress(state, sums)))
            advance(how_many, recipe.batch_size * len(members))
        if len(members) > 1:
            # Were only some of them finished when it is killed, the others would go on
            # in another program, whose last digits are others.
            save(done, trained(Progress(state, sums)), final=True)
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
