"""Low- and high-pass filtered images, shown to trained runs."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from absum_jax.evaluation.frequency import filtered_accuracy
from experiments.evaluation.kept import EvaluationSet
from experiments.evaluation.shares import kept_shares
from experiments.models import Classifier
from experiments.models.stacked import over_models
from experiments.training import devices
from experiments.training.runs import Run

Kind = Literal["low-pass", "high-pass"]


@functools.partial(jax.jit, static_argnames=("classifier", "batch"))
def _filtered(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    radius: jax.Array, low: bool, *, batch: int,
) -> jax.Array:  # fmt: skip
    """Accuracies (models,) of stacked models; images are filtered once."""

    def one(variables: Any) -> jax.Array:
        logits_fn = jax.tree_util.Partial(classifier.logits, variables)
        return filtered_accuracy(logits_fn, x, y, radius, low, batch, 1).accuracy

    return over_models(one, (0,))(variables)


def evaluate(
    images: EvaluationSet, runs: Sequence[Run], kind: Kind, radii: Sequence[float]
) -> np.ndarray:
    """Accuracies (runs, radii) on filtered images.

    Args:
      images: what is filtered.
      runs: trained models.
      kind: which frequencies pass.
      radii: where low ends and high begins, in cycles per image.
    """

    def compute(
        variables: Any, x: jax.Array, y: jax.Array, radius: float
    ) -> list[float]:
        batch = images.batch_size(jax.tree.leaves(variables)[0].shape[0])
        accuracies = _filtered(
            images.classifier,
            variables,
            x,
            y,
            jnp.asarray(radius),
            kind == "low-pass",
            batch=batch,
        )
        return devices.to_numpy(accuracies).tolist()

    evaluation = images.evaluation(kind)
    values = kept_shares(images, runs, evaluation, radii, compute, "filter")
    return np.array([[row[radius] for radius in radii] for row in values])


def radii_of(shape: Sequence[int]) -> tuple[float, ...]:
    """Whole radii up to the corner of the spectrum, and a quarter of the width."""
    height, width = shape[:2]
    corner = int(np.ceil(np.hypot(height, width) / 2))
    return tuple(sorted({*map(float, range(corner + 1)), width / 4}))
