"""The Single Fourier Attack and Fourier basis noise, a row of frequencies a point."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from experiments.evaluation import clean, evaluator
from experiments.evaluation.attack import (
    SEED,
    Attack,
    Models,
    on_stacked_models,
    register,
)
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.published import SINGLE_FOURIER_FREQUENCIES
from experiments.training.runs import Run

# How eps measures the pattern: by its largest value.
_SCALE = "linf"


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Clean accuracy of a model and its accuracy under every frequency."""

    images: int
    clean: float
    classes_predicted: int  # for clean images; one class makes a model degenerate
    grid: np.ndarray  # accuracies under frequencies (l, m)
    stride: int = 1  # of l and m in the grid
    top5: "Robustness | None" = None  # top-5 accuracies, if images are streamed

    @property
    def frequencies(self) -> absum_jax.SingleFourierAccuracy:
        """Returns mean, minimum, maximum and the worst frequency."""
        pairs = self.stride * np.argwhere(np.ones(self.grid.shape, bool))
        return absum_jax.summarize_frequencies(self.grid, pairs)


@on_stacked_models
def attacked_accuracies(
    logits_fn: Any, x: jax.Array, y: jax.Array, frequencies: jax.Array,
    eps: jax.Array, *, batch: int, top_k: int | tuple[int, ...] = 1,
) -> jax.Array:  # fmt: skip
    """Computes accuracies (models, F) of stacked models, (models, K, F) for K `top_k`.

    Images are attacked once for all models.
    """
    return absum_jax.single_fourier_accuracy(
        logits_fn, x, y, eps, frequencies=frequencies, scale=_SCALE, batch_size=batch,
        top_k=top_k,
    ).accuracy  # fmt: skip


@on_stacked_models
def _noisy(
    logits_fn: Any, x: jax.Array, y: jax.Array, frequencies: jax.Array,
    norm: jax.Array, *, batch: int,
) -> jax.Array:  # fmt: skip
    return absum_jax.fourier_noise_accuracy(
        logits_fn, x, y, norm, key=jax.random.key(SEED), frequencies=frequencies,
        batch_size=batch,
    ).accuracy  # fmt: skip


def _attack(
    rows: range, columns: range, conditions: Mapping[str, Any],
    accuracies: Callable[[Models, jax.Array], jax.Array], *, is_streamable: bool,
) -> Attack:  # fmt: skip
    """Makes an attack with each frequency (l, m): those of one l are a point.

    Frequencies are (F, 2), and accuracies (models, F), or (models, K, F) for K `top_k`.
    """
    m = jnp.asarray(columns)

    def measure(models: Models, l: int) -> jax.Array:
        return accuracies(models, jnp.stack([jnp.full_like(m, l), m], axis=1))

    return Attack("row", rows, measure, conditions, is_streamable=is_streamable)


@register("single-fourier")
def _single_fourier(images: EvaluationSet, eps: float, stride: int) -> Attack:
    sizes = images.split.image_shape[:2]
    ends = [min(size, SINGLE_FOURIER_FREQUENCIES) for size in sizes]
    conditions: dict[str, Any] = {"eps": eps, "scale": _SCALE, "stride": stride}
    if ends != [*sizes]:
        conditions["frequencies_below"] = ends
    rows, columns = (range(0, end, stride) for end in ends)

    def accuracies(models: Models, row: jax.Array) -> jax.Array:
        return models.apply(
            attacked_accuracies, row, jnp.asarray(eps), top_k=images.top_k
        )

    return _attack(rows, columns, conditions, accuracies, is_streamable=True)


# Not streamable: the random signs of an image depend on its index among all.
@register("fourier-noise")
def _fourier_noise(images: EvaluationSet, norm: float) -> Attack:
    height, width = images.split.image_shape[:2]
    return _attack(
        range(height), range(width), {"norm": norm, "seed": SEED},
        lambda models, row: models.apply(_noisy, row, jnp.asarray(norm)),
        is_streamable=False,
    )  # fmt: skip


def evaluate(
    images: EvaluationSet, runs: Sequence[Run], eps: float, *, stride: int = 1
) -> list[Robustness]:
    """Attacks trained models with every frequency of the paper.

    Those are all frequencies of images of up to 32 x 32, and l and m up to 31 of
    larger ones, or every `stride`-th l and m.
    """
    values = evaluator.run("single-fourier", images, runs, eps=eps, stride=stride)
    # From (runs, rows, K, columns) where there are K `top_k`.
    grids = np.moveaxis(np.array(values), 1, -2)
    results = []
    for of_clean, grid in zip(clean.evaluate(images, runs), grids, strict=True):
        make = functools.partial(
            Robustness, images=len(images.split),
            classes_predicted=of_clean.classes_predicted, stride=stride,
        )  # fmt: skip
        if of_clean.top5 is None:
            results.append(make(clean=of_clean.accuracy, grid=grid))
        else:
            top5 = make(clean=of_clean.top5, grid=grid[1])
            results.append(make(clean=of_clean.accuracy, grid=grid[0], top5=top5))
    return results


def noise_grids(images: EvaluationSet, runs: Sequence[Run], norm: float) -> np.ndarray:
    """Computes accuracies (runs, h, w) under Fourier basis noise of an L2 norm."""
    return np.array(evaluator.run("fourier-noise", images, runs, norm=norm))
