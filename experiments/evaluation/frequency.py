"""Accuracy of trained models on low- and high-pass filtered images."""

import functools
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


@on_stacked_models
def _filtered(
    logits_fn: Any, x: jax.Array, y: jax.Array, radius: jax.Array, low: bool, *,
    batch: int,
) -> jax.Array:  # fmt: skip
    return filtered_accuracy(logits_fn, x, y, radius, low, batch, 1).accuracy


def _filter(is_low: bool, images: EvaluationSet, radii: Sequence[float]) -> Attack:
    def measure(models: Models, radius: float) -> jax.Array:
        return models.apply(_filtered, jnp.asarray(radius), is_low)

    return Attack("filter", radii, measure, is_streamable=True)


register("low-pass")(functools.partial(_filter, True))
register("high-pass")(functools.partial(_filter, False))


def evaluate(
    images: EvaluationSet, runs: Sequence[Run], kind: Literal["low-pass", "high-pass"],
    radii: Sequence[float],
) -> np.ndarray:  # fmt: skip
    """Computes accuracies (runs, radii) on filtered images.

    Low ends and high begins at a radius, in cycles per image.
    """
    return np.array(evaluator.run(kind, images, runs, radii=radii))


def radii_of(shape: Sequence[int]) -> tuple[float, ...]:
    """Returns whole radii up to the spectrum's corner, and a quarter of the width."""
    height, width = shape[:2]
    corner = int(np.ceil(np.hypot(height, width) / 2))
    return tuple(sorted({*map(float, range(corner + 1)), width / 4}))
