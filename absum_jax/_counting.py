"""Counting correct answers, batch by batch."""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax._logits import LogitsFn


class Batches(NamedTuple):
    """Images and labels in equal batches, the last ones padded."""

    x: chex.Array  # (batches, batch, height, width, channels)
    y: chex.Array  # (batches, batch)
    valid: chex.Array  # (batches, batch), False at padding


def batch_shape(images: int, batch_size: int) -> tuple[int, int]:
    """(batches, batch): as few batches as `batch_size` allows, as equal as can be."""
    batches = math.ceil(images / batch_size)
    return batches, math.ceil(images / batches)


def in_batches(x: chex.Array, y: chex.Array, batch_size: int) -> Batches:
    """Splits images and labels into batches of at most `batch_size`.

    Batch i takes every n-th image from i on, so that images sharded over devices along
    the first axis stay where they are, and each batch uses all devices.
    """
    images = x.shape[0]
    batches, batch = batch_shape(images, batch_size)

    def split(array: chex.Array) -> chex.Array:
        padding = [(0, batches * batch - images)] + [(0, 0)] * (array.ndim - 1)
        padded = jnp.pad(array, padding)
        return padded.reshape(batch, batches, *array.shape[1:]).swapaxes(0, 1)

    return Batches(split(x), split(y), split(jnp.ones(images, bool)))


def _is_correct(logits: chex.Array, y: chex.Array, top_k: int) -> chex.Array:
    """Whether the label is among the k largest logits; NaN logits are wrong.

    Ties go to the smaller class, as in argmax and `jax.lax.top_k`.
    """
    own = jnp.take_along_axis(logits, y[:, None], axis=-1)
    classes = jnp.arange(logits.shape[-1])
    ahead = (logits > own) | ((logits == own) & (classes < y[:, None]))
    return (ahead.sum(axis=-1) < top_k) & ~jnp.isnan(logits).any(axis=-1)


def count_correct(logits_fn: LogitsFn, batches: Batches, top_k: int) -> chex.Array:
    """The number of images classified correctly, an integer."""

    def add(count: chex.Array, batch: Batches) -> tuple[chex.Array, None]:
        correct = _is_correct(logits_fn(batch.x), batch.y, top_k) & batch.valid
        return count + correct.sum(dtype=jnp.int32), None

    return jax.lax.scan(add, jnp.zeros([], jnp.int32), batches)[0]


def share(count: chex.Array, images: int) -> chex.Array:
    """A count as a share of the images, rounded once.

    A table, as XLA turns a division by a constant into a product with its rounded
    reciprocal, by which 41 correct answers of 41 are no longer 1.
    """
    fractions = np.arange(images + 1) / images
    return jnp.asarray(fractions, jnp.float32)[count]
