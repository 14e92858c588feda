"""Accuracy of trained models on corrupted images, all severities of a kind a point."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import absum_jax
from absum_jax.attacks.corruptions import MOST_SEVERE, SEVERITIES
from experiments.evaluation import evaluator
from experiments.evaluation.attack import (
    SEED,
    Attack,
    Models,
    on_stacked_models,
    register,
)
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.training.runs import Run

LEVELS = tuple(range(1, MOST_SEVERE + 1))


@on_stacked_models
def _corrupted(
    logits_fn: Any, x: jax.Array, y: jax.Array, *, kind: str, benchmark: str, batch: int
) -> jax.Array:
    return absum_jax.corruption_accuracy(
        logits_fn, x, y, kind, LEVELS, key=jax.random.key(SEED), benchmark=benchmark,
        batch_size=batch,
    ).accuracy  # fmt: skip


# Not streamable: the noise of an image depends on its index among all.
@register("corruption")
def _corruption(images: EvaluationSet, benchmark: str) -> Attack:
    def measure(models: Models, kind: str) -> jax.Array:
        return models.apply(_corrupted, kind=kind, benchmark=benchmark)

    conditions = {"benchmark": benchmark, "seed": SEED}
    return Attack("kind", kinds_of(benchmark), measure, conditions)


def benchmark_of(shape: Sequence[int]) -> str:
    """Returns the benchmark whose severities are for images (..., channels)."""
    return "mnist-c" if shape[-1] == 1 else "cifar10-c"


def kinds_of(benchmark: str) -> list[str]:
    """Lists the kinds of corruption with the severities of a benchmark."""
    return list(SEVERITIES[benchmark])


def evaluate(images: EvaluationSet, runs: Sequence[Run], benchmark: str) -> np.ndarray:
    """Computes accuracies (runs, kinds, severities 1 to 5) on corrupted images."""
    return np.array(evaluator.run("corruption", images, runs, benchmark=benchmark))
