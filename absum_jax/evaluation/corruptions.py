"""Accuracy on images with common corruptions."""

import chex

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.attacks import _descent as descent
from absum_jax.attacks import corruptions
from absum_jax.evaluation import counting
from absum_jax.evaluation.clean import BATCH_SIZE, check_evaluation


@_logits.compiled_with(static_argnames=("kind", "benchmark", "batch_size", "top_k"))
def _corrupted_fractions(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    severities: chex.Array,
    key: chex.PRNGKey,
    *,
    kind: str,
    benchmark: str,
    batch_size: int,
    top_k: counting.TopK,
) -> counting.Counts:
    batches = counting.in_batches(x, y, batch_size)

    def at(severity: chex.Array) -> counting.Counts:
        def corrupted(batch: counting.Batches) -> tuple[chex.Array, None]:
            keys = descent.keys_of(key, batch.index)
            images = corruptions.corrupted(
                batch.x, severity, keys, kind=kind, benchmark=benchmark
            )
            return images, None

        return counting.count(logits_fn, corrupted, batches, top_k)[0]

    counts = counting.at_each(at, severities)
    return counting.fractions(counts, x.shape[0])


def corruption_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    kind: str,
    severity: chex.Numeric = (1, 2, 3, 4, 5),
    *,
    key: chex.PRNGKey,
    benchmark: str = "cifar10-c",
    batch_size: int = BATCH_SIZE,
    top_k: counting.TopK = 1,
) -> counting.AttackAccuracy:
    """Computes accuracy on corrupted images, for a list of severities.

    One compiled program corrupts the images like :func:`corrupt`, batch by batch. They
    do not depend on the batch size. As explained there, they have the distribution of
    the published arrays of CIFAR-10-C and MNIST-C, but are not these.

    Args:
      logits_fn: a callable from images to logits, as in :func:`accuracy`.
      x: images (N, height, width, channels), floating-point, in [0, 1].
      y: integer labels (N,).
      kind: of the corruption, as in :func:`corrupt`.
      severity: 1 to 5: a scalar or a list (S,), all in one compiled call.
      key: random key of the noise, from `jax.random.key`.
      benchmark: whose severities, as in :func:`corrupt`: `"cifar10-c"` or `"mnist-c"`.
      batch_size: the maximum number of images in one pass, as in :func:`accuracy`.
      top_k: how many of the largest logits may contain the label, or a tuple of K such
        numbers, as in :func:`accuracy`.

    Returns:
      Accuracies of the shape of the severities, after an axis (K,) for a tuple `top_k`,
      and the fraction of images with a NaN logit. The mean over kinds and severities is
      the mean corruption accuracy of the benchmarks.

    Raises:
      ValueError: for the reasons of :func:`corrupt` and :func:`accuracy`, or if the
        list of severities is empty.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> x = jnp.array([0.25, 0.52]).reshape(2, 1, 1, 1)
      >>> brighter = lambda x: jnp.stack([0.7 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.7], -1)
      >>> result = absum_jax.corruption_accuracy(
      ...     brighter, x, jnp.array([0, 0]), "brightness", key=jax.random.key(0)
      ... )
      >>> print(result.accuracy)
      [1.  1.  1.  0.5 0.5]

    References:
      Hendrycks and Dietterich, `Benchmarking Neural Network Robustness to Common
      Corruptions and Perturbations <https://arxiv.org/abs/1903.12261>`_, 2019; Mu and
      Gilmer, `MNIST-C: A Robustness Benchmark for Computer Vision
      <https://arxiv.org/abs/1906.02337>`_, 2019
    """
    corruptions.check_kind(kind, benchmark)
    severities = corruptions.check_severity(severity, several=True)
    validation.check_keys(key)
    x, y = check_evaluation(logits_fn, x, y, batch_size, top_k, (0.0, 1.0))
    fractions = _corrupted_fractions(
        logits_fn, x, y, severities, key,
        kind=kind, benchmark=benchmark, batch_size=batch_size, top_k=top_k,
    )  # fmt: skip
    return counting.AttackAccuracy(severities, *fractions)
