"""Compiled programs that train a sweep: steps on data on the device, or one batch."""

import functools

import chex
import jax
import jax.numpy as jnp

from absum_jax import canonical_convolutions
from experiments.models.stacked import over_models
from experiments.training.optimization import Hyperparameters, Schedule, decayed
from experiments.training.step import (
    Budget,
    Metrics,
    TrainSpec,
    TrainState,
    epoch_keys,
    image_order,
    train_settings,
)


@functools.partial(jax.jit, static_argnames="spec", donate_argnames="state")
def train_steps(
    spec: TrainSpec,
    state: TrainState,
    seeds: jax.Array,
    h: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
    at: Schedule,
    first: chex.Numeric = 0,
    steps: chex.Numeric | None = None,
    budget: Budget | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes some steps of an epoch of a sweep: a loop, with the data on the device.

    Order and augmentation of the images are functions of (seed, step) alone. The
    incomplete last batch is dropped; reshuffling means that different images are
    dropped each epoch. One program takes any number of steps, another one whole epochs:
    on GPUs a loop of a constant number of steps need not ask the host after each.

    Args:
      spec: what is static.
      state: the sweep's, with leading axes (seeds, settings); overwritten.
      seeds: integers (seeds,).
      h: hyperparameters, each field (settings,); the learning rate before its first
        milestone.
      images: all training images (N, height, width, channels), uint8.
      labels: all labels (N,).
      at: which epoch it is.
      first: the first step, from 0.
      steps: how many steps to take; None is the whole epoch.
      budget: the adversary's; None trains on clean images.

    Returns:
      The state after the steps, and the sums of their metrics (seeds, settings).
    """
    h = decayed(h, at)

    def one_seed(state: TrainState, seed: jax.Array) -> tuple[TrainState, Metrics]:
        order = image_order(seed, at.epoch, labels.shape[0])
        keys = epoch_keys(seed, at.epoch)

        def body(
            i: jax.Array, carry: tuple[TrainState, Metrics]
        ) -> tuple[TrainState, Metrics]:
            state, sums = carry
            size = spec.batch_size
            indices = jax.lax.dynamic_slice_in_dim(order, i * size, size)
            if spec.placement is not None:
                indices = jax.lax.with_sharding_constraint(
                    indices, spec.placement.batch
                )
            state, metrics = train_settings(
                spec, state, h, images[indices], labels[indices], keys, at, i, budget
            )
            return state, jax.tree.map(jnp.add, sums, metrics)

        nothing = jnp.zeros(state.diverged_at.shape, jnp.float32)
        sums = Metrics(nothing, nothing)
        begin, end = (0, spec.epoch_steps) if steps is None else (first, first + steps)
        return jax.lax.fori_loop(begin, end, body, (state, sums))

    return canonical_convolutions(over_models(one_seed, (0, 0)))(state, seeds)


@functools.partial(jax.jit, static_argnames="spec", donate_argnames="state")
def train_batch(
    spec: TrainSpec,
    state: TrainState,
    seeds: jax.Array,
    h: Hyperparameters,
    x: jax.Array,
    y: jax.Array,
    at: Schedule,
    i: jax.Array,
    budget: Budget | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one step of a sweep of one seed, on a given batch.

    Args:
      spec: what is static.
      state: the sweep's, with leading axes (1, settings); overwritten.
      seeds: integers (1,).
      h: hyperparameters, each field (settings,).
      x: images (batch, height, width, channels), uint8. Where they are divided over
        devices, batch normalization normalizes them as it does on one.
      y: labels (batch,).
      at: which epoch it is.
      i: the number of the step in the epoch, from 0.
      budget: the adversary's; None trains on clean images.

    Returns:
      The state after the step, and its metrics (1, settings).
    """
    h = decayed(h, at)

    def one_seed(state: TrainState, seed: jax.Array) -> tuple[TrainState, Metrics]:
        keys = epoch_keys(seed, at.epoch)
        return train_settings(spec, state, h, x, y, keys, at, i, budget)

    return canonical_convolutions(over_models(one_seed, (0, 0)))(state, seeds)
