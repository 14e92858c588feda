"""Accuracy under perturbations of single frequencies."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.attacks import single_fourier
from absum_jax.evaluation import counting
from absum_jax.evaluation.clean import BATCH_SIZE, check_evaluation
from absum_jax.evaluation.progress import Progress, check_progress, evaluated
from absum_jax.evaluation.summary import SingleFourierAccuracy, summarize_frequencies


@_logits.compiled_with(static_argnames=("batch_size", "top_k", "scale"))
def _accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    eps: chex.Numeric,
    key: chex.PRNGKey | None,
    frequencies: chex.Array,
    bounds: tuple[chex.Numeric, chex.Numeric],
    *,
    batch_size: int,
    top_k: counting.TopK,
    scale: str,
) -> counting.Counts:
    """Computes fractions (F,) or (K, F); a key adds a sign per image and channel."""
    batches = counting.in_batches(x, y, batch_size)
    shape, channels = x.shape[1:3], x.shape[3]

    def count(frequency: chex.Array) -> counting.Counts:
        l, m = frequency

        def attacked(batch: counting.Batches) -> tuple[chex.Array, None]:
            pattern = single_fourier.scaled_pattern(l, m, shape, eps, scale)
            patterns = pattern[..., None]
            if key is not None:
                own = jax.random.fold_in(key, l * shape[1] + m)

                def signs(index: chex.Array) -> chex.Array:
                    image_key = jax.random.fold_in(own, index)
                    return jax.random.rademacher(image_key, (channels,), pattern.dtype)

                patterns = patterns[None] * jax.vmap(signs)(batch.index)[:, None, None]
            return single_fourier.add_pattern(batch.x, patterns, bounds), None

        return counting.count(logits_fn, attacked, batches, top_k)[0]

    return counting.fractions(jax.lax.map(count, frequencies), x.shape[0])


def check_frequencies(frequencies: Any, shape: tuple[int, int]) -> chex.Array:
    """Returns pairs (F, 2) of (l, m); refuses those beyond an image's frequencies."""
    pairs = validation.as_array("frequencies", frequencies)
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
    # A narrow type could overflow: products of frequencies determine signs of noise.
    return jnp.asarray(pairs, jnp.int32)


def all_frequencies(shape: tuple[int, int]) -> np.ndarray:
    """Lists all (l, m) of an image, (height * width, 2), with m varying fastest."""
    return np.argwhere(np.ones(shape, bool))


def _row_by_row(
    evaluate: Callable[[chex.Array], counting.Counts], pairs: chex.Array, width: int,
    progress: Progress,
) -> counting.Counts:  # fmt: skip
    """Evaluates frequencies in equal parts of up to a row of the grid.

    One compiled program serves all parts, the last of which may be filled up.
    """

    def check(value: Any) -> None:
        if isinstance(value, jax.core.Tracer):
            raise ValueError(
                "`progress` must be None where values are traced, as under jit or vmap."
            )

    check(pairs)
    parts, size = counting.batch_shape(len(pairs), width)
    filled = np.resize(pairs, (parts, size, 2))

    def of_part(part: int) -> counting.Counts:
        fractions = evaluate(filled[part])
        check(fractions.correct)
        return fractions

    every = evaluated(range(parts), of_part, progress)
    return jax.tree.map(
        lambda *of_parts: jnp.concatenate(of_parts, -1)[..., : len(pairs)], *every
    )


def _checked_accuracy(
    logits_fn: _logits.LogitsFn, x: chex.Array, y: chex.Array, eps: chex.Numeric,
    key: chex.PRNGKey | None, frequencies: Any, bounds: tuple[Any, Any],
    batch_size: int, top_k: counting.TopK, scale: str, progress: Progress | None,
) -> SingleFourierAccuracy:  # fmt: skip
    """Checks the arguments that both evaluations share, and evaluates the model."""
    check_progress(progress)
    bounds = validation.check_bounds(bounds)
    x, y = check_evaluation(logits_fn, x, y, batch_size, top_k, bounds)
    shape = x.shape[1:3]
    pairs = (
        all_frequencies(shape)
        if frequencies is None
        else check_frequencies(frequencies, shape)
    )
    bound = _accuracy.bind(logits_fn)  # type: ignore[attr-defined]

    def evaluate(pairs: chex.Array) -> counting.Counts:
        return bound(
            x, y, eps, key, pairs, bounds,
            batch_size=batch_size, top_k=top_k, scale=scale,
        )  # fmt: skip

    if progress is None:
        fractions = evaluate(pairs)
    else:
        fractions = _row_by_row(evaluate, pairs, shape[1], progress)
    accuracy, nan_logits = (
        part.reshape(*part.shape[:-1], *shape) if frequencies is None else part
        for part in fractions
    )
    summarize = summarize_frequencies
    if accuracy.ndim > nan_logits.ndim:
        summarize = jax.vmap(summarize_frequencies, (0, None))
    return summarize(accuracy, pairs)._replace(nan_logits=nan_logits)


def single_fourier_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    eps: chex.Numeric,
    *,
    frequencies: chex.Array | None = None,
    batch_size: int = BATCH_SIZE,
    top_k: counting.TopK = 1,
    scale: str = "linf",
    bounds: tuple[chex.Numeric, chex.Numeric] = (0.0, 1.0),
    progress: Progress | None = None,
) -> SingleFourierAccuracy:
    """Computes accuracy under the Single Fourier Attack, for every frequency.

    One compiled program loops over all frequencies and batches, with the images on the
    device. New values of eps, of frequencies, or of the arrays in a pytree `logits_fn`
    do not trigger recompilation. Under `vmap` over parameters, the attacked images are
    computed once for all models.

    Args:
      logits_fn: a callable from images to logits, as in :func:`accuracy`.
      x: images (N, height, width, channels), floating-point, within the bounds.
      y: integer labels (N,).
      eps: magnitude of the attack, non-negative, in units of the pixels.
      frequencies: integer pairs (F, 2) of (l, m); None is the whole grid.
      batch_size: the maximum number of images in one pass, as in :func:`accuracy`.
      top_k: how many of the largest logits may contain the label, or a tuple of K such
        numbers, as in :func:`accuracy`.
      scale: what eps measures, as in :func:`single_fourier_perturbation`.
      bounds: the range of pixel values, to which attacked images are clipped.
      progress: shows progress, such as `tqdm.tqdm`: a function from a sequence, here of
        rows of frequencies, to an iterable of its items. The same accuracies are then
        computed row by row, outside of jit and vmap. None shows nothing.

    Returns:
      Accuracies (height, width), or (F,) for a list of frequencies, with their mean,
      minimum, maximum and worst frequency, each after an axis (K,) for a tuple `top_k`;
      and the fractions of images with a NaN logit.

    Raises:
      ValueError: for the reasons of :func:`accuracy` and
        :func:`single_fourier_attack`, or if `frequencies` are not integer pairs
        within the image, or `progress` is not None where values are traced.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> x = jnp.array([[0.2, 0.2], [0.9, 0.9]]).reshape(2, 1, 2, 1)
      >>> y = jnp.array([0, 1])
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], -1)
      >>> result = absum_jax.single_fourier_accuracy(brighter, x, y, 0.4)
      >>> print(result.accuracy, result.min)
      [[0.5 0.5]] 0.5
      >>> import tqdm
      >>> absum_jax.single_fourier_accuracy(brighter, x, y, 0.4, progress=tqdm.tqdm)
      SingleFourierAccuracy(shape=[1, 2], mean=0.5, min=0.5, max=0.5, worst=[0, 0])

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, Table 1
    """
    eps = validation.check_nonnegative("eps", eps, finite=True)
    validation.check_choice("scale", scale, single_fourier.SCALES)
    return _checked_accuracy(
        logits_fn, x, y, eps, None, frequencies, bounds, batch_size, top_k, scale,
        progress,
    )  # fmt: skip


def fourier_noise_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    norm: chex.Numeric,
    *,
    key: chex.PRNGKey,
    frequencies: chex.Array | None = None,
    batch_size: int = BATCH_SIZE,
    top_k: counting.TopK = 1,
    bounds: tuple[chex.Numeric, chex.Numeric] = (0.0, 1.0),
    progress: Progress | None = None,
) -> SingleFourierAccuracy:
    r"""Computes accuracy under Fourier basis noise: the heat map of Yin et al.

    .. math::
      \hat x = \operatorname{clip}(x + r\, v\, U_{lm}), \qquad \|U_{lm}\|_2 = 1

    with the pattern U of :func:`single_fourier_perturbation` at `scale="l2"` and a
    random sign r in {-1, 1} for each image, channel and frequency. The heat map of
    error rates is one minus the result.

    Args:
      logits_fn: a callable from images to logits, as in :func:`accuracy`.
      x: images (N, height, width, channels), floating-point, within the bounds.
      y: integer labels (N,).
      norm: v, the L2 norm of the noise of a channel, non-negative. Yin et al. use 4
        for images of 32 x 32 (15.7 for 224 x 224).
      key: random key of the signs, from `jax.random.key`. The signs do not depend on
        the batch size.
      frequencies: integer pairs (F, 2) of (l, m); None is the whole grid.
      batch_size: the maximum number of images in one pass, as in :func:`accuracy`.
      top_k: how many of the largest logits may contain the label, or a tuple of K such
        numbers, as in :func:`accuracy`.
      bounds: the range of pixel values, to which noisy images are clipped.
      progress: shows progress, as in :func:`single_fourier_accuracy`.

    Returns:
      Accuracies (height, width), or (F,) for a list of frequencies, with their mean,
      minimum, maximum and worst frequency, each after an axis (K,) for a tuple `top_k`;
      and the fractions of images with a NaN logit.

    Raises:
      ValueError: for the reasons of :func:`single_fourier_accuracy`, or if `norm` is
        negative or infinite, or `key` is not a key.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> x = jnp.full((8, 2, 2, 1), 0.5)
      >>> y = jnp.ones(8, int)
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], -1)
      >>> result = absum_jax.fourier_noise_accuracy(
      ...     brighter, x, y, 0.5, key=jax.random.key(0)
      ... )
      >>> result.accuracy.shape  # about half of the signs make the pixel brighter
      (2, 2)

    References:
      Yin et al., `A Fourier Perspective on Model Robustness
      <https://arxiv.org/abs/1906.08988>`_, 2019
    """
    norm = validation.check_nonnegative("norm", norm, finite=True)
    validation.check_keys(key)
    return _checked_accuracy(
        logits_fn, x, y, norm, key, frequencies, bounds, batch_size, top_k, "l2",
        progress,
    )  # fmt: skip
