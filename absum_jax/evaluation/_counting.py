"""Counting answers, batch by batch."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax._logits import LogitsFn

# How many of the largest logits may hold the label, or several such numbers (K,).
TopK = int | tuple[int, ...]


class Batches(NamedTuple):
    """Images and labels in equal batches, the last ones padded."""

    x: chex.Array  # (batches, batch, height, width, channels)
    y: chex.Array  # (batches, batch)
    index: chex.Array  # (batches, batch), of each image in the whole set
    valid: chex.Array  # (batches, batch), False at padding


class Counts(NamedTuple):
    """Numbers of images, integers."""

    correct: chex.Array  # (..., K) where there are several numbers of largest logits
    nan_logits: chex.Array


class AttackAccuracy(NamedTuple):
    """Accuracies under attacks of several strengths, as fractions.

    A pytree of arrays, so that it passes through jit and vmap.
    """

    strength: chex.Array  # (E,), or a scalar: eps in units of the pixels, or a radius
    # Of the same shape, behind an axis (K,) if there are several `top_k`; an image with
    # a NaN logit counts as wrong.
    accuracy: chex.Array
    nan_logits: chex.Array  # of the shape of strength, the share of images with one


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

    index, valid = jnp.arange(images), jnp.ones(images, bool)
    return Batches(split(x), split(y), split(index), split(valid))


def _is_correct(logits: chex.Array, y: chex.Array, top_k: TopK) -> chex.Array:
    """Whether the label is among the k largest logits; (K, batch) for several k.

    Ties go to the smaller class, as in argmax and `jax.lax.top_k`. A traced label that
    is no class is never among them.
    """
    own = jnp.take_along_axis(logits, y[:, None], axis=-1)
    classes = jnp.arange(logits.shape[-1])[None]
    ahead = (logits > own) | ((logits == own) & (classes < y[:, None]))
    is_class = (y >= 0) & (y < logits.shape[-1])
    if isinstance(top_k, tuple):
        most = jnp.asarray(top_k)[:, None]
        return (ahead.sum(axis=-1)[None] < most) & is_class[None]
    return (ahead.sum(axis=-1) < top_k) & is_class


def counted(
    logits: chex.Array,
    y: chex.Array,
    top_k: TopK,
    valid: chex.Array | bool = True,
) -> Counts:
    """Counts correct answers, and images with a NaN logit, which are never correct.

    Args:
      logits: (batch, classes).
      y: labels (batch,).
      top_k: how many of the largest logits may hold the label, or several numbers.
      valid: (batch,), False at images that do not count.
    """
    is_nan = jnp.isnan(logits).any(axis=-1)
    correct = _is_correct(logits, y, top_k)
    correct &= jax.lax.broadcast_to_rank(~is_nan & valid, correct.ndim)
    flags = correct, is_nan & valid
    return Counts(*(flag.sum(axis=-1, dtype=jnp.int32) for flag in flags))


def count(
    logits_fn: LogitsFn,
    attack: Callable[[Batches], tuple[chex.Array, Any]],
    batches: Batches,
    top_k: TopK,
) -> tuple[Counts, Any]:
    """Counts correct answers under an attack, batch by batch.

    Args:
      logits_fn: the model, which sees the attacked images afresh.
      attack: from one batch to its attacked images (batch, height, width, channels),
        and a tree of what else to count of each image: bools (batch,).
      batches: all images.
      top_k: how many of the largest logits may hold the label, or several numbers.

    Returns:
      The counts, and those of the tree.
    """

    def count_batch(_: None, batch: Batches) -> tuple[None, tuple[Counts, Any]]:
        images, flags = attack(batch)
        counts = counted(logits_fn(images), batch.y, top_k, batch.valid)
        others = jax.tree.map(
            lambda flag: (flag & batch.valid).sum(dtype=jnp.int32), flags
        )
        return None, (counts, others)

    each = jax.lax.scan(count_batch, None, batches)[1]
    return jax.tree.map(lambda counts: counts.sum(axis=0, dtype=jnp.int32), each)


def unchanged(batch: Batches) -> tuple[chex.Array, None]:
    """Leaves the images as they are."""
    return batch.x, None


def fractions(counts: Counts, images: int) -> Counts:
    """Converts counts to fractions of the images; of several `top_k`, to (K, ...).

    Uses a lookup table: XLA compiles division by a constant to multiplication by its
    rounded reciprocal, so 41/41 would not be exactly 1.
    """
    table = jnp.asarray(np.arange(images + 1) / images, jnp.float32)
    correct, nan_logits = (table[count] for count in counts)
    if correct.ndim > nan_logits.ndim:
        correct = jnp.moveaxis(correct, -1, 0)
    return Counts(correct, nan_logits)
