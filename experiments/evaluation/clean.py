"""Accuracy of trained models on images as they are."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax

from absum_jax.evaluation import counting
from experiments.evaluation.batches import mapped
from experiments.evaluation.kept import EvaluationSet
from experiments.evaluation.shares import kept_shares
from experiments.models import Classifier
from experiments.models.stacked import over_models
from experiments.training import devices
from experiments.training.runs import Run


@dataclasses.dataclass(frozen=True)
class Clean:
    """What a model says of images as they are."""

    accuracy: float
    classes_predicted: int  # a model that says 1 is no model
    nan_logits: float  # share of images with a NaN logit
    top5: float | None = None  # accuracy of the five largest logits, if streamed


def is_degenerate(run: Run, classes_predicted: int) -> bool:
    """Whether a model diverged, or answers one class whatever it sees."""
    return run.has_diverged or classes_predicted == 1


@functools.partial(jax.jit, static_argnames=("classifier", "batch", "top_k"))
def _clean(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    *, batch: int, top_k: int | tuple[int, ...],
) -> dict[str, jax.Array]:  # fmt: skip
    """Shares of the images, and of those that each class is answered for."""

    def one(variables: Any) -> dict[str, jax.Array]:
        logits = mapped(functools.partial(classifier.logits, variables), x, batch)
        predicted = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])
        shares = counting.fractions(counting.counted(logits, y, top_k), y.shape[0])
        return {
            "accuracy": shares.correct,
            "predicted": predicted.mean(axis=0),
            "nan_logits": shares.nan_logits,
        }

    return over_models(one, (0,))(variables)


def _told(shares: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Clean`, but for those that are not known."""
    told = {
        "accuracy": shares["accuracy"],
        "classes_predicted": sum(share > 0 for share in shares["predicted"]),
        "nan_logits": shares["nan_logits"],
    }
    if isinstance(shares["accuracy"], list):
        told["accuracy"], told["top5"] = shares["accuracy"]
    return told


def evaluate(images: EvaluationSet, runs: Sequence[Run]) -> list[Clean]:
    """Clean accuracy of each run, and how many classes it answers."""

    def compute(
        variables: Any, x: jax.Array, y: jax.Array, _: str
    ) -> list[dict[str, Any]]:
        models = jax.tree.leaves(variables)[0].shape[0]
        shares = _clean(
            images.classifier, variables, x, y,
            batch=images.batch_size(models), top_k=images.top_k,
        )  # fmt: skip
        lists = {
            name: share.tolist() for name, share in devices.to_numpy(shares).items()
        }
        return [
            dict(zip(lists, of_model, strict=True))
            for of_model in zip(*lists.values(), strict=True)
        ]

    evaluation = images.evaluation("clean")
    results = kept_shares(
        images, runs, evaluation, ["clean"], compute, "evaluation", _told
    )
    return [Clean(**result["clean"]) for result in results]
