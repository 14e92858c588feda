"""Accuracy on clean images, and the checks of arguments that all evaluations share."""

from typing import Any

import chex

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.evaluation import counting

BATCH_SIZE = 500


@_logits.compiled_with(static_argnames=("batch_size", "top_k"))
def clean_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    batch_size: int,
    top_k: counting.TopK,
) -> counting.Counts:
    """Computes the fractions of correct images and of NaN logits, unchecked."""
    batches = counting.in_batches(x, y, batch_size)
    counts, _ = counting.count(logits_fn, counting.unchanged, batches, top_k)
    return counting.fractions(counts, x.shape[0])


def check_evaluation(
    logits_fn: Any,
    x: Any,
    y: Any,
    batch_size: Any,
    top_k: Any,
    bounds: tuple[Any, Any] | None = None,
    *,
    name: str = "logits_fn",
) -> tuple[chex.Array, chex.Array]:
    """Checks images and labels against each other, the model and the options.

    Args:
      logits_fn: the model.
      x: images.
      y: labels.
      batch_size: as in :func:`accuracy`.
      top_k: as in :func:`accuracy`.
      bounds: the range of pixel values; None does not check it.
      name: the name of the argument `logits_fn` in messages.

    Returns:
      The images and the labels.
    """
    _logits.check_logits_fn(logits_fn, name)
    validation.check_positive_int("batch_size", batch_size)
    largest = validation.check_positive_ints("top_k", top_k)
    x = validation.check_images(x, bounds, batched=True)
    y = validation.check_labels(y, x)
    _, batch = counting.batch_shape(x.shape[0], batch_size)
    classes = _logits.check_logits(logits_fn, x, batch, name)
    validation.check_label_range(y, classes, f"`{name}` returns {classes} logits")
    if largest > classes:
        raise ValueError(
            f"`top_k` must be at most the number of classes, {classes}, got {top_k}."
        )
    return x, y


def accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    batch_size: int = BATCH_SIZE,
    top_k: counting.TopK = 1,
) -> chex.Array:
    """Computes the fraction of images that a model classifies correctly.

    Args:
      logits_fn: a callable from images (batch, height, width, channels) to logits
        (batch, classes), in evaluation mode. For a pytree, such as
        `jax.tree_util.Partial(apply, params)` or a flax nnx module, new parameter
        values do not trigger recompilation; a plain function is compiled at each call.
        Changes of other variables that the function of a `Partial` reads are not
        noticed: what changes must be an argument of the `Partial`.
      x: images (N, height, width, channels), floating-point.
      y: integer labels (N,).
      batch_size: the maximum number of images in one forward pass. The images are split
        into equal batches; padding of the last ones is masked.
      top_k: how many of the largest logits may contain the label, or a tuple of K such
        numbers, which are evaluated in one pass over the images. Ties go to the smaller
        class; an image with a NaN logit counts as wrong.

    Returns:
      A scalar in [0, 1], or (K,) for a tuple `top_k`.

    Raises:
      ValueError: if images and labels do not fit each other, images are integers or
        not finite, labels are out of range, logits are not (batch, classes),
        `batch_size` or `top_k` is out of range, `logits_fn` cannot be traced, or it
        contains a module whose flags indicate training mode.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> x = jnp.array([0.0, 0.2, 0.4, 0.9]).reshape(4, 1, 1, 1)
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0]], axis=-1)
      >>> y = jnp.array([0, 0, 0, 1])
      >>> print(absum_jax.accuracy(brighter, x, y))
      0.75
      >>> print(absum_jax.accuracy(brighter, x, y, top_k=(1, 2)))
      [0.75 1.  ]
    """
    x, y = check_evaluation(logits_fn, x, y, batch_size, top_k)
    fractions = clean_accuracy(logits_fn, x, y, batch_size=batch_size, top_k=top_k)
    return fractions.correct
