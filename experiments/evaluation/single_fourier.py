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
from experiments.evaluation.clean import Clean
from experiments.evaluation.kept import EvaluationSet
from experiments.evaluation.points import Evaluation
from experiments.evaluation.shares import kept_shares
from experiments.models import Classifier
from experiments.models.stacked import over_models
from experiments.published import SINGLE_FOURIER_FREQUENCIES
from experiments.training import devices
from experiments.training.runs import Run

# Of the signs of Fourier basis noise.
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Clean accuracy of a model and its accuracy under every frequency."""

    images: int
    clean: float
    classes_predicted: int  # of clean images; a model that says 1 is no model
    grid: np.ndarray  # accuracies under frequencies (l, m)
    stride: int = 1  # of l and m in the grid
    top5: "Robustness | None" = None  # of the five largest logits, if streamed

    @property
    def frequencies(self) -> absum_jax.SingleFourierAccuracy:
        """Mean, minimum, maximum and worst frequency."""
        pairs = self.stride * np.argwhere(np.ones(self.grid.shape, bool))
        return absum_jax.summarize_frequencies(self.grid, pairs)


@functools.partial(jax.jit, static_argnames=("classifier", "scale", "batch", "top_k"))
def attacked_accuracies(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    frequencies: jax.Array, *, eps: jax.Array, scale: str, batch: int,
    top_k: int | tuple[int, ...] = 1,
) -> jax.Array:  # fmt: skip
    """Accuracies (models, F) of stacked models; attacked images are made once.

    For K numbers of largest logits (models, K, F).
    """

    def one(variables: Any) -> jax.Array:
        return absum_jax.single_fourier_accuracy(
            jax.tree_util.Partial(classifier.logits, variables), x, y, eps,
            frequencies=frequencies, scale=scale, batch_size=batch, top_k=top_k,
        ).accuracy  # fmt: skip

    return over_models(one, (0,))(variables)


@functools.partial(jax.jit, static_argnames=("classifier", "batch"))
def _noisy(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    frequencies: jax.Array, *, norm: jax.Array, batch: int,
) -> jax.Array:  # fmt: skip
    """Accuracies (models, F) of stacked models; noisy images are made once."""

    def one(variables: Any) -> jax.Array:
        return absum_jax.fourier_noise_accuracy(
            jax.tree_util.Partial(classifier.logits, variables), x, y, norm,
            key=jax.random.key(_SEED), frequencies=frequencies, batch_size=batch,
        ).accuracy  # fmt: skip

    return over_models(one, (0,))(variables)


def _grids(
    images: EvaluationSet,
    runs: Sequence[Run],
    evaluation: Evaluation,
    accuracies: Callable[..., jax.Array],
    rows: range,
    columns: range,
) -> np.ndarray:
    """Accuracies (runs, rows, columns) under frequencies, one row of them a call.

    For K numbers of largest logits (runs, K, rows, columns).

    Args:
      images: what is attacked.
      runs: trained models.
      evaluation: what is evaluated.
      accuracies: from classifier, stacked parameters, images, labels, frequencies
        (F, 2) and `batch` to accuracies (models, F) or (models, K, F).
      rows: every l.
      columns: every m.
    """
    m = jnp.asarray(columns)

    def compute(variables: Any, x: jax.Array, y: jax.Array, l: int) -> list[Any]:
        batch = images.batch_size(jax.tree.leaves(variables)[0].shape[0])
        row = jnp.stack([jnp.full_like(m, l), m], axis=1)
        values = accuracies(images.classifier, variables, x, y, row, batch=batch)
        return devices.to_numpy(values).tolist()

    grids = kept_shares(images, runs, evaluation, rows, compute, "row")
    return np.moveaxis(np.array([[grid[l] for l in rows] for grid in grids]), 1, -2)


def _robustness(images: int, plain: Clean, grid: np.ndarray, stride: int) -> Robustness:
    """From a grid, or the two of the largest and of the five largest logits."""

    def of(
        clean: float, grid: np.ndarray, top5: Robustness | None = None
    ) -> Robustness:
        return Robustness(images, clean, plain.classes_predicted, grid, stride, top5)

    if plain.top5 is None:
        return of(plain.accuracy, grid)
    return of(plain.accuracy, grid[0], of(plain.top5, grid[1]))


def evaluate(
    images: EvaluationSet, runs: Sequence[Run], eps: float, *, scale: str = "linf",
    stride: int = 1,
) -> list[Robustness]:  # fmt: skip
    """Attacks trained models with every frequency of the paper.

    Those are all of images of up to 32 x 32, and of larger ones l and m up to 31.

    Args:
      images: what is attacked.
      runs: trained models.
      eps: magnitude of the attack, for pixels in [0, 1].
      scale: what eps measures.
      stride: every how many-th l and m is a frequency.

    Returns:
      One result for each run.
    """
    sizes = images.split.image_shape[:2]
    ends = [min(size, SINGLE_FOURIER_FREQUENCIES) for size in sizes]
    conditions: dict[str, Any] = {"eps": eps, "scale": scale, "stride": stride}
    if tuple(ends) != tuple(sizes):
        conditions["frequencies_below"] = ends
    evaluation = images.evaluation("single-fourier", **conditions)
    attacked = functools.partial(
        attacked_accuracies, eps=jnp.asarray(eps), scale=scale, top_k=images.top_k
    )
    rows, columns = (range(0, end, stride) for end in ends)
    grids = _grids(images, runs, evaluation, attacked, rows, columns)
    return [
        _robustness(len(images.split), plain, grid, stride)
        for plain, grid in zip(clean.evaluate(images, runs), grids, strict=True)
    ]


def noise_grids(images: EvaluationSet, runs: Sequence[Run], norm: float) -> np.ndarray:
    """Accuracies (runs, h, w) under Fourier basis noise of an L2 norm (Yin et al.)."""
    evaluation = images.evaluation("fourier-noise", norm=norm, seed=_SEED)
    noisy = functools.partial(_noisy, norm=jnp.asarray(norm))
    height, width = images.split.image_shape[:2]
    return _grids(images, runs, evaluation, noisy, range(height), range(width))
