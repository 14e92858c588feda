"""Trained models, each with every evaluation of the paper."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from absum_jax._markdown import aligned
from experiments.adversaries import check_attacked
from experiments.config import NONE
from experiments.data import pgd_of
from experiments.evaluation import frequency, gradient, singular_values
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS
from experiments.options import SweepOptions, pairs
from experiments.published import SPECTRUM_EPS
from experiments.reporting.outcomes import Outcome, attacked, sweep_workspace
from experiments.training.runs import Run
from experiments.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(SweepOptions):
    """Train what is missing, and evaluate each model for all tables and figures: every
    frequency, filters of all radii, PGD on itself and transferred between pairs of
    seeds (the first two given, the next two, ...), spectra of perturbations and of
    convolutions. Other commands find the results in the runs folder."""  # noqa: D205, D209

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        check_attacked(self.dataset)
        if self.selection_seeds is not None:
            raise UsageError(
                "--selection-seeds is for tables and figures: evaluate takes every "
                "strength with every seed."
            )


def _transfer(workspace: Workspace, runs: Sequence[Run]) -> dict[Run, float]:
    """Attacks each run through all those of its pair's other seed.

    Returns:
      The accuracy of each run that has a pair, through the model trained alike.
    """
    dataset = workspace.options.dataset
    eps = pgd_of(dataset).transfer_eps
    steps = gradient.published_steps(dataset)
    accuracies: dict[Run, float] = {}
    for pair in pairs([*dict.fromkeys(run.config.seed for run in runs)]):
        for seed, other in (pair, pair[::-1]):
            targets = [run for run in runs if run.config.seed == seed]
            substitutes = [run for run in runs if run.config.seed == other]
            matrix = gradient.transferred(
                workspace.test, targets, substitutes, eps, steps
            )
            accuracies |= dict(zip(targets, matrix.diagonal().tolist(), strict=True))
    return accuracies


def _table(
    outcomes: Sequence[Outcome], columns: dict[str, dict[Run, float]]
) -> list[str]:
    header = ("method", "lambda / sigma", "seed", "Avg.", "Min.", "CLN", *columns)
    rows = []
    for outcome in outcomes:
        config, test = outcome.run.config, outcome.test
        numbers = [test.frequencies.mean, test.frequencies.min, test.clean]
        numbers += [
            column.get(outcome.run, float("nan")) for column in columns.values()
        ]
        rows.append(
            (
                METHODS[config.method].label,
                "" if config.setting == NONE else f"{config.strength:g}",
                str(config.seed),
                *(f"{100 * float(number):.2f}" for number in numbers),
            )
        )
    return aligned(header, rows)


def run(options: EvaluateOptions) -> list[pathlib.Path]:
    """Trains, evaluates and prints a table; writes nothing but the runs."""
    dataset = options.dataset
    steps = gradient.published_steps(dataset)
    with sweep_workspace(options) as workspace:
        images, shape = workspace.test, workspace.dataset.image_shape
        runs = workspace.train(options.settings, options.seeds)
        outcomes = attacked(workspace, runs, options.frequency_stride)
        radii = frequency.radii_of(shape)
        quarter = radii.index(shape[1] / 4)
        low = frequency.evaluate(images, runs, "low-pass", radii)[:, quarter]
        high = frequency.evaluate(images, runs, "high-pass", radii)
        transferred = _transfer(workspace, runs)
        eps = pgd_of(dataset).test_eps
        white_box = gradient.white_box(images, runs, eps, steps)
        gradient.power_spectra(images, runs, SPECTRUM_EPS, steps)
        singular_values.evaluate(images, runs)
    columns = {
        "transferred PGD": transferred,
        "PGD": {
            run: float(np.mean([attack.accuracy for attack in attacks.values()]))
            for run, attacks in zip(runs, white_box, strict=True)
        },
        "low-pass": dict(zip(runs, low.tolist(), strict=True)),
        "high-pass": dict(
            zip(runs, high[:, : quarter + 1].mean(axis=1).tolist(), strict=True)
        ),
    }
    print("\n" + "\n".join(_table(outcomes, columns)) + "\n")
    return []
