"""Fourier heat maps of Yin et al. (2019), beyond the paper."""

import dataclasses
import pathlib

from experiments.evaluation import clean, single_fourier
from experiments.options import SweepOptions, check_fourier_noise
from experiments.reporting import document, naming
from experiments.reporting.evaluated import sweep_workspace
from experiments.reporting.plots import heatmaps
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import select_as_table1


@dataclasses.dataclass(frozen=True)
class FourierHeatmapsOptions:
    """Draw the accuracy of each method under Fourier basis noise of a given L2 norm and
    random sign (the heat maps of Yin et al., 2019, beyond the paper). Models of Table 1
    are reused."""  # noqa: D205, D209

    sweep: SweepOptions = dataclasses.field(default_factory=SweepOptions)

    norm: float = 4.0
    """L2 norm of the noise, for pixels in [0, 1]."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the figure."""

    def __post_init__(self) -> None:
        check_fourier_noise(self.sweep, self.norm)


def run(options: FourierHeatmapsOptions) -> list[pathlib.Path]:
    """Trains missing models, attacks and draws."""
    sweep = options.sweep
    with sweep_workspace(sweep) as workspace:
        selected = select_as_table1(sweep, workspace)
        runs = selected.all_runs
        grids = single_fourier.noise_grids(workspace.test, runs, options.norm)
        answers = clean.evaluate(workspace.test, runs)
        images = len(workspace.test.split)
    of_seeds = selected.by_method(grids)
    accuracies = selected.by_method([answer.accuracy for answer in answers])
    content = {
        "norm": options.norm,
        "methods": [
            {
                **setting._asdict(),
                "clean": clean_of.tolist(),
                "mean": grids_of.mean(axis=(1, 2)).tolist(),
                "min": grids_of.min(axis=(1, 2)).tolist(),
            }
            for setting, grids_of, clean_of in zip(
                selected.settings, of_seeds, accuracies, strict=True
            )
        ],
        **document.conditions(sweep, images),
    }
    stem = options.results_dir / naming.path(
        "fourier-heatmaps", sweep, variant=naming.variant(options, "norm")
    )
    figure = heatmaps.draw(
        dict(zip(selected.runs, of_seeds.mean(axis=1), strict=True)),
        dict(zip(selected.runs, accuracies.mean(axis=1).tolist(), strict=True)),
    )
    label = f"Fourier basis noise of norm {options.norm:g}"
    title = naming.figure_title(label, sweep.models, naming.scale(sweep))
    return document.write(stem, content) + save(figure, title, stem)
