"""Figure 7: power spectra of PGD's perturbations of each method's models."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

import absum_jax
from experiments.adversaries import check_attacked
from experiments.evaluation import gradient
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS
from experiments.options import SweepOptions
from experiments.published import SPECTRUM_EPS
from experiments.reporting import document, naming
from experiments.reporting.outcomes import sweep_workspace
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import choose


@dataclasses.dataclass(frozen=True)
class Figure7Options(SweepOptions):
    """Power spectra of PGD's perturbations, averaged over the test images (Figure 7).
    Models of Table 1 are taken where they lie."""  # noqa: D205, D209

    eps: float = SPECTRUM_EPS
    """Radius of the attack, for pixels in [0, 1]."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the figure."""

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        check_attacked(self.dataset)
        if not 0 < self.eps <= 1:
            raise UsageError(f"--eps must be positive and at most 1, got {self.eps}.")


def draw(spectra: Mapping[str, np.ndarray]) -> Figure:
    """Draws a picture a method, and the powers over rings.

    Args:
      spectra: (h, w) of each method, low frequencies in the centre.
    """
    figure = Figure(figsize=(2.4 * len(spectra) + 3.4, 2.9), layout="constrained")
    axes = figure.subplots(
        1, len(spectra) + 1, width_ratios=[1] * len(spectra) + [1.25]
    )
    for ax, (method, spectrum) in zip(axes, spectra.items(), strict=False):
        picture = absum_jax.plot_power_spectrum(spectrum, ax=ax)
        ax.set_title(METHODS[method].label, fontsize=9)
        if ax is not axes[0]:
            ax.set_ylabel("")
            ax.set_yticklabels([])
        share = np.fft.ifftshift(spectrum) / spectrum.sum()
        absum_jax.plot_radial_mean(
            share, ax=axes[-1], color=METHODS[method].color, label=METHODS[method].label
        )
    label = "log power, scaled to (0, 1)"
    figure.colorbar(picture, ax=axes[: len(spectra)], label=label, shrink=0.8)
    axes[-1].set_yscale("log")
    axes[-1].set_title("mean share of power over rings", fontsize=9)
    axes[-1].legend(fontsize=7)
    return figure


def run(options: Figure7Options) -> list[pathlib.Path]:
    """Trains what is missing, attacks and draws."""
    steps = gradient.published_steps(options.dataset)
    with sweep_workspace(options) as workspace:
        chosen = choose(options, workspace)
        spectra = gradient.power_spectra(
            workspace.test, chosen.all_runs, options.eps, steps
        ).reshape(
            len(chosen.runs), len(options.seeds), *workspace.dataset.image_shape[:2]
        )
        images = len(workspace.test.split)
    stem = options.results_dir / naming.path("figure7", options)
    content = {
        "eps": options.eps,
        "pgd": dataclasses.asdict(steps),
        "methods": [
            {
                "method": setting.method,
                "strength": setting.strength,
                "share_of_power_beyond_a_quarter_of_the_width": [
                    gradient.high_share(spectrum) for spectrum in of_seeds
                ],
            }
            for setting, of_seeds in zip(chosen.settings, spectra, strict=True)
        ],
        **document.conditions(options, images),
    }
    means = dict(zip(chosen.runs, spectra.mean(axis=1), strict=True))
    return [
        files.write_json(stem.with_suffix(".json"), content),
        *save(draw(means), stem),
    ]
