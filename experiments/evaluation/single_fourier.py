"""The Single Fourier Attack on many runs at once, resumable row by row."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from experiments.evaluation import clean
from experiments.evaluation.kept import Evaluation, Images, batch_size, kept
from experiments.models import Classifier
from experiments.training.runs import Run

# The magnitude on 28 x 28 images (P, "Experimental Conditions").
EPS = 80 / 255
# Of the signs of Fourier basis noise.
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Clean accuracy of a model and its accuracy under every frequency."""

    images: int
    clean: float
    classes_predicted: int  # of clean images; a model that says 1 is no model
    grid: np.ndarray  # (h, w), accuracy under frequency (l, m)

    @property
    def frequencies(self) -> absum_jax.SingleFourierAccuracy:
        """Mean, minimum, maximum and worst frequency."""
        pairs = np.argwhere(np.ones(self.grid.shape, bool))
        return absum_jax.summarize_frequencies(self.grid, pairs)


@functools.partial(jax.jit, static_argnames=("classifier", "scale", "batch"))
def _attacked(
    classifier: Classifier, params: Any, x: jax.Array, y: jax.Array,
    frequencies: jax.Array, *, eps: jax.Array, scale: str, batch: int,
) -> jax.Array:  # fmt: skip
    """Accuracies (models, F) of stacked models; attacked images are made once."""

    def one(params: Any) -> jax.Array:
        return absum_jax.single_fourier_accuracy(
            jax.tree_util.Partial(classifier.logits, params), x, y, eps,
            frequencies=frequencies, scale=scale, batch_size=batch,
        ).accuracy  # fmt: skip

    return jax.vmap(one)(params)


@functools.partial(jax.jit, static_argnames=("classifier", "batch"))
def _noisy(
    classifier: Classifier, params: Any, x: jax.Array, y: jax.Array,
    frequencies: jax.Array, *, norm: jax.Array, batch: int,
) -> jax.Array:  # fmt: skip
    """Accuracies (models, F) of stacked models; noisy images are made once."""

    def one(params: Any) -> jax.Array:
        return absum_jax.fourier_noise_accuracy(
            jax.tree_util.Partial(classifier.logits, params), x, y, norm,
            key=jax.random.key(_SEED), frequencies=frequencies, batch_size=batch,
        ).accuracy  # fmt: skip

    return jax.vmap(one)(params)


def _grids(
    images: Images,
    runs: Sequence[Run],
    evaluation: Evaluation,
    accuracies: Callable[..., jax.Array],
) -> np.ndarray:
    """Accuracies (runs, h, w) under every frequency, one row of them a call.

    Args:
      images: what is attacked.
      runs: trained models.
      evaluation: what is evaluated.
      accuracies: from classifier, stacked parameters, images, labels, frequencies
        (F, 2) and `batch` to accuracies (models, F).
    """
    height, width = images.split.images.shape[1:3]

    def compute(params: Any, x: jax.Array, y: jax.Array, l: int) -> list[list[float]]:
        batch = batch_size(jax.tree.leaves(params)[0].shape[0])
        row = jnp.stack([jnp.full(width, l), jnp.arange(width)], axis=1)
        values = accuracies(images.classifier, params, x, y, row, batch=batch)
        return np.asarray(values).tolist()

    rows = range(height)
    grids = kept(images, runs, evaluation, rows, compute, "row")
    return np.array([[grid[l] for l in rows] for grid in grids])


def evaluate(
    images: Images, runs: Sequence[Run], *, eps: float = EPS, scale: str = "linf"
) -> list[Robustness]:
    """Attacks trained models with every frequency.

    Args:
      images: what is attacked.
      runs: trained models.
      eps: magnitude of the attack, for pixels in [0, 1].
      scale: what eps measures.

    Returns:
      One result for each run.
    """
    evaluation = images.evaluation("single-fourier", eps=eps, scale=scale)
    attacked = functools.partial(_attacked, eps=jnp.asarray(eps), scale=scale)
    grids = _grids(images, runs, evaluation, attacked)
    return [
        Robustness(len(images.split), plain.accuracy, plain.classes_predicted, grid)
        for plain, grid in zip(clean.evaluate(images, runs), grids, strict=True)
    ]


def noise_grids(images: Images, runs: Sequence[Run], norm: float) -> np.ndarray:
    """Accuracies (runs, h, w) under Fourier basis noise of an L2 norm (Yin et al.)."""
    evaluation = images.evaluation("fourier-noise", norm=norm, seed=_SEED)
    noisy = functools.partial(_noisy, norm=jnp.asarray(norm))
    return _grids(images, runs, evaluation, noisy)
