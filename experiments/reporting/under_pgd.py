"""Trained models under PGD, and each method at the strength that is best for it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.evaluation import clean, gradient
from experiments.reporting.selection import best
from experiments.training.runs import Run
from experiments.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Attacked:
    """A trained model under PGD."""

    run: Run
    clean: clean.Clean
    test: np.ndarray  # accuracies (E,), fractions
    nan_logits: np.ndarray  # (E,)
    selection: float  # mean accuracy over eps on the images that choose the strength

    def as_dict(self) -> dict[str, Any]:
        """The model's settings and numbers, accuracies as fractions."""
        config = self.run.config
        return {
            "method": config.method,
            "strength": config.strength,
            "seed": config.seed,
            "run": str(config.path),
            "clean": self.clean.accuracy,
            "pgd": self.test.tolist(),
            "nan_logits": self.nan_logits.tolist(),
            "selection_mean": self.selection,
            "answers_one_class": self.clean.classes_predicted == 1,
            "diverged": self.run.has_diverged,
        }

    @property
    def is_degenerate(self) -> bool:
        """Whether the model diverged, or answers one class whatever it sees."""
        return clean.is_degenerate(self.run, self.clean.classes_predicted)


def attack(
    workspace: Workspace, runs: Sequence[Run], eps: Sequence[float],
    steps: gradient.Steps,
) -> list[Attacked]:  # fmt: skip
    """Attacks what is not attacked yet, on the test images and those that select."""
    answers = clean.evaluate(workspace.test, runs)
    on_test = gradient.white_box(workspace.test, runs, eps, steps)
    on_selection = on_test
    if workspace.selection is not workspace.test:
        on_selection = gradient.white_box(workspace.selection, runs, eps, steps)
    return [
        Attacked(
            run,
            answer,
            np.array([test[e].accuracy for e in eps]),
            np.array([test[e].nan_logits for e in eps]),
            float(np.mean([selection[e].accuracy for e in eps])),
        )
        for run, answer, test, selection in zip(
            runs, answers, on_test, on_selection, strict=True
        )
    ]


def score(model: Attacked) -> float:
    """The mean accuracy over eps that chooses the strength."""
    return model.selection


def select(
    models: Sequence[Attacked],
) -> tuple[dict[str, list[Attacked]], list[Attacked]]:
    """Chooses each method's strength by the best mean accuracy over eps and seeds.

    Returns:
      The models of each method that has one, and those that say nothing.

    Raises:
      UsageError: as `selection.best` does.
    """
    return best(models, score)
