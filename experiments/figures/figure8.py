"""Figure 8: the proximal step of Absum against automatic differentiation."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from absum_jax.plotting import whole_numbers
from experiments.config import Setting
from experiments.methods import ABSUM_AUTODIFF
from experiments.options import ModelOptions, check_positive, check_seeds, check_single
from experiments.reporting import document, naming
from experiments.reporting.columns import Column, Table
from experiments.reporting.curves import check_logged, curves
from experiments.reporting.evaluated import described
from experiments.reporting.plots.axes import (
    legend_beside,
    line_with_band,
    log_scale,
    percentages,
)
from experiments.reporting.plots.layers import layers_by_depth
from experiments.reporting.plots.saving import save
from experiments.reporting.plots.styles import method_style, spread_markers
from experiments.statistics.summary import spread
from experiments.training.diagnostics import ZERO
from experiments.training.runs import Run
from experiments.workspace import opened

_LABEL = "Figure 8, convergence of the proximal gradient method"
_LOGGED = ("penalty", "zero_share")
# As the paper's legend has them.
_NAMES = {"absum": "Prox.", ABSUM_AUTODIFF: "AutoGrad."}


@dataclasses.dataclass(frozen=True)
class Figure8Options:
    """Train with Absum by its proximal step and by automatic differentiation of its
    penalty, and draw the objective and the loss against epochs (Figure 8; the paper
    uses CIFAR-10: --dataset cifar10)."""  # noqa: D205, D209

    models: ModelOptions = dataclasses.field(default_factory=ModelOptions)

    strengths: tuple[float, ...] = (0.01,)
    """Strength of Absum (lambda), a single value."""

    seeds: tuple[int, ...] = (0,)
    """Seeds; each trains a model by either way."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the table and the figure."""

    def __post_init__(self) -> None:
        check_single("--strengths", self.strengths)
        check_positive("--strengths", self.strengths)
        check_seeds(self.seeds)

    @property
    def settings(self) -> list[Setting]:
        """Returns both ways to train, at the one strength."""
        return [Setting(method, self.strengths[0]) for method in _NAMES]


class Convergence(NamedTuple):
    """Curves of one model, (epochs,) each; NaN where it had diverged."""

    loss: np.ndarray  # 1/N sum f, over the batches of the epoch
    regularization: np.ndarray  # lambda sum g, after the epoch
    zero_share: np.ndarray  # of the filters of all layers, those whose sum is zero

    @property
    def objective(self) -> np.ndarray:
        """Returns the objective that is minimized, eq. 12."""
        return self.loss + self.regularization

    def as_dict(self) -> dict[str, list[float | None]]:
        """Returns the curves with None for what is not finite, as in JSON."""
        arrays = {**self._asdict(), "objective": self.objective}
        return {
            name: [value if math.isfinite(value) else None for value in array.tolist()]
            for name, array in arrays.items()
        }


def convergence(
    run: Run, strength: float, layers: Mapping[str, tuple[int, ...]]
) -> Convergence:
    """Returns the curves of a model with kernels (height, width, in, out) by layer."""
    penalty, zero_share = (
        np.array(list(curves(run, kind, list(layers)).layers.values()), float)
        for kind in _LOGGED
    )
    filters = [shape[-2] * shape[-1] for shape in layers.values()]
    loss = np.array([line["train_loss"] for line in run.metrics()], float)
    return Convergence(
        loss,
        strength * penalty.sum(axis=0),
        np.average(zero_share, axis=0, weights=filters),
    )


def draw(found: Mapping[str, Sequence[Convergence]]) -> Figure:
    """Draws objective, loss and the fraction of zero sums against epochs."""
    panels = {
        "objective": r"$\frac{1}{N}\sum f + \lambda \sum g$",
        "loss": r"$\frac{1}{N}\sum f$",
        "zero_share": "filters with zero sum (%)",
    }
    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels))
    for ax, (kind, ylabel) in zip(axes, panels.items(), strict=True):
        for method, of_seeds in found.items():
            values = [getattr(each, kind) for each in of_seeds]
            # A model that diverged early is as long as it got.
            epochs = max(map(len, values))
            padded = [
                np.pad(v, (0, epochs - len(v)), constant_values=np.nan) for v in values
            ]
            mean, std = np.mean(padded, axis=0), spread(np.array(padded))
            scale = 100 if kind == "zero_share" else 1
            line_with_band(
                ax, np.arange(1, epochs + 1), scale * mean, scale * std,
                **method_style(method) | {"label": _NAMES[method]},
            )  # fmt: skip
        ax.set(xlabel="epoch", ylabel=ylabel)
        whole_numbers(ax.xaxis)
        spread_markers(ax)
        if kind == "zero_share":
            percentages(ax)
        else:
            log_scale(ax)
    legend_beside(axes[-1])
    return figure


_Row: TypeAlias = tuple[str, Sequence[Convergence]]  # a method, its seeds


def _reached(kind: str, title: str, scale: float = 1.0) -> Column[_Row]:
    def cell(row: _Row) -> str:
        values = scale * np.array([getattr(each, kind)[-1] for each in row[1]])
        shown = f" ± {spread(values):.2g}" if len(values) > 1 else ""
        return f"{values.mean():.4g}{shown}"

    return Column(kind, title, cell)


_COLUMNS: tuple[Column[_Row], ...] = (
    Column("method", "after the last epoch", lambda row: _NAMES[row[0]]),
    _reached("objective", "objective"),
    _reached("loss", "loss"),
    _reached("regularization", "lambda sum g"),
    _reached("zero_share", "zero sums (%)", 100),
)


def markdown(
    options: Figure8Options, found: Mapping[str, Sequence[Convergence]]
) -> str:
    """Returns the table of the last values, with its conditions."""
    models, [strength] = options.models, options.strengths
    train = "all" if models.train_examples is None else f"{models.train_examples:,}"
    published = models.published_recipe().epochs
    spread = ", mean ± standard deviation" if len(options.seeds) > 1 else ""
    notes = (
        f"Absum with lambda = {strength:g} by its proximal step (Prox.) and by "
        "automatic differentiation of its penalty (AutoGrad.). Loss is the mean of 1/N "
        "sum f over the batches of the epoch, as they were trained on, sum g the "
        "penalty of the weights after it, the objective both together. Zero sums are "
        f"the filters with |sum| <= {ZERO:g} * sum of |coefficient|, the rounding of "
        f"float32. {models.recipe().epochs} of the paper's {published} epochs on "
        f"{train} training images, seeds {', '.join(map(str, options.seeds))}{spread}."
    )
    table = Table(_COLUMNS, list(found.items())).markdown()
    return document.page(
        naming.title(_LABEL, models, naming.model_scale(models)), table, notes
    )


def run(options: Figure8Options) -> list[pathlib.Path]:
    """Trains missing models, prints the table and writes it with the figure."""
    models, [strength] = options.models, options.strengths
    with opened(models) as workspace:
        wanted = workspace.runs(options.settings, options.seeds)
        check_logged(models.runs_dir, wanted, _LOGGED)
        runs = workspace.train(options.settings, options.seeds)
    layers = layers_by_depth(workspace.classifier, workspace.dataset.image_shape)
    found: dict[str, list[Convergence]] = {method: [] for method in _NAMES}
    rows: list[dict[str, Any]] = []
    for each in runs:
        converged = convergence(each, strength, layers)
        found[each.config.method].append(converged)
        numbers = {"diverged": each.has_diverged} | converged.as_dict()
        rows.append(described(each) | numbers)
    table = markdown(options, found)
    print(f"\n{table}\n")
    scaled, variant = naming.model_scale(models), naming.variant(options, "strengths")
    path = naming.model_path("figure8", models, scaled, variant)
    content = {
        "title": naming.title(_LABEL, models, scaled),
        "seeds": options.seeds,
        "epochs": models.recipe().epochs,
        "train_examples": models.train_examples,
        "zero_is": f"|sum| <= {ZERO:g} * sum of |coefficient|",
        "models": rows,
    }
    stem = options.results_dir / path
    title = naming.figure_title(_LABEL, models, scaled)
    return document.write(stem, content, table) + save(draw(found), title, stem)
