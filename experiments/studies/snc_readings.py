"""Readings of the spectral-norm constraint, side by side.

The published SNC rows do not follow from the plain reading; this trains the others.
From the written documents `explaining.snc_as_published` decides which of them explain
the rows of several data sets.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.config import NONE, Setting
from experiments.data import DATASETS
from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS
from experiments.models import Classifier
from experiments.options import (
    ModelOptions,
    check_choices,
    check_positive,
    check_seeds,
    shown,
)
from experiments.published import TABLE1, Published
from experiments.reporting import document, naming
from experiments.reporting.columns import aligned
from experiments.reporting.evaluated import (
    ACCURACIES,
    SingleFourierModel,
    under_single_fourier,
)
from experiments.reporting.selection import by_setting
from experiments.statistics.intervals import Interval
from experiments.statistics.summary import Statistic
from experiments.studies import snc_explaining as explaining
from experiments.studies.snc_constraints import READINGS
from experiments.training.runs import Run, provenance
from experiments.workspace import Workspace, opened


@dataclasses.dataclass(frozen=True)
class SncReadingsOptions:
    """Train a network under several readings of the paper's spectral-norm constraint
    (SNC), attack each model with every frequency, and list which readings predict the
    published row."""  # noqa: D205, D209

    models: ModelOptions = dataclasses.field(default_factory=ModelOptions)

    methods: tuple[str, ...] = tuple(READINGS)
    """Readings to train."""

    max_norms: tuple[float, ...] = (1.0, 10.0)
    """Bounds on the spectral norm (sigma)."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; each trains every reading at every bound once."""

    finished_seeds: tuple[int, ...] = ()
    """Seeds of models that are already in the runs folder; nothing is trained with
    them. Readings that have all models of these seeds, whether or not among --methods,
    are shown with them in place of --seeds."""

    test_examples: int | None = None
    """Number of test images to attack, always the same random subset; None is all."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the table."""

    def __post_init__(self) -> None:
        check_choices("--methods", self.methods, READINGS)
        check_positive("--max-norms", self.max_norms)
        check_seeds(self.seeds)
        if self.finished_seeds:
            check_seeds(self.finished_seeds, "--finished-seeds")

    @property
    def settings(self) -> list[Setting]:
        """Returns the settings that are trained: every reading at every bound."""
        return [
            Setting(reading, strength)
            for reading in READINGS
            if reading in self.methods
            for strength in (self.max_norms if reading != NONE.method else (0.0,))
        ]

    @property
    def published(self) -> Published | None:
        """Returns the published row of SNC; None where the paper has none."""
        return TABLE1.get((self.models.dataset, self.models.model), {}).get("snc")


def check_fit(
    classifier: Classifier, image_shape: tuple[int, ...], readings: Sequence[str]
) -> None:
    """Refuses readings that a network's geometry does not allow."""
    params = jax.eval_shape(classifier.init, jax.random.key(0)).params
    uses = classifier.conv_uses(image_shape)
    for reading in readings:
        constraint = METHODS[reading].constraint
        if constraint is None:
            continue
        try:
            jax.eval_shape(
                lambda params, bound, c=constraint: c.apply(params, bound, uses),
                params, jnp.ones([]),
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(
                f"--methods {reading} does not fit the network: {error} Leave it out."
            ) from error


def _shown(workspace: Workspace, options: SncReadingsOptions) -> list[Run]:
    """Trains missing models, and returns those in the table, by setting.

    A setting of which all models of `--finished-seeds` are there is shown with those.
    """
    finished: dict[Setting, list[Run]] = {}
    for setting in dataclasses.replace(options, methods=tuple(READINGS)).settings:
        runs = workspace.runs([setting], options.finished_seeds)
        complete = [run for run in runs if run.is_complete]
        if 0 < len(complete) < len(runs):
            missing = next(run.config.path for run in runs if run not in complete)
            raise UsageError(
                f"--finished-seeds must have all models of a reading or none, and "
                f"{options.models.runs_dir} lacks {missing}."
            )
        finished[setting] = complete
    if options.finished_seeds and not any(finished.values()):
        raise UsageError(
            f"--finished-seeds {shown(options.finished_seeds)}: "
            f"{options.models.runs_dir} has no such models."
        )
    trained = workspace.train(options.settings, options.seeds)
    return [
        run
        for setting, complete in finished.items()
        for run in complete or trained
        if run.config.setting == setting
    ]


_ACTS = {True: "yes", False: "never", None: "unknown"}
_HEADER = (
    "reading", "sigma", "seeds", "acts", "Avg.", "Min.", "CLN", "predicted Avg.",
    "predicted CLN", "explains",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Row:
    """A reading at a bound."""

    setting: Setting
    attacked: Sequence[SingleFourierModel]
    models: Sequence[Mapping[str, Any]]  # of the document, in the same order

    @property
    def seeds(self) -> list[int]:
        """Returns the seeds of the models."""
        return [model["seed"] for model in self.models]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Returns the intervals of `explaining.intervals`; empty for a single model."""
        return explaining.intervals(self.models) if len(self.models) > 1 else {}

    @property
    def statistics(self) -> dict[str, Statistic]:
        """Returns accuracies under attack and on clean images over seeds."""
        tests = [model.test for model in self.attacked]
        return {
            name: Statistic.of([accuracy(test) for test in tests], tests[0].images)
            for name, accuracy in ACCURACIES.items()
        }

    def explains(self, published: Published | None) -> bool | None:
        """Checks whether it explains the published row; None at other bounds."""
        if published is None or not self.intervals:
            return None
        if self.setting != NONE and self.setting.strength != published.strength:
            return None
        return explaining.explains(self.models, published)

    def cells(self, published: Published | None) -> tuple[str, ...]:
        """Returns the cells below `_HEADER`, accuracies in percent."""
        statistics, is_none = self.statistics, self.setting == NONE
        intervals = [
            f"{100 * low:.2f} to {100 * high:.2f}"
            for low, high in self.intervals.values()
        ] or [""] * len(explaining.ACCURACIES)
        explains = self.explains(published)
        return (
            READINGS[self.setting.method],
            "" if is_none else f"{self.setting.strength:g}",
            " ".join(map(str, self.seeds)),
            "" if is_none else _ACTS[explaining.acts(self.models)],
            *(str(statistics[name]) for name in ("avg", "min", "clean")),
            *intervals,
            "" if explains is None else "yes" if explains else "no",
        )  # fmt: skip

    def as_dict(self, published: Published | None) -> dict[str, Any]:
        """Returns the row for JSON, accuracies as fractions."""
        intervals = {name: i._asdict() for name, i in self.intervals.items()}
        if self.explains(published) is not None:
            for name, interval in self.intervals.items():
                is_held = explaining.contains(interval, getattr(published, name))
                intervals[name]["holds_published"] = is_held
        return {
            "reading": self.setting.method,
            "description": READINGS[self.setting.method],
            "max_norm": self.setting.strength or None,
            "seeds": self.seeds,
            "acts": explaining.acts(self.models),
            **{name: dataclasses.asdict(s) for name, s in self.statistics.items()},
            "prediction": intervals,
            "explains": self.explains(published),
        }


def _title(options: SncReadingsOptions) -> str:
    scale = naming.model_scale(options.models, options.test_examples)
    return naming.title("Readings of SNC", options.models, scale)


def _markdown(options: SncReadingsOptions, rows: Sequence[_Row], images: int) -> str:
    published, train = options.published, options.models.train_examples
    eps = DATASETS[options.models.dataset].conditions.single_fourier_eps
    cells = [row.cells(published) for row in rows]
    if published:
        numbers = (f"{n:.2f}" for n in (published.avg, published.min, published.clean))
        sigma = f"{published.strength:g}"
        cells.append(("published", sigma, "", "", *numbers, "", "", ""))
    return document.page(
        _title(options),
        aligned(_HEADER, cells),
        "Accuracy in percent under the Single Fourier Attack, "
        f"eps = {255 * eps:g}/255, on {images:,} test images: mean and minimum over "
        "all frequencies, and on clean images; of several seeds mean ± standard "
        "deviation. "
        f"{options.models.recipe().epochs} epochs on "
        f"{'all' if train is None else f'{train:,}'} training images. A reading acts "
        "if its constraint ever changed a model. Predicted is where one more run lies, "
        f"with {explaining.CONFIDENCE:g} %; a reading explains the published row if "
        "mean and clean accuracy lie there.",
    )


def run(options: SncReadingsOptions) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and writes it."""
    trained = options.models
    with opened(trained, test_examples=options.test_examples) as workspace:
        shape = workspace.dataset.image_shape
        check_fit(workspace.classifier, shape, options.methods)
        models = under_single_fourier(workspace, _shown(workspace, options))
        described = {}
        for model in models:
            [none] = workspace.runs([NONE], [model.run.config.seed])
            acted = explaining.has_acted(model.run, none if none.is_complete else None)
            described[model.run] = model.as_dict() | {"acted": acted}
    rows = [
        _Row(setting, group, [described[model.run] for model in group])
        for setting, group in by_setting(models).items()
    ]
    images = models[0].test.images
    text = _markdown(options, rows, images)
    print(f"\n{text}\n")
    scale = naming.model_scale(trained, options.test_examples)
    published = options.published
    # At other bounds than the published one it is another document.
    has_published = published is None or published.strength in options.max_norms
    variant = "" if has_published else naming.variant(options, "max_norms")
    stem = options.results_dir / naming.model_path(
        "snc-readings", trained, scale, variant
    )
    content = {
        "title": _title(options),
        "dataset": trained.dataset,
        "epochs": trained.recipe().epochs,
        "seeds": options.seeds,
        "finished_seeds": options.finished_seeds,
        "train_examples": trained.train_examples,
        "test_images": images,
        "published": published and published._asdict(),  # in percent
        "confidence": explaining.CONFIDENCE / 100,
        "rows": [row.as_dict(published) for row in rows],
        "models": list(described.values()),
        "provenance": provenance(),
    }
    return [
        files.write_json(stem.with_suffix(".json"), digests.with_checksum(content)),
        files.write_text(stem.with_suffix(".md"), text + "\n"),
    ]
