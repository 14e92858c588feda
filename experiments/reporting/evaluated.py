"""Trained models with their results, under one attack or none."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import numpy as np

from experiments.data import DATASETS
from experiments.evaluation import auto_attack, clean, gradient, single_fourier
from experiments.evaluation.auto_attack import AutoAttacked
from experiments.evaluation.clean import Clean
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.evaluation.single_fourier import Robustness
from experiments.jobs.parts import Part
from experiments.options import SweepOptions
from experiments.training.runs import Run
from experiments.workspace import Workspace, opened


@dataclasses.dataclass(frozen=True)
class Pgd:
    """Accuracies of a model under PGD with several eps, as fractions."""

    clean: Clean
    accuracies: np.ndarray  # (eps,)
    nan_logits: np.ndarray  # (eps,)

    @property
    def classes_predicted(self) -> int:
        """Returns how many classes it predicts on clean images."""
        return self.clean.classes_predicted


@dataclasses.dataclass(frozen=True)
class Auto:
    """What AutoAttack with several eps did to the images of a model."""

    clean: Clean
    attacked: AutoAttacked

    @property
    def accuracies(self) -> np.ndarray:
        """Returns the robust accuracies (eps,), as fractions."""
        return self.attacked.accuracies

    @property
    def classes_predicted(self) -> int:
        """Returns how many classes it predicts on clean images."""
        return self.clean.classes_predicted


_Result = TypeVar("_Result", bound=Clean | Robustness | Pgd | Auto)
_T = TypeVar("_T")


def described(run: Run) -> dict[str, Any]:
    """Returns what identifies a model in a document."""
    return {
        "method": run.config.method,
        "strength": run.config.strength,
        "seed": run.config.seed,
        "run": str(run.config.path),
    }


@dataclasses.dataclass(frozen=True)
class EvaluatedModel(Generic[_Result]):
    """A trained model with its result."""

    run: Run
    test: _Result
    # The mean accuracy under attack on the images that select the strength.
    selection_score: float = 0.0

    @property
    def is_degenerate(self) -> bool:
        """Checks whether the model diverged, or predicts one class for all images."""
        return clean.is_degenerate(self.run, self.test.classes_predicted)

    @property
    def numbers(self) -> dict[str, Any]:
        """Returns the measured numbers, accuracies as fractions."""
        return {}

    def as_dict(self) -> dict[str, Any]:
        """Returns the model's settings and numbers."""
        return {
            **described(self.run),
            **self.numbers,
            "answers_one_class": self.test.classes_predicted == 1,
            "diverged": self.run.has_diverged,
        }


# Of a model under the Single Fourier Attack, as fractions.
ACCURACIES: Mapping[str, Callable[[Robustness], float]] = {
    "avg": lambda test: float(test.frequencies.mean),
    "min": lambda test: float(test.frequencies.min),
    "max": lambda test: float(test.frequencies.max),
    "clean": lambda test: test.clean,
}


def _numbers(test: Robustness) -> dict[str, Any]:
    numbers: dict[str, Any] = {n: ACCURACIES[n](test) for n in ("avg", "min", "max")}
    worst = [int(index) for index in test.frequencies.worst]
    return numbers | {"worst": worst, "clean": test.clean}


class SingleFourierModel(EvaluatedModel[Robustness]):
    """A trained model under the Single Fourier Attack."""

    @property
    def lowest_loss(self) -> float | None:
        """Returns the lowest training loss of any epoch, without the penalty.

        None for a model that diverged in its first epoch.
        """
        losses = [line["train_loss"] for line in self.run.metrics()]
        return min((loss for loss in losses if loss is not None), default=None)

    @property
    def numbers(self) -> dict[str, Any]:
        """Returns the measured numbers, accuracies as fractions."""
        top5 = self.test.top5
        return {
            **_numbers(self.test),
            **({} if top5 is None else {"top5": _numbers(top5)}),
            "selection_avg": self.selection_score,
            "lowest_train_loss": self.lowest_loss,
        }


class PgdModel(EvaluatedModel[Pgd]):
    """A trained model under PGD."""

    @property
    def numbers(self) -> dict[str, Any]:
        """Returns the measured numbers, accuracies as fractions."""
        return {
            "clean": self.test.clean.accuracy,
            "pgd": self.test.accuracies.tolist(),
            "nan_logits": self.test.nan_logits.tolist(),
            "selection_mean": self.selection_score,
        }


class AutoModel(EvaluatedModel[Auto]):
    """A trained model under AutoAttack."""

    @property
    def numbers(self) -> dict[str, Any]:
        """Returns accuracies as fractions, and numbers of images and passes."""
        counts = self.test.attacked._asdict()
        return {
            "clean": self.test.clean.accuracy,
            "auto_attack": self.test.accuracies.tolist(),
            **{name: numbers.tolist() for name, numbers in counts.items()},
        }


def sweep_workspace(
    options: SweepOptions, part: Part | None = None,
    whole: Mapping[str, Any] | None = None,
) -> AbstractContextManager[Workspace]:  # fmt: skip
    """Opens the workspace of a sweep, or of a part of a `whole` command's models."""
    return opened(
        options.models,
        test_examples=options.test_examples,
        hold_out=options.select_on == "validation",
        part=part,
        whole=whole,
    )


def _on_test_and_selection(
    workspace: Workspace, evaluate: Callable[[EvaluationSet], _T]
) -> tuple[_T, _T]:
    on_test = evaluate(workspace.test)
    if workspace.selection is workspace.test:
        return on_test, on_test
    return on_test, evaluate(workspace.selection)


def under_single_fourier(
    workspace: Workspace, runs: Sequence[Run], stride: int = 1
) -> list[SingleFourierModel]:
    """Attacks models with every stride-th frequency, unless results are recorded."""
    eps = DATASETS[workspace.options.dataset].conditions.single_fourier_eps
    results = _on_test_and_selection(
        workspace,
        lambda images: single_fourier.evaluate(images, runs, eps, stride=stride),
    )
    return [
        SingleFourierModel(run, test, ACCURACIES["avg"](selection))
        for run, test, selection in zip(runs, *results, strict=True)
    ]


def under_pgd(
    workspace: Workspace, runs: Sequence[Run], eps: Sequence[float],
    steps: gradient.Steps,
) -> list[PgdModel]:  # fmt: skip
    """Attacks models by PGD, unless results are recorded."""
    clean_results = clean.evaluate(workspace.test, runs)
    results = _on_test_and_selection(
        workspace, lambda images: gradient.white_box(images, runs, eps, steps)
    )
    models = []
    for run, on_clean, test, selection in zip(
        runs, clean_results, *results, strict=True
    ):
        accuracies = np.array([test[e].accuracy for e in eps])
        nan_logits = np.array([test[e].nan_logits for e in eps])
        score = float(np.mean([selection[e].accuracy for e in eps]))
        models.append(PgdModel(run, Pgd(on_clean, accuracies, nan_logits), score))
    return models


def under_auto_attack(
    workspace: Workspace, runs: Sequence[Run], eps: Sequence[float]
) -> list[AutoModel]:
    """Attacks models on the test images by AutoAttack, unless results are recorded."""
    clean_results = clean.evaluate(workspace.test, runs)
    results = auto_attack.evaluate(workspace.test, runs, eps)
    return [
        AutoModel(run, Auto(on_clean, result))
        for run, on_clean, result in zip(runs, clean_results, results, strict=True)
    ]
