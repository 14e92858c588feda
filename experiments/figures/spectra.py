"""Draws the singular values of each convolution for each regularization method."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import absum_jax
from experiments.config import NONE, Setting
from experiments.evaluation.singular_values import of_kernels
from experiments.figures.one_seed import OneSeedOptions
from experiments.models import Classifier, named_kernels
from experiments.reporting import document, naming
from experiments.reporting.labels import setting_label
from experiments.reporting.plots.axes import legend_beside, log_scale
from experiments.reporting.plots.layers import layers_by_depth
from experiments.reporting.plots.saving import save
from experiments.reporting.plots.styles import method_style, spread_markers
from experiments.training import optimization, step
from experiments.workspace import opened

# Of more layers, so many are drawn.
_DRAWN_LAYERS = 8
# For each layer (models, rows, columns, rank), with frequency zero first.
Spectra = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class SpectraOptions:
    """Draw the singular values of each convolution of networks trained without
    regularization, with weight decay, L1 and Absum at the strengths that the paper
    selects, and with SNC."""  # noqa: D205, D209

    one_seed: OneSeedOptions = dataclasses.field(default_factory=OneSeedOptions)

    def __post_init__(self) -> None:
        self.one_seed.settings()  # refuses what the paper has no strength for


def singular_values(
    params: Sequence[Any], uses: Mapping[str, Sequence[absum_jax.ConvUse]]
) -> Spectra:
    """Computes all singular values of each convolution of several models."""
    kernels = [named_kernels(tree, uses) for tree in params]
    return {
        path: np.asarray(of_kernels(jnp.stack([model[path] for model in kernels]), use))
        for path, [use] in uses.items()
    }


def initial_params(classifier: Classifier, seed: int) -> Any:
    """Returns the parameters before training, which all settings share."""
    h = optimization.hyperparameters([NONE], learning_rate=0.0, momentum=0.0)
    state = step.init_sweep(classifier, jnp.array([seed]), h)
    return jax.tree.map(lambda leaf: leaf[0, 0], state.variables.params)


def draw(settings: Sequence[Setting], spectra: Spectra, initial: Spectra) -> Figure:
    """Draws the singular values of up to eight layers, one line for each model.

    The upper row has them in descending order, the lower one their mean at each
    distance from frequency zero. Eight of more layers are drawn at equal distances.
    """
    columns = min(len(spectra), _DRAWN_LAYERS)
    drawn = np.linspace(0, len(spectra) - 1, columns).round().astype(int)
    paths = [list(spectra)[i] for i in drawn]
    figure = Figure(figsize=(3.0 * columns + 2.2, 6.2), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for (above, below), path in zip(axes.T, paths, strict=True):
        values = spectra[path]
        styles: list[dict[str, Any]] = [
            method_style(setting.method) | {"label": setting_label(setting)}
            for setting in settings
        ]
        styles.insert(0, {"color": "gray", "lw": 1, "label": "initial"})
        for style, each in zip(styles, [*initial[path], *values], strict=True):
            ordered = np.sort(each.ravel())[::-1]
            above.plot(np.linspace(0, 100, ordered.size), ordered, **style)
            absum_jax.plot_radial_mean(each.mean(axis=-1), ax=below, **style)
        spread_markers(above)
        spread_markers(below)
        log_scale(above)
        above.set_xlabel("larger singular values (%)")
        above.set_ylim(bottom=max(values.min(), values.max() / 100))
        name = path.removesuffix("/kernel")
        above.set_title(f"{name}: {values[0].size:,} singular values", fontsize=9)
        below.set_ylim(0, 1.05 * below.dataLim.ymax)
    axes[0, 0].set_ylabel("singular value")
    axes[1, 0].set_ylabel("mean at a frequency")
    legend_beside(axes[0, -1])
    return figure


def run(options: SpectraOptions) -> list[pathlib.Path]:
    """Trains missing models and draws."""
    one_seed = options.one_seed
    models, settings, [seed] = one_seed.models, one_seed.settings(), one_seed.seeds
    with opened(models) as workspace:
        runs = workspace.train(settings, one_seed.seeds)
    classifier = workspace.classifier
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    params = [run.variables(abstract).params for run in runs]
    image_shape = workspace.dataset.image_shape
    conv_uses = classifier.conv_uses(image_shape)
    uses = {path: conv_uses[path] for path in layers_by_depth(classifier, image_shape)}
    spectra = singular_values(params, uses)
    initial = singular_values([initial_params(classifier, seed)], uses)
    scaled = naming.model_scale(models, methods=(s.method for s in settings))
    path = naming.model_path("spectra", models, scaled, one_seed.variant)
    label = "Singular values of convolutions"
    content = {
        "title": naming.title(label, models, scaled),
        "epochs": models.recipe().epochs,
        "seed": seed,
        "models": [
            {
                **setting._asdict(),
                "run": str(run.config.path),
                "spectral_norms": {p: float(v[i].max()) for p, v in spectra.items()},
                "mean_singular_values": {
                    p: float(v[i].mean()) for p, v in spectra.items()
                },
            }
            for i, (setting, run) in enumerate(zip(settings, runs, strict=True))
        ],
    }
    stem = one_seed.results_dir / path
    title = naming.figure_title(label, models, scaled)
    figure = draw(settings, spectra, initial)
    return document.write(stem, content) + save(figure, title, stem)
