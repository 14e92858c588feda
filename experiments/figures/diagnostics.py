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

from experiments.config import Setting
from experiments.methods import MethodName, default
from experiments.options import check_choices
from experiments.reporting import document, naming
from experiments.reporting.curves import Curves, check_logged, curves
from experiments.reporting.labels import setting_label
from experiments.reporting.one_seed import OneSeedOptions
from experiments.reporting.plots.axes import log_scale
from experiments.reporting.plots.layers import layers_by_depth
from experiments.reporting.plots.saving import save
from experiments.training.diagnostics import ZERO
from experiments.workspace import opened

# The names in the log and the labels of the figure's rows.
_KINDS = {
    "zero_share": "filters with zero sum (%)",
    "penalty": r"penalty, $\sum_{i,o} |\sum_{l,m} k|$",
    "spectral_norm": "spectral norm",
}
# With more layers a color bar replaces the legend.
_NAMED_LAYERS = 4


@dataclasses.dataclass(frozen=True)
class DiagnosticsOptions(OneSeedOptions):
    """Draw how each convolution changes during training without regularization and with
    weight decay, L1, Absum and SNC: the fraction of filters (pairs of an input and an
    output channel) whose sum is zero, the penalty of Absum, and the spectral norm.
    Missing models are trained with --diagnostics; models that other commands trained
    without --diagnostics lack the spectral norm and are refused."""  # noqa: D205, D209

    methods: tuple[MethodName, ...] = dataclasses.field(default_factory=default)
    """Regularization methods."""

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        check_choices("--methods", self.methods)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Returns the settings of the chosen methods."""
        return tuple(s for s in super().settings if s.method in self.methods)

    @property
    def variant(self) -> str:
        """Returns the strengths that are not the default, and a subset of methods."""
        methods = [setting.method.replace("_", "-") for setting in self.settings]
        subset = methods if len(methods) < len(default()) else []
        return "".join(f"-{name}" for name in subset) + super().variant


def draw_layers(ax: Axes, kind: str, curves: Curves, colors: Mapping[str, Any]) -> None:
    """Draws a line for each layer."""
    for name, values in curves.layers.items():
        # Values that are not finite leave gaps.
        y = np.array(values, float) * (100 if kind == "zero_share" else 1)
        marker = "." if kind == "spectral_norm" else None
        ax.plot(curves.epochs, y, color=colors[name], marker=marker, lw=1.2, label=name)
    if kind == "zero_share":
        ax.set_ylim(-3, 103)
    elif any(value for values in curves.layers.values() for value in values):
        log_scale(ax)


def draw(settings: Sequence[Setting], found: Sequence[Mapping[str, Curves]]) -> Figure:
    """Draws a column for each model and a row for each kind of diagnostics.

    Args:
      settings: the setting of each model.
      found: the curves of each model by kind, with the same layers in the same order.
    """
    layers = list(found[0]["penalty"].layers)
    scale = Normalize(0, max(len(layers) - 1, 1))
    colormap = matplotlib.colormaps["viridis"]
    colors = {name: colormap(0.95 * scale(i)) for i, name in enumerate(layers)}
    figure = Figure(figsize=(2.6 * len(settings) + 1.4, 6.6), layout="constrained")
    axes = figure.subplots(
        len(_KINDS), len(settings), squeeze=False, sharex=True, sharey="row"
    )
    for column, setting, of_model in zip(axes.T, settings, found, strict=True):
        for ax, kind in zip(column, _KINDS, strict=True):
            draw_layers(ax, kind, of_model[kind], colors)
        column[0].set_title(setting_label(setting), fontsize=9)
        column[-1].set_xlabel("epoch")
    for ax, kind in zip(axes[:, 0], _KINDS, strict=True):
        ax.set_ylabel(_KINDS[kind])
    if len(layers) <= _NAMED_LAYERS:
        lines = axes[0, 0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside right upper", fontsize=8)
    else:
        bar = figure.colorbar(
            ScalarMappable(scale, colormap), ax=axes, label="layer", shrink=0.6
        )
        bar.ax.set_yticks([0, len(layers) - 1], ["first", "last"])
    return figure


def run(options: DiagnosticsOptions) -> list[pathlib.Path]:
    """Trains missing models with diagnostics and draws these."""
    compute = dataclasses.replace(options.compute, diagnostics=True)
    options = dataclasses.replace(options, compute=compute)
    with opened(options) as workspace:
        layers = layers_by_depth(workspace.classifier, workspace.dataset.image_shape)
        wanted = workspace.runs(options.settings, (options.seed,))
        check_logged(options.runs_dir, wanted, _KINDS)
        runs = workspace.train(options.settings, (options.seed,))
    found = [{kind: curves(run, kind, list(layers)) for kind in _KINDS} for run in runs]
    scaled = naming.model_scale(options)
    stem = options.results_dir / naming.model_path(
        "diagnostics", options, scaled, options.variant
    )
    content = {
        "title": naming.title("Convolutions over training", options, scaled),
        "epochs": options.recipe().epochs,
        "train_examples": options.train_examples,
        "seed": options.seed,
        "zero_is": f"|sum| <= {ZERO:g} * sum of |coefficient|",
        "kernels": layers,
        "models": [
            {
                "method": setting.method,
                "strength": setting.strength,
                "run": str(run.config.path),
                **{kind: values._asdict() for kind, values in of_model.items()},
            }
            for setting, run, of_model in zip(
                options.settings, runs, found, strict=True
            )
        ],
    }
    return document.write(stem, content) + save(draw(options.settings, found), stem)
