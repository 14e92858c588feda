"""Accuracy of trained models on clean images."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from absum_jax.evaluation import counting
from experiments.evaluation import evaluator
from experiments.evaluation.attack import Attack, on_stacked_models, register
from experiments.evaluation.batches import map_batches
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.training.runs import Run


@dataclasses.dataclass(frozen=True)
class Clean:
    """What a model predicts for clean images."""

    accuracy: float
    classes_predicted: int  # a model that always predicts the same one is degenerate
    nan_logits: float  # fraction of images with a NaN logit
    top5: float | None = None  # top-5 accuracy, if images are streamed


def is_degenerate(run: Run, classes_predicted: int) -> bool:
    """Returns whether a model diverged, or predicts one class for all images."""
    return run.has_diverged or classes_predicted == 1


@on_stacked_models
def _clean(
    logits_fn: Any, x: jax.Array, y: jax.Array, *,
    batch: int, top_k: int | tuple[int, ...],
) -> dict[str, jax.Array]:  # fmt: skip
    """Computes fractions of the images: correct, with NaN, and of each prediction."""
    logits = map_batches(logits_fn, x, batch)
    predicted = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])
    fractions = counting.fractions(counting.counted(logits, y, top_k), y.shape[0])
    return {
        "accuracy": fractions.correct,
        "predicted": predicted.mean(axis=0),
        "nan_logits": fractions.nan_logits,
    }


def _fields(measured: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Clean` that are known."""
    fields = {
        "accuracy": measured["accuracy"],
        "classes_predicted": sum(each > 0 for each in measured["predicted"]),
        "nan_logits": measured["nan_logits"],
    }
    if isinstance(measured["accuracy"], list):
        fields["accuracy"], fields["top5"] = measured["accuracy"]
    return fields


@register("clean")
def _attack(images: EvaluationSet) -> Attack:
    return Attack(
        "evaluation", ["clean"],
        lambda models, _: models.apply(_clean, top_k=images.top_k),
        is_streamable=True, value=_fields,
    )  # fmt: skip


def evaluate(images: EvaluationSet, runs: Sequence[Run]) -> list[Clean]:
    """Evaluates trained models on clean images."""
    values = evaluator.run("clean", images, runs)
    return [Clean(**value) for [value] in values]
