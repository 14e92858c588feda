"""The demo: five CNNs on real digits, each attacked with every frequency."""

import dataclasses
import pathlib

import numpy as np

from experiments.figures import heatmaps
from experiments.figures.saving import save
from experiments.outcomes import Outcome, SweepOptions, run_sweep
from experiments.paper import TABLE1
from experiments.tables.selection import by_setting
from experiments.tables.table1 import Table1
from experiments.training.config import METHODS, NONE, Setting

# The strengths that the paper selects on MNIST.
SETTINGS = (
    NONE,
    *(
        Setting(method, TABLE1["mnist"][method].strength)
        for method in METHODS
        if method != NONE.method
    ),
)


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """Train CNNs without regularization, with weight decay, L1, Absum and SNC on 4,000
    real digits, and attack each with all 784 frequencies (two minutes on two CPU
    cores)."""  # noqa: D205, D209

    epochs: int = 30
    """Epochs of training."""

    seeds: tuple[int, ...] = (0,)
    """Seeds; each trains every method once."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of trained models."""

    results_dir: pathlib.Path = pathlib.Path("runs/results/demo")
    """Folder for the table and the picture."""


def _mean_grids(
    outcomes: list[Outcome],
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    groups = by_setting(outcomes)
    return (
        {
            s.method: np.mean([o.test.grid for o in g], axis=0)
            for s, g in groups.items()
        },
        {
            s.method: float(np.mean([o.test.clean for o in g]))
            for s, g in groups.items()
        },
    )


def run(options: DemoOptions) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and draws the picture."""
    sweep = SweepOptions(
        epochs=options.epochs, seeds=options.seeds, runs_dir=options.runs_dir
    )
    outcomes = run_sweep(sweep, SETTINGS)
    table = Table1.of(sweep, outcomes, "strengths as the paper selects them on MNIST")
    print(f"\n{table.markdown()}\n")
    written = table.write(options.results_dir, outcomes)
    figure = heatmaps.draw(*_mean_grids(outcomes))
    return written + save(figure, options.results_dir / "heatmaps")
