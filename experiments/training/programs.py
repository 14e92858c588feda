"""The programs that train a sweep: some steps of an epoch, and one on a given batch."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from absum_jax import canonical_convolutions
from experiments.models import Classifier
from experiments.models.stacked import over_models
from experiments.training.constraints import Constrained
from experiments.training.devices import Placement
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


@functools.partial(
    jax.jit,
    static_argnames=(
        "classifier", "batch_size", "augmented", "constrained", "placement",
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
    first: chex.Numeric = 0,
    steps: chex.Numeric | None = None,
    *,
    batch_size: int,
    augmented: bool = False,
    constrained: tuple[Constrained, ...] = (),
    budget: Budget | None = None,
    placement: Placement | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes some steps of an epoch of a sweep: a loop, with the data on the device.

    Order and augmentation of the images are functions of (seed, step) alone. The
    incomplete last batch is dropped; reshuffling means that different images are
    dropped each epoch. One program takes any number of steps, another one whole epochs:
    on GPUs a loop of a constant number of steps need not ask the host after each.

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
      steps: how many steps to take; None is the whole epoch.
      batch_size: images a step.
      augmented: whether images are cropped and flipped at random.
      constrained: the settings that have a constraint.
      budget: of adversarial training; None trains on clean images.
      placement: how models and batches lie on several devices. Batch normalization
        takes the statistics of the whole batch, or of the classifier's groups, all the
        same.

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
            i: jax.Array, carry: tuple[TrainState, Metrics]
        ) -> tuple[TrainState, Metrics]:
            state, sums = carry
            indices = jax.lax.dynamic_slice_in_dim(order, i * batch_size, batch_size)
            if placement is not None:
                indices = jax.lax.with_sharding_constraint(indices, placement.batch)
            state, metrics = train_settings(
                classifier, state, h, images[indices], labels[indices], streams, at, i,
                epoch_steps, augmented=augmented, constrained=constrained,
                budget=budget, shards=1 if placement is None else placement.shards,
            )  # fmt: skip
            return state, jax.tree.map(jnp.add, sums, metrics)

        nothing = jnp.zeros(state.diverged_at.shape, jnp.float32)
        sums = Metrics(nothing, nothing)
        begin, end = (0, epoch_steps) if steps is None else (first, first + steps)
        return jax.lax.fori_loop(begin, end, body, (state, sums))

    return canonical_convolutions(over_models(one_seed, (0, 0)))(state, seeds)


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

    return canonical_convolutions(over_models(one_seed, (0, 0)))(state, seeds)


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
    state, sums = train_steps(
        classifier, state, seeds, h, images, labels, at, 0, steps,
        batch_size=batch_size, **how,
    )  # fmt: skip
    taken = steps or steps_of(labels.shape[0], batch_size)
    return state, jax.tree.map(lambda values: values / taken, sums)
