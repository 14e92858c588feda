"""Runs the demo: five CNNs on real digits, each attacked with every frequency."""

import dataclasses
import pathlib

import numpy as np

from experiments.options import SweepOptions
from experiments.reporting.outcomes import run_sweep
from experiments.reporting.plots import heatmaps
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import by_setting
from experiments.tables.table1 import table1


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """Train CNNs without regularization and with weight decay, L1, Absum and SNC on
    4,000 real digits, and attack each with all 784 frequencies (one minute on two CPU
    cores)."""  # noqa: D205, D209

    epochs: int = 30
    """Epochs of training."""

    seeds: tuple[int, ...] = (0,)
    """Seeds; each trains every method once."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of trained models."""

    results_dir: pathlib.Path = pathlib.Path("runs/results/demo")
    """Folder for the table and the figure."""

    @property
    def has_device_for_each_core(self) -> bool:
        """Returns True: on a CPU each core becomes a device that trains its models."""
        return True


def run(options: DemoOptions) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and draws heat maps."""
    sweep = SweepOptions(
        epochs=options.epochs,
        seeds=options.seeds,
        runs_dir=options.runs_dir,
        select_on="paper",
    )
    outcomes = run_sweep(sweep)
    table = table1(sweep, outcomes)
    print(f"\n{table.markdown}\n")
    groups = {setting.method: g for setting, g in by_setting(outcomes).items()}
    figure = heatmaps.draw(
        {m: np.mean([o.test.grid for o in g], axis=0) for m, g in groups.items()},
        {m: float(np.mean([o.test.clean for o in g])) for m, g in groups.items()},
    )
    written = table.write(options.results_dir)
    return written + save(figure, options.results_dir / "heatmaps")
