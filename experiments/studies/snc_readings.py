"""Readings of the spectral-norm constraint, side by side.

The published SNC rows do not follow from the plain reading; this trains the others.
From the written documents `explaining.snc_as_published` decides which of them explain
the rows of several data sets.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from experiments.config import NONE, Setting
from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS
from experiments.models import Classifier
from experiments.options import ModelOptions, check_choices, check_positive, check_seeds
from experiments.published import TABLE1, Published
from experiments.reporting import document, naming
from experiments.reporting.columns import aligned
from experiments.reporting.evaluated import under_single_fourier
from experiments.reporting.selection import by_setting
from experiments.studies import snc_explaining as explaining
from experiments.studies.snc_constraints import READINGS
from experiments.studies.snc_rows import HEADER, Row
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
    """Seeds that nothing is trained with. A reading, of all that there are, is shown
    with them in place of --seeds where its models are in the runs folder already."""

    test_examples: int | None = None
    """Images to attack, a fixed choice of that many; None is all."""

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
        return [s for s in self.all_settings if s.method in self.methods]

    @property
    def all_settings(self) -> list[Setting]:
        """Returns the settings that may be shown, of all readings that there are."""
        constrained = [
            Setting(reading, max_norm)
            for reading in READINGS
            if reading != NONE.method
            for max_norm in self.max_norms
        ]
        return [NONE, *constrained]

    @property
    def published(self) -> Published | None:
        """Returns the published row of SNC; None where the paper has none."""
        return TABLE1.get((self.models.dataset, self.models.model), {}).get("snc")


def check_fit(
    classifier: Classifier, image_shape: tuple[int, ...], readings: Sequence[str]
) -> None:
    """Refuses readings that a network's geometry does not allow.

    Raises:
      UsageError: which names the reading.
    """
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


def _finished(workspace: Workspace, options: SncReadingsOptions) -> list[Run]:
    """Returns the models of `--finished-seeds`, for each setting all or none.

    Raises:
      UsageError: if a setting has some of them, or no setting has any.
    """
    found: list[Run] = []
    for setting in options.all_settings:
        runs = workspace.runs([setting], options.finished_seeds)
        complete = [run for run in runs if run.is_complete]
        if 0 < len(complete) < len(runs):
            missing = next(run.config.path for run in runs if run not in complete)
            raise UsageError(
                f"--finished-seeds must have all models of a reading or none, and "
                f"{options.models.runs_dir} lacks {missing}."
            )
        found += complete
    if options.finished_seeds and not found:
        raise UsageError(
            f"--finished-seeds {options.finished_seeds}: {options.models.runs_dir} has "
            "no such models."
        )
    return found


def _shown(workspace: Workspace, options: SncReadingsOptions) -> list[Run]:
    """Trains missing models, and returns those in the table, by setting."""
    finished = _finished(workspace, options)
    trained = workspace.train(options.settings, options.seeds)
    shown = []
    for setting in options.all_settings:
        of_setting, others = (
            [run for run in runs if run.config.setting == setting]
            for runs in (finished, trained)
        )
        shown += of_setting or others
    return shown


def _acted(workspace: Workspace, options: SncReadingsOptions, run: Run) -> bool | None:
    """Returns whether the constraint acted; None where that is unknown."""
    [unconstrained] = workspace.runs([NONE], [run.config.seed])
    return explaining.has_acted(
        run, unconstrained if unconstrained.is_complete else None
    )


def _title(options: SncReadingsOptions) -> str:
    scale = naming.model_scale(options.models, options.test_examples)
    return naming.title("Readings of SNC", options.models, scale)


def _markdown(options: SncReadingsOptions, rows: Sequence[Row], images: int) -> str:
    published, train = options.published, options.models.train_examples
    cells = [row.cells(published) for row in rows]
    if published:
        numbers = (f"{n:.2f}" for n in (published.avg, published.min, published.clean))
        sigma = f"{published.strength:g}"
        cells.append(("published", sigma, "", "", *numbers, "", "", ""))
    return document.page(
        _title(options),
        aligned(HEADER, cells),
        "Accuracy in percent under the Single Fourier Attack, eps = 80/255, on "
        f"{images:,} test images: mean and minimum over all frequencies, and on clean "
        "images; of several seeds mean ± standard deviation. "
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
        image_shape = workspace.dataset.image_shape
        check_fit(workspace.classifier, image_shape, options.methods)
        models = under_single_fourier(workspace, _shown(workspace, options))
        described = {
            model.run: model.as_dict()
            | {"acted": _acted(workspace, options, model.run)}
            for model in models
        }
    rows = [
        Row(setting, group, [described[model.run] for model in group])
        for setting, group in by_setting(models).items()
    ]
    images = models[0].test.images
    text = _markdown(options, rows, images)
    print(f"\n{text}\n")
    scale = naming.model_scale(trained, options.test_examples)
    published = options.published
    # At other bounds than the published one it is another document.
    has_published = published is None or published.strength in options.max_norms
    stem = options.results_dir / naming.model_path(
        "snc-readings", trained, scale, "" if has_published else "-bounds"
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
