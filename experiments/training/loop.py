"""Trains one sweep to the end, from its beginning or from a checkpoint."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import Split, StreamedSplit
from experiments.models import Classifier
from experiments.training import checkpoints, devices, optimization, programs, step
from experiments.training.constraints import constrained
from experiments.training.devices import Placement, pad_settings, unpad_settings
from experiments.training.diagnostics import Recorder
from experiments.training.optimization import Hyperparameters, Schedule
from experiments.training.plan import Sweep, Task, save_members
from experiments.training.runs import Run, provenance

# The folder of a sweep's checkpoints, in the sweep's own.
CHECKPOINTS = "steps"
# Training that yields while steps are being computed, so that others take their turns.
Turns = Generator[None, None, None]
# Steps from one report of progress to the next, which may also be a checkpoint.
_STREAMED_STEPS = 20
_CPU_STEPS = 10  # of a large network, which takes seconds a step there


class Checkpoint(NamedTuple):
    """The state of a sweep that a checkpoint holds."""

    state: step.TrainState
    sums: step.Metrics  # over the steps of the epoch so far, (seeds, settings)


def steps_at_a_time(
    data: Split | StreamedSplit, classifier: Classifier, epoch_steps: int
) -> int:
    """Chooses after how many steps training is reported and can be saved."""
    if not isinstance(data, Split):
        return min(_STREAMED_STEPS, epoch_steps)
    if devices.on_cpu() and not classifier.is_small:
        return min(_CPU_STEPS, epoch_steps)
    return epoch_steps


def _hyperparameters(classifier: Classifier, sweep: Sweep) -> Hyperparameters:
    recipe = sweep.recipe
    h = optimization.hyperparameters(
        sweep.settings, recipe.learning_rate, recipe.momentum, recipe.decay
    )
    # One program serves small networks whatever their methods.
    return h if classifier.is_small else optimization.without_unused(h, sweep.settings)


def initial(classifier: Classifier, sweep: Sweep) -> Checkpoint:
    """Initializes a sweep before its first step."""
    h = _hyperparameters(classifier, sweep)
    state = step.init_sweep(classifier, jnp.array(sweep.seeds), h)
    return Checkpoint(state, step.Metrics.zeros(state.diverged_at.shape))


def _start(classifier: Classifier, task: Task) -> Checkpoint:
    """Initializes a sweep, or restores its models from an unfinished sweep."""
    sweep, source = task
    if source is None:
        return initial(classifier, sweep)
    shape = jax.eval_shape(lambda: initial(classifier, source.sweep))
    found = checkpoints.load_step(source.folder / CHECKPOINTS, source.steps, shape)
    rows = np.array([source.sweep.seeds.index(seed) for seed in sweep.seeds])
    columns = np.array([source.sweep.settings.index(s) for s in sweep.settings])
    return jax.tree.map(lambda leaf: leaf[rows[:, None], columns], found)


@contextlib.contextmanager
def _opened(
    data: Split | StreamedSplit, spec: step.TrainSpec, sweep: Sweep,
    placement: Placement, done: int,
) -> Iterator[Callable[..., step.Stepped]]:  # fmt: skip
    """Lays images out on the devices, or begins to read those that are streamed.

    Images that are streamed are for one seed. `done` steps of training are done.

    Yields:
      A function that takes the next steps, given the state, hyperparameters, the epoch,
      the first step in it, and how many. The order of the images is a function of
      (seed, step) alone.
    """
    seeds = devices.put(np.array(sweep.seeds), placement.seeds)
    adversary = sweep.recipe.adversary
    budget = None if adversary is None else adversary.as_arrays()
    if isinstance(data, Split):
        on_devices = devices.put((data.images, data.labels), placement.replicated)
        yield lambda state, h, at, first, steps: programs.train_steps(
            spec, state, seeds, h, *on_devices, at, first,
            None if steps == spec.epoch_steps else steps, budget,
        )  # fmt: skip
        return

    [seed] = sweep.seeds
    part = jax.process_index(), jax.process_count()
    with contextlib.closing(
        data.training_batches(seed, spec.batch_size, done, part=part)
    ) as batches:

        def take_steps(
            state: step.TrainState, h: Hyperparameters, at: Schedule, first: int,
            steps: int,
        ) -> step.Stepped:  # fmt: skip
            taken = []
            for i in range(first, first + steps):
                make = jax.make_array_from_process_local_data
                x, y = (make(placement.batch, part) for part in next(batches))
                state, metrics = programs.train_batch(
                    spec, state, seeds, h, x, y, at, jnp.asarray(i), budget
                )
                taken.append(metrics)
            return state, jax.tree.map(lambda *values: sum(values), *taken)

        yield take_steps


def _log(
    members: Sequence[Run], recorder: Recorder, epoch: int, at_end: Checkpoint,
    steps: int,
) -> None:  # fmt: skip
    """Writes metrics and diagnostics of a sweep after an epoch of so many steps."""
    state, sums = at_end
    values = sums.loss / steps, sums.accuracy / steps, state.diverged_at
    lines = recorder.lines(epoch, state.variables.params)
    for run, line, loss, accuracy, diverged_at in zip(
        members, lines, *(np.asarray(value).ravel() for value in values), strict=True
    ):
        run.log(epoch, float(loss), float(accuracy), int(diverged_at))
        run.log_diagnostics(line)


def train(
    classifier: Classifier, data: Split | StreamedSplit, task: Task,
    runs_dir: pathlib.Path, placement: Placement, advance: Callable[[int, int], None],
    *, seconds_between_checkpoints: int, spectral_norms: bool, tensorboard: bool,
) -> Turns:  # fmt: skip
    """Trains one sweep to the end.

    Calls `advance` with the number of steps that were done, and of images in a step of
    all models.

    Yields:
      While steps are being computed, so that others can be begun elsewhere.
    """
    sweep, source = task
    recipe, settings = sweep.recipe, len(sweep.settings)
    folder = runs_dir / sweep.path
    members = [Run(runs_dir, member) for member in sweep.members]
    settle_steps = max(member.settle_steps or 0 for member in sweep.members)
    spec = step.TrainSpec(
        classifier, recipe.batch_size, recipe.epoch_steps(len(data)),
        # Streamed images are cropped and flipped where they are read.
        augmented=recipe.augmented and isinstance(data, Split),
        constrained=constrained(sweep.settings, settle_steps),
        placement=placement,
    )  # fmt: skip
    at_a_time = steps_at_a_time(data, classifier, spec.epoch_steps)
    padded = placement.padded(settings)
    # Nothing else may refer to what it starts from, which takes as much memory.
    state, sums = devices.put(
        pad_settings(_start(classifier, task), 1, padded), placement.state
    )
    h = pad_settings(_hyperparameters(classifier, sweep), 0, padded)
    h = devices.put(h, placement.settings)

    def unpadded(tree: Any) -> Any:
        return tree if padded == settings else unpad_settings(tree, 1, settings)

    def local(tree: Any) -> Any:
        return devices.local_copies(unpadded(tree))

    recorder = Recorder(
        classifier, data.image_shape, recipe.epochs, with_spectral_norms=spectral_norms
    )
    started, made_by = time.perf_counter(), provenance()
    done = first = source.steps if source else 0
    last = recipe.epochs * spec.epoch_steps
    resumes_here = source is not None and source.folder == folder
    checkpoints.remove_others(folder / CHECKPOINTS, first if resumes_here else None)
    save_members(folder, sweep)
    with (
        contextlib.ExitStack() as stack,
        checkpoints.writer(folder / CHECKPOINTS, seconds_between_checkpoints) as save,
        _opened(data, spec, sweep, placement, first) as take_steps,
    ):
        for run in members:
            stack.enter_context(contextlib.closing(run))
            run.begin(first // spec.epoch_steps, tensorboard=tensorboard)
        while done < last:
            epoch, in_epoch = divmod(done, spec.epoch_steps)
            if in_epoch == 0 and (np.asarray(local(state.diverged_at)) > 0).all():
                advance(last - done, 0)
                break
            steps = min(at_a_time, spec.epoch_steps - in_epoch)
            at = optimization.schedule(epoch, recipe.epochs, recipe.milestones)
            state, new = take_steps(state, h, at, in_epoch, steps)
            sums = jax.tree.map(jnp.add, sums, new)
            yield
            jax.block_until_ready(sums)
            done += steps
            if done % spec.epoch_steps == 0:
                # Metrics are written before the checkpoint: on resuming, lines of later
                # epochs are dropped, but missing ones could not be made again.
                at_end = local(Checkpoint(state, sums))
                _log(members, recorder, epoch + 1, at_end, spec.epoch_steps)
                sums = jax.tree.map(jnp.zeros_like, sums)
            save(done, unpadded(Checkpoint(state, sums)))
            advance(steps, recipe.batch_size * len(members))
        if len(members) > 1:
            # If it were killed when only some of them are finished, the others would
            # resume in a different program, whose rounding differs.
            save(done, unpadded(Checkpoint(state, sums)), final=True)
    made_by |= {
        "seconds": time.perf_counter() - started,
        "steps_in_these_seconds": done - first,
        "seeds_in_one_program": sweep.seeds,
        "settings_in_one_program": sweep.settings,
        "devices_in_one_program": dict(placement.mesh.shape),
    }
    variables = local(state.variables)
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), variables)
    for i, run in enumerate(members):
        run.finish(jax.tree.map(lambda leaf, i=i: leaf[i], flat), made_by)
