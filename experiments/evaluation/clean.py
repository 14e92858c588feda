"""Accuracy of trained models on images as they are."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import absum_jax
from experiments.evaluation.kept import Images, kept
from experiments.models import Classifier
from experiments.models.stacked import over_models
from experiments.training.runs import Run


@dataclasses.dataclass(frozen=True)
class Clean:
    """What a model says of images as they are."""

    accuracy: float
    classes_predicted: int  # a model that says 1 is no model
    nan_logits: float  # share of images with a NaN logit


def says_nothing(run: Run, classes_predicted: int) -> bool:
    """Whether a model diverged, or answers one class whatever it sees."""
    return run.has_diverged or classes_predicted == 1


@functools.partial(jax.jit, static_argnames=("classifier", "batch"))
def _clean(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array, *, batch: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def one(variables: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits_fn = jax.tree_util.Partial(classifier.logits, variables)
        accuracy = absum_jax.accuracy(logits_fn, x, y, batch_size=batch)
        logits = jax.lax.map(
            lambda image: logits_fn(image[None])[0], x, batch_size=batch
        )
        predicted = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=bool)
        is_nan = jax.numpy.isnan(logits).any(axis=-1)
        return accuracy, predicted.any(axis=0).sum(), is_nan.mean()

    return over_models(one, (0,))(variables)


def evaluate(images: Images, runs: Sequence[Run]) -> list[Clean]:
    """Clean accuracy of each run, and how many classes it answers."""

    def compute(
        variables: Any, x: jax.Array, y: jax.Array, _: str
    ) -> list[dict[str, float]]:
        models = jax.tree.leaves(variables)[0].shape[0]
        fields = _clean(
            images.classifier, variables, x, y, batch=images.batch_size(models)
        )
        accuracy, classes, nan_logits = (np.asarray(field) for field in fields)
        return [
            dataclasses.asdict(Clean(float(a), int(c), float(n)))
            for a, c, n in zip(accuracy, classes, nan_logits, strict=True)
        ]

    evaluation = images.evaluation("clean")
    results = kept(images, runs, evaluation, ["clean"], compute, "evaluation")
    return [Clean(**result["clean"]) for result in results]
