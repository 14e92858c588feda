"""Adversarial training with `pgd` and optax, in thirty lines."""

from collections.abc import Callable
from typing import Any

import jax
import optax

import absum_jax


def train(
    apply: Callable[[Any, jax.Array], jax.Array], params: Any, images: jax.Array,
    labels: jax.Array, *, key: jax.Array, tx: optax.GradientTransformation, eps: float,
    epochs: int, steps: int = 10, batch_size: int = 128,
) -> Any:  # fmt: skip
    """Trains on the images that PGD returns, and returns the parameters.

    In the first half of the epochs the radius grows to eps: a small network that
    starts with a large one often learns to predict the same class for all images.

    Args:
      apply: the model, from parameters and images to logits.
      params: the parameters before training.
      images: (N, height, width, channels), in [0, 1]; an incomplete batch is dropped.
      labels: integers (N,).
      key: random key of the batches and of PGD's starts.
      tx: the optimizer, such as `optax.adam(1e-3)`.
      eps: radius of the L-infinity ball.
      epochs: number of epochs.
      steps: PGD's steps, of 2.5 eps in all.
      batch_size: images of a batch.
    """
    batches = len(images) // batch_size

    def step(carry: Any, batch: Any) -> Any:
        params, state, radius, images, labels = carry
        chosen, key = batch
        y = labels[chosen]
        x = absum_jax.pgd(
            jax.tree_util.Partial(apply, params), images[chosen], y, key=key,
            eps=radius, step_size=2.5 * radius / steps, steps=steps,
        )  # fmt: skip

        def loss(params: Any) -> jax.Array:
            logits = apply(params, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state, radius, images, labels), None

    @jax.jit
    @absum_jax.canonical_convolutions
    def epoch(key: jax.Array, *carry: Any) -> Any:
        order, starts = jax.random.split(key)
        chosen = jax.random.permutation(order, len(labels))[: batches * batch_size]
        keys = jax.random.split(starts, batches)
        parts = chosen.reshape(batches, batch_size), keys
        return jax.lax.scan(step, carry, parts)[0][:2]

    state = tx.init(params)
    for i in range(epochs):
        radius = eps * min(1, 2 * (i + 1) / epochs)
        key, of_epoch = jax.random.split(key)
        params, state = epoch(of_epoch, params, state, radius, images, labels)
    return params
