"""Compiled programs that train a sweep: steps on data on the device, or one batch."""

import functools

import chex
import jax
import jax.numpy as jnp

from absum_jax import canonical_convolutions
from experiments.models.stacked import over_models
from experiments.training import step
from experiments.training.optimization import Hyperparameters, Schedule, decayed
from experiments.training.step import Stepped, TrainState


@functools.partial(jax.jit, static_argnames="spec", donate_argnames="state")
def train_steps(
    spec: step.TrainSpec, state: TrainState, seeds: jax.Array, h: Hyperparameters,
    images: jax.Array, labels: jax.Array, at: Schedule, first: chex.Numeric = 0,
    steps: chex.Numeric | None = None, budget: step.Budget | None = None,
) -> Stepped:  # fmt: skip
    """Takes some steps of an epoch of a sweep: a loop, with the data on the device.

    Order and augmentation of the images are functions of (seed, step) alone. The
    incomplete last batch is dropped; reshuffling means that different images are
    dropped each epoch. One program takes any number of steps, another one whole epochs:
    on GPUs a loop of a constant number of steps need not ask the host after each.

    Args:
      spec: what is static.
      state: with leading axes (seeds, settings), as the metrics; overwritten.
      seeds: integers (seeds,).
      h: each field (settings,); the learning rate before its first milestone.
      images: all training images (N, height, width, channels), uint8.
      labels: all labels (N,).
      at: the epoch.
      first: the first step in it, from 0.
      steps: how many steps to take; None is the whole epoch.
      budget: the adversary's; None trains on clean images.
    """
    h = decayed(h, at)

    def one_seed(state: TrainState, seed: jax.Array) -> Stepped:
        order = step.image_order(seed, at.epoch, labels.shape[0])
        keys = step.epoch_keys(seed, at.epoch)

        def body(i: jax.Array, carry: Stepped) -> Stepped:
            state, sums = carry
            size = spec.batch_size
            indices = jax.lax.dynamic_slice_in_dim(order, i * size, size)
            if spec.placement is not None:
                batch = spec.placement.batch
                indices = jax.lax.with_sharding_constraint(indices, batch)
            state, metrics = step.train_settings(
                spec, state, h, images[indices], labels[indices], keys, at, i, budget
            )
            return state, jax.tree.map(jnp.add, sums, metrics)

        sums = step.Metrics.zeros(state.diverged_at.shape)
        begin, end = (0, spec.epoch_steps) if steps is None else (first, first + steps)
        return jax.lax.fori_loop(begin, end, body, (state, sums))

    over_seeds = over_models(one_seed, (0, 0), shards=spec.shards[0])
    return canonical_convolutions(over_seeds)(state, seeds)


@functools.partial(jax.jit, static_argnames="spec", donate_argnames="state")
def train_batch(
    spec: step.TrainSpec, state: TrainState, seeds: jax.Array, h: Hyperparameters,
    x: jax.Array, y: jax.Array, at: Schedule, i: jax.Array,
    budget: step.Budget | None = None,
) -> Stepped:  # fmt: skip
    """Takes one step of a sweep of one seed, the i-th of an epoch, on a given batch.

    The arguments are those of `train_steps`, but the images `x` are one batch. Where it
    is divided over devices, batch normalization normalizes it as it does on one.
    """
    h = decayed(h, at)

    def one_seed(state: TrainState, seed: jax.Array) -> Stepped:
        keys = step.epoch_keys(seed, at.epoch)
        return step.train_settings(spec, state, h, x, y, keys, at, i, budget)

    over_seeds = over_models(one_seed, (0, 0), shards=spec.shards[0])
    return canonical_convolutions(over_seeds)(state, seeds)
