"""Models under the Single Fourier Attack: what Table 1 is made of."""

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from experiments.data import DATASETS
from experiments.evaluation import single_fourier
from experiments.evaluation.clean import is_degenerate
from experiments.evaluation.kept import EvaluationSet
from experiments.evaluation.single_fourier import Robustness
from experiments.jobs.shards import Part
from experiments.options import SweepOptions
from experiments.training.runs import Run
from experiments.workspace import Workspace, opened


def _numbers(robustness: Robustness) -> dict[str, Any]:
    frequencies = robustness.frequencies
    return {
        "avg": float(frequencies.mean),
        "min": float(frequencies.min),
        "max": float(frequencies.max),
        "worst": [int(index) for index in frequencies.worst],
        "clean": robustness.clean,
    }


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A trained model and what it withstands."""

    run: Run
    test: Robustness
    selection: Robustness  # on the images that choose the strength

    @property
    def lowest_loss(self) -> float | None:
        """The lowest training loss of any epoch, without the penalty.

        None for a model that diverged in its first epoch.
        """
        losses = [line["train_loss"] for line in self.run.metrics()]
        return min((loss for loss in losses if loss is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """The model's settings and numbers, accuracies as fractions."""
        top5 = self.test.top5
        return {
            "method": self.run.config.method,
            "strength": self.run.config.strength,
            "seed": self.run.config.seed,
            "run": str(self.run.config.path),
            **_numbers(self.test),
            **({} if top5 is None else {"top5": _numbers(top5)}),
            "selection_avg": float(self.selection.frequencies.mean),
            "lowest_train_loss": self.lowest_loss,
            "answers_one_class": self.test.classes_predicted == 1,
            "diverged": self.run.has_diverged,
        }

    @property
    def is_degenerate(self) -> bool:
        """Whether the model diverged, or answers one class whatever it sees."""
        return is_degenerate(self.run, self.test.classes_predicted)


def sweep_workspace(
    options: SweepOptions, part: Part | None = None
) -> AbstractContextManager[Workspace]:
    """The workspace of a sweep's options, or of a part of its models."""
    return opened(
        options,
        test_examples=options.test_examples,
        hold_out=options.select_on == "validation",
        part=part,
    )


def attacked(
    workspace: Workspace, runs: Sequence[Run], stride: int = 1
) -> list[Outcome]:
    """Attacks what is not attacked yet, on the test images and those that select.

    Args:
      workspace: the images.
      runs: the models.
      stride: every how many-th l and m is a frequency.
    """

    def evaluate(images: EvaluationSet) -> list[Robustness]:
        return single_fourier.evaluate(
            images,
            runs,
            DATASETS[workspace.options.dataset].conditions.single_fourier_eps,
            stride=stride,
        )

    on_test = on_selection = evaluate(workspace.test)
    if workspace.selection is not workspace.test:
        on_selection = evaluate(workspace.selection)
    return [
        Outcome(*outcome) for outcome in zip(runs, on_test, on_selection, strict=True)
    ]


def run_sweep(options: SweepOptions) -> list[Outcome]:
    """Trains what is missing, attacks what is not attacked yet, and returns it all.

    Raises:
      UsageError: if an option does not fit the data set, or the data is not there.
    """
    with sweep_workspace(options) as workspace:
        runs = workspace.train(options.settings, options.seeds)
        return attacked(workspace, runs, options.frequency_stride)
