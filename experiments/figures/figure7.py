"""Figure 7: power spectra of PGD's perturbations of each method's models."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

import absum_jax
from experiments.data import pgd_of
from experiments.evaluation import gradient
from experiments.jobs.errors import UsageError
from experiments.options import SweepOptions
from experiments.published import SPECTRUM_EPS
from experiments.reporting import document, naming
from experiments.reporting.evaluated import sweep_workspace
from experiments.reporting.plots import heatmaps
from experiments.reporting.plots.axes import log_scale
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import select_as_table1


@dataclasses.dataclass(frozen=True)
class Figure7Options:
    """Draw power spectra of PGD's perturbations, averaged over the test images
    (Figure 7). Models of Table 1 are reused."""  # noqa: D205, D209

    sweep: SweepOptions = dataclasses.field(default_factory=SweepOptions)

    eps: float = SPECTRUM_EPS
    """Radius of the attack, for pixels in [0, 1]."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the figure."""

    def __post_init__(self) -> None:
        pgd_of(self.sweep.models.dataset)  # refuses data sets without PGD
        if not 0 < self.eps <= 1:
            raise UsageError(f"--eps must be positive and at most 1, got {self.eps}.")


def draw(spectra: Mapping[str, np.ndarray]) -> Figure:
    """Draws spectra (h, w), low frequencies in the center, and power over rings."""
    figure, axes = heatmaps.side_by_side(
        spectra,
        lambda spectrum, ax: absum_jax.plot_power_spectrum(spectrum, ax=ax),
        lambda spectrum: 100 * np.fft.ifftshift(spectrum) / spectrum.sum(),
        label="log power, scaled to [0, 1]",
        rings_label="share of power (%)",
    )
    log_scale(axes[-1])
    return figure


def run(options: Figure7Options) -> list[pathlib.Path]:
    """Trains missing models, attacks and draws."""
    sweep = options.sweep
    steps = gradient.published_steps(sweep.models.dataset)
    with sweep_workspace(sweep) as workspace:
        selected = select_as_table1(sweep, workspace)
        spectra = gradient.power_spectra(
            workspace.test, selected.all_runs, options.eps, steps
        )
        images = len(workspace.test.split)
    spectra = selected.by_method(spectra)
    stem = options.results_dir / naming.path(
        "figure7", sweep, variant=naming.variant(options, "eps")
    )
    content = {
        "eps": options.eps,
        "pgd": dataclasses.asdict(steps),
        "methods": [
            {
                **setting._asdict(),
                "share_of_power_beyond_a_quarter_of_the_width": [
                    gradient.high_frequency_fraction(spectrum) for spectrum in of_seeds
                ],
                # Mean over seeds, (h, w), frequency zero in the center.
                "power_spectrum": [
                    [float(f"{power:.6g}") for power in row]
                    for row in of_seeds.mean(axis=0)
                ],
            }
            for setting, of_seeds in zip(selected.settings, spectra, strict=True)
        ],
        **document.conditions(sweep, images),
    }
    means = dict(zip(selected.runs, spectra.mean(axis=1), strict=True))
    label = "Figure 7"
    if options.eps != SPECTRUM_EPS:
        label += f", eps = {options.eps:g}"
    title = naming.figure_title(label, sweep.models, naming.scale(sweep))
    return document.write(stem, content) + save(draw(means), title, stem)
