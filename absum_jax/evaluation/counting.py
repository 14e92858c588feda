"""Counts of correctly classified images, batch by batch."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax._logits import LogitsFn
from absum_jax.evaluation import display

# How many of the largest logits may contain the label, or K such numbers.
TopK = int | tuple[int, ...]


class Batches(NamedTuple):
    """Images and labels in equal batches, the last ones padded."""

    x: chex.Array  # (batches, batch, height, width, channels)
    y: chex.Array  # (batches, batch)
    index: chex.Array  # (batches, batch), the position of each image in the whole set
    valid: chex.Array  # (batches, batch), False at padding


class Counts(NamedTuple):
    """Numbers of images, integers."""

    correct: chex.Array  # (..., K) for a tuple `top_k`
    nan_logits: chex.Array


class AttackAccuracy(NamedTuple):
    """Accuracies under attacks of several strengths, as fractions.

    A pytree of arrays, so that it passes through jit and vmap. Notebooks show it as a
    table; `pandas.DataFrame` accepts its `rows`.
    """

    # (E,), or a scalar: eps in units of the pixels, a radius, or a severity.
    strength: chex.Array
    # Of the shape of strength, after an axis (K,) for a tuple `top_k`; an image with a
    # NaN logit counts as wrong.
    accuracy: chex.Array
    nan_logits: chex.Array  # of the shape of strength: fraction of images with one
    # Of the shape of strength: passes of the attack, summed over images, if it has any.
    forward: chex.Array | None = None
    backward: chex.Array | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Returns a row with the fields that are known for each strength.

        For a tuple `top_k`, `axis_0` is the position in it. Of several models, as after
        `vmap`, with a tuple `top_k`, take the rows of one at a time: as many models as
        `top_k` has numbers would be confused with these.
        """
        shape = np.shape(self.accuracy)
        # Several models may each have a single strength, but not as many as `top_k`.
        own = int(np.shape(self.strength)[-1:] == shape[-1:] != ())
        known = {name: v for name, v in self._asdict().items() if v is not None}
        return display.rows(
            [None] * own,
            **{
                name: display.for_each_top_k(value, shape, own)
                for name, value in known.items()
            },
        )

    def __repr__(self) -> str:
        """Formats the numbers in a line, without the passes."""
        strength, accuracy, nan_logits, *_ = self
        return display.line(
            self, strength=strength, accuracy=accuracy, nan_logits=nan_logits
        )

    def _repr_html_(self) -> str | None:
        known = self.strength, self.accuracy, *jax.tree.leaves(self)
        return display.as_html(self.rows) if display.are_numbers(*known) else None


def batch_shape(images: int, batch_size: int) -> tuple[int, int]:
    """Returns (batches, batch): the fewest batches, as equal in size as possible."""
    batches = math.ceil(images / batch_size)
    return batches, math.ceil(images / batches)


def divided(arrays: Any, batch_size: int) -> Any:
    """Splits arrays of images into equal batches, padded with zeros.

    Batch i of n takes every n-th image from i on. So images that are sharded over
    devices along the first axis stay where they are, and each batch uses all devices.

    Args:
      arrays: a tree of arrays (images, ...).
      batch_size: the maximum number of images in a batch.

    Returns:
      Arrays (batches, batch, ...), from which :func:`joined` makes the first again.
    """
    images = jax.tree.leaves(arrays)[0].shape[0]
    batches, batch = batch_shape(images, batch_size)

    def split(array: chex.Array) -> chex.Array:
        padding = [(0, batches * batch - images)] + [(0, 0)] * (array.ndim - 1)
        padded = jnp.pad(array, padding)
        return padded.reshape(batch, batches, *array.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, arrays)


def in_batches(x: chex.Array, y: chex.Array, batch_size: int) -> Batches:
    """Splits images and labels into batches of at most `batch_size`."""
    index, valid = jnp.arange(x.shape[0]), jnp.ones(x.shape[0], bool)
    return Batches(*divided((x, y, index, valid), batch_size))


def joined(array: chex.Array, images: int) -> chex.Array:
    """Joins what was computed for each image of the batches of :func:`divided`.

    Args:
      array: (batches, batch, ...).
      images: how many there are without padding.

    Returns:
      The array (images, ...), in the order of the images.

    Example:
      >>> import jax.numpy as jnp
      >>> from absum_jax.evaluation import counting
      >>> x = jnp.arange(5.0).reshape(5, 1, 1, 1)
      >>> batches = counting.in_batches(x, jnp.arange(5), 2)
      >>> print(batches.y.tolist(), counting.joined(batches.y, 5))
      [[0, 3], [1, 4], [2, 0]] [0 1 2 3 4]
    """
    return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])[:images]


def _is_correct(logits: chex.Array, y: chex.Array, top_k: TopK) -> chex.Array:
    """Returns whether the label is among the k largest logits; (K, batch) for a tuple.

    Ties go to the smaller class, as in argmax and `jax.lax.top_k`. A traced label that
    is not a class is never among them.
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
    """Counts correctly classified images and those with a NaN logit, never correct.

    Args:
      logits: (batch, classes).
      y: labels (batch,).
      top_k: how many of the largest logits may contain the label, or a tuple of K such
        numbers.
      valid: (batch,), False for images that do not count.

    Returns:
      The counts: of correct images a scalar, or (K,) for a tuple; of NaN a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from absum_jax.evaluation import counting
      >>> logits = jnp.array([[2.0, 1.0], [3.0, 4.0], [jnp.nan, 0.0]])
      >>> counts = counting.counted(logits, jnp.array([0, 0, 0]), (1, 2))
      >>> print(counts.correct, counts.nan_logits)
      [1 2] 1
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
    """Counts correctly classified images under an attack, batch by batch.

    Args:
      logits_fn: the model, evaluated on the attacked images in a separate pass.
      attack: from one batch to its attacked images (batch, height, width, channels),
        and a tree of bools or integers (batch,) to add up as well.
      batches: all images.
      top_k: as in :func:`counted`.

    Returns:
      The counts, and the tree of sums, of which 2^31 - 1 stands for any larger one.
    """

    def count_batch(_: None, batch: Batches) -> tuple[None, tuple[Counts, Any]]:
        images, others = attack(batch)
        counts = counted(logits_fn(images), batch.y, top_k, batch.valid)
        sums = jax.tree.map(
            lambda each: each.sum(dtype=jnp.int32, where=batch.valid), others
        )
        return None, (counts, sums)

    each = jax.lax.scan(count_batch, None, batches)[1]
    return jax.tree.map(_added, each)


def at_each(function: Callable[[Any], Any], points: Any) -> Any:
    """Calls a function on scalars, or at each index of a tree of arrays (E,)."""
    is_single = jax.tree.leaves(points)[0].ndim == 0
    return function(points) if is_single else jax.lax.map(function, points)


def _added(counts: chex.Array) -> chex.Array:
    """Adds integers along the first axis; the largest integer stands for any beyond."""
    total = counts.sum(axis=0, dtype=jnp.int32)
    about, largest = counts.astype(jnp.float32).sum(axis=0), jnp.iinfo(jnp.int32).max
    return jnp.where(about < 0.999 * largest, total, largest)


def unchanged(batch: Batches) -> tuple[chex.Array, None]:
    """Returns the images of a batch without an attack."""
    return batch.x, None


def shares(counts: chex.Array, images: int) -> chex.Array:
    """Converts counts to fractions of the images, in float32.

    Uses a lookup table: XLA compiles division by a constant to multiplication by its
    rounded reciprocal, so 41/41 would not be exactly 1.
    """
    return jnp.asarray(np.arange(images + 1) / images, jnp.float32)[counts]


def fractions(counts: Counts, images: int) -> Counts:
    """Converts counts to fractions of the images.

    Args:
      counts: from :func:`counted` or :func:`count`.
      images: the number of images.

    Returns:
      The fractions in float32; those of correct images (K, ...) for counts (..., K).

    Example:
      >>> import jax.numpy as jnp
      >>> from absum_jax.evaluation import counting
      >>> counts = counting.Counts(jnp.array(3), jnp.array(0))
      >>> print(counting.fractions(counts, 4).correct)
      0.75
    """
    correct, nan_logits = (shares(count, images) for count in counts)
    if correct.ndim > nan_logits.ndim:
        correct = jnp.moveaxis(correct, -1, 0)
    return Counts(correct, nan_logits)
