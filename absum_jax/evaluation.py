"""Accuracy, clean and under attack."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _counting as counting
from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.attacks import single_fourier

_BATCH_SIZE = 500


class SingleFourierAccuracy(NamedTuple):
    """Accuracies under the Single Fourier Attack, as fractions.

    A pytree of arrays, so that it passes through jit and vmap.
    """

    accuracy: chex.Array  # (h, w) over all (l, m), or (F,) over a list of them
    mean: chex.Array  # over frequencies, "Avg." in the paper
    min: chex.Array  # over frequencies, "Min." in the paper
    max: chex.Array  # over frequencies
    worst: chex.Array  # (l, m) of the first minimum


@functools.partial(_logits.compiled_with, static_argnames=("batch_size", "top_k"))
def _accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    batch_size: int,
    top_k: int,
) -> chex.Array:
    count = counting.count_correct(
        logits_fn, counting.in_batches(x, y, batch_size), top_k
    )
    return counting.share(count, x.shape[0])


@functools.partial(
    _logits.compiled_with, static_argnames=("batch_size", "top_k", "scale")
)
def _single_fourier_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    eps: chex.Numeric,
    frequencies: chex.Array,
    bounds: tuple[chex.Numeric, chex.Numeric],
    *,
    batch_size: int,
    top_k: int,
    scale: str,
) -> chex.Array:
    batches = counting.in_batches(x, y, batch_size)
    shape = x.shape[1:3]

    def count(frequency: chex.Array) -> chex.Array:
        l, m = frequency
        pattern = eps * single_fourier.scaled_pattern(l, m, shape, scale)
        return counting.count_correct(
            lambda clean: logits_fn(single_fourier.add_pattern(clean, pattern, bounds)),
            batches,
            top_k,
        )

    return counting.share(jax.lax.map(count, frequencies), x.shape[0])


def _check_evaluation(
    logits_fn: Any,
    x: Any,
    y: Any,
    batch_size: Any,
    top_k: Any,
    bounds: tuple[Any, Any] | None = None,
) -> tuple[chex.Array, chex.Array]:
    _logits.check_logits_fn(logits_fn)
    validation.check_positive_int("batch_size", batch_size)
    validation.check_positive_int("top_k", top_k)
    x = validation.check_images(x, bounds, batched=True)
    y = validation.check_labels(y, x)
    _, batch = counting.batch_shape(x.shape[0], batch_size)
    classes = _logits.check_logits(logits_fn, x, batch)
    validation.check_label_range(y, classes)
    if top_k > classes:
        raise ValueError(
            f"`top_k` must be at most the number of classes, {classes}, got {top_k}."
        )
    return x, y


def accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    batch_size: int = _BATCH_SIZE,
    top_k: int = 1,
) -> chex.Array:
    """The share of images that a model classifies correctly.

    Args:
      logits_fn: a callable from images (batch, height, width, channels) to logits
        (batch, classes), in evaluation mode. As a pytree, such as
        `jax.tree_util.Partial(apply, params)` or a flax nnx module, it may change its
        values without recompilation; a plain function is compiled at each call.
      x: images (N, height, width, channels), floating-point.
      y: integer labels (N,).
      batch_size: the most images in one forward pass. The images are split into
        equal batches; padding of the last ones is masked.
      top_k: how many of the largest logits may hold the label. Ties go to the smaller
        class; an image with a NaN logit counts as wrong.

    Returns:
      A scalar in [0, 1].

    Raises:
      ValueError: if images and labels do not fit each other, images are integers,
        labels are out of range, logits are not (batch, classes), `batch_size` or
        `top_k` is out of range, or a module is seen to be in training mode.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> x = jnp.array([0.0, 0.2, 0.4, 0.9]).reshape(4, 1, 1, 1)
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0]], axis=-1)
      >>> print(absum_jax.accuracy(brighter, x, jnp.array([0, 0, 0, 1])))
      0.75
    """
    x, y = _check_evaluation(logits_fn, x, y, batch_size, top_k)
    return _accuracy(logits_fn, x, y, batch_size=batch_size, top_k=top_k)


def _check_frequencies(frequencies: Any, shape: tuple[int, int]) -> chex.Array:
    pairs = (
        frequencies if isinstance(frequencies, jax.Array) else np.asarray(frequencies)
    )
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not pairs.shape[0]:
        raise ValueError(
            "`frequencies` must be at least one (l, m) pair, of shape (F, 2), "
            f"got shape {pairs.shape}."
        )
    if not jnp.issubdtype(pairs.dtype, jnp.integer):
        raise ValueError(f"`frequencies` must be integers, got dtype {pairs.dtype}.")
    if validation.is_concrete(pairs):
        values = np.asarray(pairs)
        outside = ((values < 0) | (values >= np.asarray(shape))).any(axis=1)
        if outside.any():
            raise ValueError(
                f"`frequencies` must satisfy 0 <= l < {shape[0]}, 0 <= m < {shape[1]}, "
                f"got {tuple(values[outside][0].tolist())}."
            )
    return jnp.asarray(pairs)


def all_frequencies(shape: tuple[int, int]) -> np.ndarray:
    """All (l, m) of an image, of shape (height * width, 2), m running fastest."""
    return np.argwhere(np.ones(shape, bool))


def summarize_frequencies(
    accuracy: chex.Array, frequencies: chex.Array
) -> SingleFourierAccuracy:
    """The mean, minimum, maximum and worst frequency of accuracies under attack.

    Args:
      accuracy: accuracies, of any shape with F entries in all.
      frequencies: the (l, m) pairs (F, 2) that they belong to, in the same order.

    Returns:
      The :class:`SingleFourierAccuracy`.

    Raises:
      ValueError: if there is not one frequency for each accuracy.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> accuracy, frequencies = jnp.array([0.9, 0.2]), jnp.array([[0, 0], [1, 3]])
      >>> absum_jax.summarize_frequencies(accuracy, frequencies).worst
      Array([1, 3], dtype=int32)
    """
    accuracy, frequencies = jnp.asarray(accuracy), jnp.asarray(frequencies)
    if not accuracy.size or frequencies.shape != (accuracy.size, 2):
        raise ValueError(
            "`frequencies` must be one (l, m) pair for each of the entries of "
            f"`accuracy` of shape {accuracy.shape}, got shape {frequencies.shape}."
        )
    flat = jnp.ravel(accuracy)
    worst = frequencies[jnp.argmin(flat)]
    low, high = flat.min(), flat.max()
    # Rounding may put the mean of equal values beside them.
    mean = jnp.clip(flat.mean(), low, high)
    return SingleFourierAccuracy(accuracy, mean, low, high, worst)


def single_fourier_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    eps: chex.Numeric,
    *,
    frequencies: chex.Array | None = None,
    batch_size: int = _BATCH_SIZE,
    top_k: int = 1,
    scale: str = "linf",
    bounds: tuple[chex.Numeric, chex.Numeric] = (0.0, 1.0),
) -> SingleFourierAccuracy:
    """Accuracy under the Single Fourier Attack, for every frequency.

    One compiled program runs over all frequencies and batches, with the images on the
    device. New values of eps, of frequencies, or of the arrays in a pytree
    `logits_fn` recompile nothing. Under `vmap` over parameters the attacked images
    are made once for all models.

    Args:
      logits_fn: a callable from images to logits, as in :func:`accuracy`.
      x: images (N, height, width, channels), floating-point, within the bounds.
      y: integer labels (N,).
      eps: magnitude of the attack, non-negative, in units of the pixels.
      frequencies: integer pairs (F, 2) of (l, m); None is the whole grid.
      batch_size: the most images in one forward pass, as in :func:`accuracy`.
      top_k: how many of the largest logits may hold the label.
      scale: what eps measures, as in :func:`single_fourier_perturbation`.
      bounds: the range of pixel values, to which attacked images are clipped.

    Returns:
      Accuracies (height, width), or (F,) for a list of frequencies, with their mean,
      minimum, maximum and worst frequency.

    Raises:
      ValueError: for the reasons of :func:`accuracy` and
        :func:`single_fourier_attack`, or if `frequencies` are not integer pairs
        within the image.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> x = jnp.array([[0.2, 0.2], [0.9, 0.9]]).reshape(2, 1, 2, 1)
      >>> y = jnp.array([0, 1])
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], -1)
      >>> result = absum_jax.single_fourier_accuracy(brighter, x, y, 0.4)
      >>> print(result.accuracy, result.min)
      [[0.5 0.5]] 0.5

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, Table 1
    """
    bounds = validation.check_bounds(bounds)
    validation.check_nonnegative("eps", eps)
    validation.check_choice("scale", scale, single_fourier.SCALES)
    x, y = _check_evaluation(logits_fn, x, y, batch_size, top_k, bounds)
    shape = x.shape[1:3]
    pairs = (
        all_frequencies(shape)
        if frequencies is None
        else _check_frequencies(frequencies, shape)
    )
    accuracies = _single_fourier_accuracy(
        logits_fn, x, y, eps, pairs, bounds,
        batch_size=batch_size, top_k=top_k, scale=scale,
    )  # fmt: skip
    if frequencies is None:
        accuracies = accuracies.reshape(shape)
    return summarize_frequencies(accuracies, pairs)
