"""Draws filters with zero sum, penalty and spectral norm of convolutions by epoch."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from absum_jax.plotting import whole_numbers
from experiments.config import Setting
from experiments.figures.one_seed import OneSeedOptions
from experiments.jobs import processes
from experiments.methods import MethodName, default, listed
from experiments.options import check_choices
from experiments.reporting import document, naming
from experiments.reporting.curves import Curves, check_logged, curves, lacking
from experiments.reporting.labels import setting_label
from experiments.reporting.plots.axes import (
    legend_beside,
    log_scale,
    percentages,
)
from experiments.reporting.plots.layers import layers_by_depth
from experiments.reporting.plots.saving import save
from experiments.reporting.plots.styles import DASHES
from experiments.training.diagnostics import ZERO
from experiments.workspace import opened

# The names in the log and the labels of the figure's rows.
_KINDS = {
    "zero_share": "filters with zero sum (%)",
    "penalty": r"penalty, $\sum_{i,o} |\sum_{l,m} k|$",
    "spectral_norm": "spectral norm",
}
_ALWAYS_LOGGED = ("zero_share", "penalty")
# At most so many epochs have markers; a line of a single one would not be seen.
_MARKED_EPOCHS = 20


@dataclasses.dataclass(frozen=True)
class DiagnosticsOptions:
    """Draw how each convolution changes during training without regularization and with
    weight decay, L1, Absum and SNC: the fraction of filters (pairs of an input and an
    output channel) whose sum is zero, the penalty of Absum, and the spectral norm.
    Missing models are trained with --diagnostics. Models that other commands trained
    without it are drawn without the spectral norm, which they did not log."""  # noqa: D205, D209

    one_seed: OneSeedOptions = dataclasses.field(default_factory=OneSeedOptions)

    methods: tuple[MethodName, ...] = dataclasses.field(default_factory=default)
    """Regularization methods."""

    def __post_init__(self) -> None:
        check_choices("--methods", self.methods)
        _ = self.settings  # refuses what the paper has no strength for

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Returns the settings of the chosen methods."""
        return self.one_seed.settings([m for m in listed() if m in self.methods])

    @property
    def variant(self) -> str:
        """Returns methods and strengths that are not the default, for file names."""
        chosen = [setting.method.replace("_", "-") for setting in self.settings]
        others = chosen if set(self.methods) != set(default()) else []
        return "".join(f"-{name}" for name in others) + self.one_seed.variant


def _draw_layers(
    ax: Axes, kind: str, curves: Curves, styles: Mapping[str, Mapping[str, Any]]
) -> None:
    for name, values in curves.layers.items():
        # Values that are not finite leave gaps.
        y = np.array(values, float) * (100 if kind == "zero_share" else 1)
        marker = "." if len(curves.epochs) <= _MARKED_EPOCHS else None
        ax.plot(curves.epochs, y, marker=marker, lw=1.2, label=name, **styles[name])
    whole_numbers(ax.xaxis)
    if kind == "zero_share":
        percentages(ax)
    elif any(value for values in curves.layers.values() for value in values):
        log_scale(ax)


def draw(settings: Sequence[Setting], found: Sequence[Mapping[str, Curves]]) -> Figure:
    """Draws a column for each model and a row for each kind of diagnostics.

    Models may lack a kind; one that all of them lack has no row.
    """
    kinds = [kind for kind in _KINDS if any(kind in of_model for of_model in found)]
    layers = list(found[0]["penalty"].layers)
    scale = Normalize(0, max(len(layers) - 1, 1))
    colormap = matplotlib.colormaps["viridis"]
    # With more layers than dashes a color bar replaces the legend.
    is_named = len(layers) <= len(DASHES)
    styles = {
        name: {"color": colormap(0.9 * scale(i)), "ls": DASHES[i] if is_named else "-"}
        for i, name in enumerate(layers)
    }
    size = 2.6 * len(settings) + 1.4, 2.2 * len(kinds)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(
        len(kinds), len(settings), squeeze=False, sharex=True, sharey="row"
    )
    for column, setting, of_model in zip(axes.T, settings, found, strict=True):
        for ax, kind in zip(column, kinds, strict=True):
            if kind in of_model:
                _draw_layers(ax, kind, of_model[kind], styles)
            else:
                ax.text(0.5, 0.5, "not logged", transform=ax.transAxes, ha="center")
        column[0].set_title(setting_label(setting), fontsize=9)
        column[-1].set_xlabel("epoch")
    for ax, kind in zip(axes[:, 0], kinds, strict=True):
        ax.set_ylabel(_KINDS[kind])
    if is_named:
        legend_beside(axes[0, -1])
    else:
        bar = figure.colorbar(
            ScalarMappable(scale, colormap), ax=axes, label="layer", shrink=0.6
        )
        bar.ax.set_yticks([0, len(layers) - 1], ["first", "last"])
    return figure


def run(options: DiagnosticsOptions) -> list[pathlib.Path]:
    """Trains missing models with diagnostics and draws these."""
    one_seed, settings = options.one_seed, options.settings
    compute = dataclasses.replace(one_seed.models.compute, diagnostics=True)
    models = dataclasses.replace(one_seed.models, compute=compute)
    with opened(models) as workspace:
        layers = layers_by_depth(workspace.classifier, workspace.dataset.image_shape)
        wanted = workspace.runs(settings, one_seed.seeds)
        check_logged(models.runs_dir, wanted, _ALWAYS_LOGGED)
        unlogged = lacking(models.runs_dir, wanted, "spectral_norm")
        if unlogged and processes.is_first():
            print(
                f"spectral norms were not logged for {len(unlogged)} of {len(wanted)} "
                f"models, such as {unlogged[0].config.path}: to draw them, train in "
                "another --runs-dir with --diagnostics"
            )
        runs = workspace.train(settings, one_seed.seeds)
    without = {run.folder for run in unlogged}
    found = [
        {
            kind: curves(run, kind, list(layers))
            for kind in (_ALWAYS_LOGGED if run.folder in without else _KINDS)
        }
        for run in runs
    ]
    scaled = naming.model_scale(models, methods=(s.method for s in settings))
    path = naming.model_path("diagnostics", models, scaled, options.variant)
    label = "Convolutions over training"
    content = {
        "title": naming.title(label, models, scaled),
        "epochs": models.recipe().epochs,
        "train_examples": models.train_examples,
        "seed": one_seed.seeds[0],
        "zero_is": f"|sum| <= {ZERO:g} * sum of |coefficient|",
        "kernels": layers,
        "models": [
            setting._asdict()
            | {"run": str(run.config.path)}
            | {kind: values._asdict() for kind, values in of_model.items()}
            for setting, run, of_model in zip(settings, runs, found, strict=True)
        ],
    }
    stem = one_seed.results_dir / path
    title = naming.figure_title(label, models, scaled)
    return document.write(stem, content) + save(draw(settings, found), title, stem)
