"""Accuracy on images without some of their frequencies."""

from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.attacks import frequency
from absum_jax.evaluation import counting
from absum_jax.evaluation.clean import BATCH_SIZE, check_evaluation


@_logits.compiled_with(static_argnames=("batch_size", "top_k"))
def _filtered_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    inner: chex.Array,
    outer: chex.Array,
    inside: chex.Array,
    bounds: tuple[chex.Numeric, chex.Numeric] | None,
    *,
    batch_size: int,
    top_k: counting.TopK,
) -> counting.Counts:
    batches = counting.in_batches(x, y, batch_size)

    def at(point: tuple[chex.Array, ...]) -> counting.Counts:
        def filtered(batch: counting.Batches) -> tuple[chex.Array, None]:
            images = frequency.filtered(batch.x, *point)
            if bounds is None:
                return images, None
            low, high = (jnp.asarray(bound, images.dtype) for bound in bounds)
            return jnp.clip(images, low, high), None

        return counting.count(logits_fn, filtered, batches, top_k)[0]

    counts = counting.at_each(at, (inner, outer, inside))
    return counting.fractions(counts, x.shape[0])


def filtered_accuracy(
    logits_fn: Any, x: Any, y: Any, radius: Any, inside: Any, batch_size: Any,
    top_k: Any, bounds: Any = None, *, inner: Any = -np.inf,
) -> counting.AttackAccuracy:  # fmt: skip
    """Computes accuracy on filtered images, in one program for all filters.

    The arguments are those of :func:`low_pass_accuracy`, and of the filter: whether the
    frequencies inside the radius pass, and an inner radius, beyond which frequencies
    count as inside. Each is one, possibly traced, or one per radius. If all frequencies
    within an infinite radius pass, the images do not change.
    """
    radii = validation.check_nonnegative_list("radius", radius)
    bounds = None if bounds is None else validation.check_bounds(bounds)
    x, y = check_evaluation(logits_fn, x, y, batch_size, top_k)
    inner, inside = (jnp.broadcast_to(each, radii.shape) for each in (inner, inside))
    fractions = _filtered_accuracy(
        logits_fn, x, y, inner, radii, inside, bounds,
        batch_size=batch_size, top_k=top_k,
    )  # fmt: skip
    return counting.AttackAccuracy(radii, *fractions)


def low_pass_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    radius: chex.Numeric,
    *,
    batch_size: int = BATCH_SIZE,
    top_k: counting.TopK = 1,
    bounds: tuple[chex.Numeric, chex.Numeric] | None = None,
) -> counting.AttackAccuracy:
    """Computes accuracy under the High-Frequency attack, for a list of radii.

    Args:
      logits_fn: a callable from images to logits, as in :func:`accuracy`.
      x: images (N, height, width, channels), floating-point.
      y: integer labels (N,).
      radius: which frequencies :func:`low_pass` keeps, in cycles per image: a scalar
        or a list (R,), non-negative. The paper has width / 4.
      batch_size: the maximum number of images in one pass, as in :func:`accuracy`.
      top_k: how many of the largest logits may contain the label, or a tuple of K such
        numbers, as in :func:`accuracy`.
      bounds: a range of pixel values to clip the filtered images to; None, as in
        eq. 18, does not clip.

    Returns:
      Accuracies of the shape of the radii, after an axis (K,) for a tuple `top_k`, and
      the fraction of images with a NaN logit.

    Raises:
      ValueError: for the reasons of :func:`accuracy`, or if a radius is negative or the
        list of radii is empty.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [0.25, 0.0]]).reshape(2, 1, 2, 1)
      >>> bright = lambda x: jnp.stack([0.6 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.6], -1)
      >>> y = jnp.array([1, 0])
      >>> print(absum_jax.low_pass_accuracy(bright, x, y, [0, 1]).accuracy)
      [0.5 1. ]

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, Table 3;
      Wang et al., `High Frequency Component Helps Explain the Generalization of
      Convolutional Neural Networks <https://arxiv.org/abs/1905.13545>`_, 2019
    """
    return filtered_accuracy(logits_fn, x, y, radius, True, batch_size, top_k, bounds)


def high_pass_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    radius: chex.Numeric,
    *,
    batch_size: int = BATCH_SIZE,
    top_k: counting.TopK = 1,
    bounds: tuple[chex.Numeric, chex.Numeric] | None = None,
) -> counting.AttackAccuracy:
    """Computes accuracy on images without low frequencies, for a list of radii.

    Args:
      logits_fn: a callable from images to logits, as in :func:`accuracy`.
      x: images (N, height, width, channels), floating-point.
      y: integer labels (N,).
      radius: which frequencies :func:`high_pass` removes, in cycles per image: a
        scalar or a list (R,), non-negative. 0 removes the mean of each channel.
      batch_size: the maximum number of images in one pass, as in :func:`accuracy`.
      top_k: how many of the largest logits may contain the label, or a tuple of K such
        numbers, as in :func:`accuracy`.
      bounds: a range of pixel values to clip the filtered images to, which removes all
        values below their mean; None, as in eq. 19, does not clip.

    Returns:
      Accuracies of the shape of the radii, after an axis (K,) for a tuple `top_k`, and
      the fraction of images with a NaN logit.

    Raises:
      ValueError: for the reasons of :func:`low_pass_accuracy`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [0.25, 0.0]]).reshape(2, 1, 2, 1)
      >>> bright = lambda x: jnp.stack([0.6 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.6], -1)
      >>> y = jnp.array([1, 0])
      >>> print(absum_jax.high_pass_accuracy(bright, x, y, 0).accuracy)
      0.5

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, "Sensitivity in
      Frequency Domain"
    """
    return filtered_accuracy(logits_fn, x, y, radius, False, batch_size, top_k, bounds)
