"""The programs that train a sweep: some steps of an epoch, and one on a given batch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments.models import Classifier
from experiments.models.stacked import over_models
from experiments.training.constraints import Constrained
from experiments.training.optimization import Hyperparameters, Schedule, decayed
from experiments.training.step import (
    Budget,
    Metrics,
    TrainState,
    order_stream,
    streams_of,
    train_settings,
)


def steps_of(examples: int, batch_size: int) -> int:
    """The steps of an epoch; what does not fill a last batch sits out."""
    return examples // batch_size


def steps_together(classifier: Classifier, steps: int) -> int:
    """How many of some steps are taken in one program, the fastest way."""
    # On a CPU, XLA convolves inside loops several times more slowly than outside.
    loops = classifier.is_small or jax.default_backend() != "cpu"
    return steps if loops else 1


@functools.partial(
    jax.jit,
    static_argnames=(
        "classifier", "batch_size", "steps", "augmented", "constrained",
        "batch_sharding",
    ),
    donate_argnames="state",
)  # fmt: skip
def train_steps(
    classifier: Classifier,
    state: TrainState,
    seeds: jax.Array,
    h: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
    at: Schedule,
    first: jax.Array,
    *,
    batch_size: int,
    steps: int,
    augmented: bool = False,
    constrained: tuple[Constrained, ...] = (),
    budget: Budget | None = None,
    batch_sharding: jax.sharding.Sharding | None = None,
) -> tuple[TrainState, Metrics]:
    """Some steps of an epoch of a sweep: a scan, with the data on the device.

    Order and augmentation of the images are functions of (seed, step) alone; the images
    that do not fill a last batch sit out, others each epoch.

    Args:
      classifier: the network.
      state: the sweep's state, with leading axes (seeds, settings).
      seeds: integers (seeds,).
      h: hyperparameters, each field (settings,); the learning rate before its first
        milestone.
      images: all training images (N, height, width, channels), uint8.
      labels: all labels (N,).
      at: which epoch it is.
      first: the first step, from 0.
      batch_size: images a step.
      steps: how many steps to take.
      augmented: whether images are cropped and flipped at random.
      constrained: the settings that have a constraint.
      budget: of adversarial training; None trains on clean images.
      batch_sharding: how a batch lies on several devices. Batch normalization takes
        the statistics of the whole batch, or of the classifier's groups, all the same.

    Returns:
      The state after the steps, and the sums of their metrics (seeds, settings).
    """
    epoch_steps = steps_of(labels.shape[0], batch_size)
    h = decayed(h, at)

    def one_seed(state: TrainState, seed: jax.Array) -> tuple[TrainState, Metrics]:
        order_key = jax.random.fold_in(order_stream(seed), at.epoch)
        order = jax.random.permutation(order_key, labels.shape[0])
        streams = streams_of(seed, at.epoch)

        def body(
            state: TrainState, batch: tuple[jax.Array, jax.Array]
        ) -> tuple[TrainState, Metrics]:
            indices, i = batch
            if batch_sharding is not None:
                indices = jax.lax.with_sharding_constraint(indices, batch_sharding)
            return train_settings(
                classifier, state, h, images[indices], labels[indices], streams, at,
                first + i, epoch_steps, augmented=augmented, constrained=constrained,
                budget=budget,
            )  # fmt: skip

        chosen = jax.lax.dynamic_slice_in_dim(
            order, first * batch_size, steps * batch_size
        )
        batches = chosen.reshape(steps, batch_size)
        if steps == 1:
            return body(state, (batches[0], jnp.asarray(0)))
        state, metrics = jax.lax.scan(body, state, (batches, jnp.arange(steps)))
        return state, jax.tree.map(lambda values: values.sum(axis=0), metrics)

    return over_models(one_seed, (0, 0))(state, seeds)


@functools.partial(
    jax.jit,
    static_argnames=("classifier", "epoch_steps", "constrained"),
    donate_argnames="state",
)
def train_batch(
    classifier: Classifier,
    state: TrainState,
    seeds: jax.Array,
    h: Hyperparameters,
    x: jax.Array,
    y: jax.Array,
    at: Schedule,
    i: jax.Array,
    *,
    epoch_steps: int,
    constrained: tuple[Constrained, ...] = (),
    budget: Budget | None = None,
) -> tuple[TrainState, Metrics]:
    """One step of a sweep of one seed, on a batch that is cropped and flipped already.

    Args:
      classifier: the network.
      state: the sweep's state, with leading axes (1, settings).
      seeds: integers (1,).
      h: hyperparameters, each field (settings,).
      x: images (batch, height, width, channels), uint8. Where they are divided over
        devices, batch normalization normalizes them as it does on one.
      y: labels (batch,).
      at: which epoch it is.
      i: the number of the step in the epoch, from 0.
      epoch_steps: how many steps an epoch has.
      constrained: the settings that have a constraint.
      budget: of adversarial training; None trains on clean images.

    Returns:
      The state after the step, and its metrics (1, settings).
    """
    h = decayed(h, at)

    def one_seed(state: TrainState, seed: jax.Array) -> tuple[TrainState, Metrics]:
        return train_settings(
            classifier, state, h, x, y, streams_of(seed, at.epoch), at, i, epoch_steps,
            augmented=False, constrained=constrained, budget=budget,
        )  # fmt: skip

    return over_models(one_seed, (0, 0))(state, seeds)


def train_part(
    classifier: Classifier,
    state: TrainState,
    seeds: jax.Array,
    h: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
    at: Schedule,
    first: int,
    steps: int,
    **how: Any,
) -> tuple[TrainState, Metrics]:
    """Some steps of an epoch, by `train_steps`; where they are fastest, one by one.

    Args:
      classifier: the network.
      state: the sweep's state.
      seeds: integers (seeds,).
      h: hyperparameters, each field (settings,).
      images: all training images, uint8.
      labels: all labels.
      at: which epoch it is.
      first: the first step, from 0.
      steps: how many steps to take.
      **how: other arguments of `train_steps`.

    Returns:
      The state after the steps, and the sums of their metrics (seeds, settings).
    """
    together = steps_together(classifier, steps)
    parts = []
    for at_step in range(first, first + steps, together):
        state, metrics = train_steps(
            classifier, state, seeds, h, images, labels, at, jnp.asarray(at_step),
            steps=together, **how,
        )  # fmt: skip
        parts.append(metrics)
    return state, jax.tree.map(lambda *values: sum(values), *parts)


def train_epoch(
    classifier: Classifier,
    state: TrainState,
    seeds: jax.Array,
    h: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
    at: Schedule,
    *,
    batch_size: int,
    steps: int | None = None,
    **how: Any,
) -> tuple[TrainState, Metrics]:
    """The first steps of an epoch of a sweep, or all of them.

    Args:
      classifier: the network.
      state: the sweep's state.
      seeds: integers (seeds,).
      h: hyperparameters, each field (settings,).
      images: all training images, uint8.
      labels: all labels.
      at: which epoch it is.
      batch_size: images a step.
      steps: how many steps of the epoch to take; None is all.
      **how: other arguments of `train_steps`.

    Returns:
      The state after the steps, and the means of their metrics (seeds, settings).
    """
    steps = steps or steps_of(labels.shape[0], batch_size)
    state, sums = train_part(
        classifier, state, seeds, h, images, labels, at, 0, steps,
        batch_size=batch_size, **how,
    )  # fmt: skip
    return state, jax.tree.map(lambda values: values / steps, sums)
