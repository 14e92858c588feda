"""Runs the demo: five CNNs on real digits, each attacked with every frequency."""

import dataclasses
import pathlib

import numpy as np

from experiments.options import ModelOptions, SweepOptions
from experiments.reporting import naming
from experiments.reporting.evaluated import sweep_workspace
from experiments.reporting.plots import heatmaps
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import by_setting, models_of_table1
from experiments.tables.table1 import table1


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """Train CNNs without regularization and with weight decay, L1, Absum and SNC on
    4,000 real digits, and attack each with all 784 frequencies (one to four minutes on
    two CPU cores)."""  # noqa: D205, D209

    epochs: int = 30
    """Epochs of training."""

    seeds: tuple[int, ...] = (0,)
    """Seeds; each trains every method once."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of trained models."""

    results_dir: pathlib.Path = pathlib.Path("runs/results/demo")
    """Folder for the table and the figure."""


def run(options: DemoOptions) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and draws heat maps."""
    trained = ModelOptions(epochs=options.epochs, runs_dir=options.runs_dir)
    sweep = SweepOptions(trained, seeds=options.seeds, select_on="paper")
    with sweep_workspace(sweep) as workspace:
        models = models_of_table1(sweep, workspace)
    written = table1(sweep, models).print_and_write(options.results_dir)
    groups = {setting.method: g for setting, g in by_setting(models).items()}
    figure = heatmaps.draw(
        {m: np.mean([each.test.grid for each in g], axis=0) for m, g in groups.items()},
        {m: float(np.mean([each.test.clean for each in g])) for m, g in groups.items()},
    )
    title = naming.figure_title(
        "Single Fourier Attack", sweep.models, naming.scale(sweep)
    )
    return written + save(figure, title, options.results_dir / "heatmaps")
