"""Trains models and runs every evaluation of the paper on each."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from absum_jax.markdown import aligned
from experiments.data import pgd_of
from experiments.evaluation import frequency, gradient, singular_values
from experiments.jobs.errors import UsageError
from experiments.options import SweepOptions, both_ways, pairs
from experiments.published import SPECTRUM_EPS
from experiments.reporting.evaluated import sweep_workspace, under_single_fourier
from experiments.reporting.labels import model_cells
from experiments.training.runs import Run
from experiments.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Train missing models and run every evaluation of the paper on each: the Single
    Fourier Attack with every frequency, filters of all radii, PGD on the model itself
    and transferred between pairs of seeds (the first two given, the next two, ...), and
    spectra of perturbations and of convolutions. Other commands reuse the results in
    the runs folder."""  # noqa: D205, D209

    sweep: SweepOptions = dataclasses.field(default_factory=SweepOptions)

    def __post_init__(self) -> None:
        pgd_of(self.sweep.models.dataset)  # refuses data sets without PGD
        if self.sweep.selection_seeds is not None:
            raise UsageError(
                "--selection-seeds is for tables and figures: evaluate trains every "
                "strength with every seed."
            )


def _transfer(workspace: Workspace, runs: Sequence[Run]) -> dict[Run, float]:
    """Computes each paired run's accuracy, attacked through its other seed."""
    dataset = workspace.options.dataset
    eps, steps = pgd_of(dataset).transfer_eps, gradient.published_steps(dataset)
    accuracies: dict[Run, float] = {}
    seeds = [*dict.fromkeys(run.config.seed for run in runs)]
    for directed in both_ways(pairs(seeds)):
        targets, substitutes = (
            [run for run in runs if run.config.seed == seed] for seed in directed
        )
        matrix = gradient.transferred(workspace.test, targets, substitutes, eps, steps)
        accuracies |= dict(zip(targets, matrix.diagonal().tolist(), strict=True))
    return accuracies


def run(options: EvaluateOptions) -> list[pathlib.Path]:
    """Trains, evaluates and prints a table; writes nothing but the runs."""
    sweep, dataset = options.sweep, options.sweep.models.dataset
    steps = gradient.published_steps(dataset)
    with sweep_workspace(sweep) as workspace:
        images, shape = workspace.test, workspace.dataset.image_shape
        runs = workspace.train(sweep.settings(), sweep.seeds)
        models = under_single_fourier(workspace, runs, sweep.frequency_stride)
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
        "Avg.": [model.test.frequencies.mean for model in models],
        "Min.": [model.test.frequencies.min for model in models],
        "CLN": [model.test.clean for model in models],
        "transferred PGD": [transferred.get(run, float("nan")) for run in runs],
        "PGD": [np.mean([a.accuracy for a in of_run.values()]) for of_run in white_box],
        "low-pass": low,
        "high-pass": high[:, : quarter + 1].mean(axis=1),
    }
    rows = [
        (*model_cells(run.config), *(f"{100 * float(n):.2f}" for n in numbers))
        for run, *numbers in zip(runs, *columns.values(), strict=True)
    ]
    table = aligned(("method", "lambda / sigma", "seed", *columns), rows)
    print("\n" + "\n".join(table) + "\n")
    return []
