"""Accuracy of trained models on images without some of their frequencies."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from absum_jax.evaluation.frequency import filtered_accuracy
from experiments.evaluation import evaluator
from experiments.evaluation.attack import Attack, Models, on_stacked_models, register
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.training.runs import Run

# Frequencies at radii d with r1 < d <= r2, in cycles per image.
Band = tuple[float, float]


@on_stacked_models
def _filtered(
    logits_fn: Any, x: jax.Array, y: jax.Array, inner: jax.Array, outer: jax.Array,
    inside: bool, *, batch: int,
) -> jax.Array:  # fmt: skip
    return filtered_accuracy(
        logits_fn, x, y, outer, inside, batch, 1, inner=inner
    ).accuracy


def _filter(is_low: bool, images: EvaluationSet, radii: Sequence[float]) -> Attack:
    def measure(models: Models, radius: float) -> jax.Array:
        ring = jnp.asarray(-np.inf), jnp.asarray(radius)
        return models.apply(_filtered, *ring, is_low)

    return Attack("filter", radii, measure, is_streamable=True)


def _band_filter(passes: bool, images: EvaluationSet, bands: Sequence[Band]) -> Attack:
    by_name = {f"{low:g}-{high:g}": (low, high) for low, high in bands}

    def measure(models: Models, name: str) -> jax.Array:
        return models.apply(_filtered, *map(jnp.asarray, by_name[name]), passes)

    return Attack("band", list(by_name), measure, is_streamable=True)


register("low-pass")(functools.partial(_filter, True))
register("high-pass")(functools.partial(_filter, False))
register("band-pass")(functools.partial(_band_filter, True))
register("band-stop")(functools.partial(_band_filter, False))


def evaluate(
    images: EvaluationSet, runs: Sequence[Run], kind: Literal["low-pass", "high-pass"],
    radii: Sequence[float],
) -> np.ndarray:  # fmt: skip
    """Computes accuracies (runs, radii) on filtered images.

    Low ends and high begins at a radius, in cycles per image.
    """
    return np.array(evaluator.run(kind, images, runs, radii=radii))


def evaluate_bands(
    images: EvaluationSet, runs: Sequence[Run],
    kind: Literal["band-pass", "band-stop"], bands: Sequence[Band],
) -> np.ndarray:  # fmt: skip
    """Computes accuracies (runs, bands) on images of one band, or without it."""
    return np.array(evaluator.run(kind, images, runs, bands=bands))


def radii_of(shape: Sequence[int]) -> tuple[float, ...]:
    """Returns whole radii up to the spectrum's corner, and a quarter of the width."""
    height, width = shape[:2]
    corner = int(np.ceil(np.hypot(height, width) / 2))
    return tuple(sorted({*map(float, range(corner + 1)), width / 4}))


def bands_of(shape: Sequence[int]) -> tuple[Band, ...]:
    """Returns bands that each begin at twice the radius of the one before.

    They end at an eighth, a quarter and half of the width, and at the spectrum's
    corner. Together they have all frequencies but zero, the mean.
    """
    width, corner = shape[1], radii_of(shape)[-1]
    return tuple(itertools.pairwise((0.0, width / 8, width / 4, width / 2, corner)))
