"""Table 4: accuracy under PGD, with and without adversarial training."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from experiments import adversaries
from experiments.adversaries import TrainingName
from experiments.composed import result_options
from experiments.config import NONE, Adversary
from experiments.data import pgd_of
from experiments.evaluation import gradient
from experiments.jobs.parts import DivisionOptions
from experiments.methods import SNC_METHODS
from experiments.options import SweepOptions, check_at_least_1, check_choices
from experiments.published import TABLE4, PublishedPgd
from experiments.reporting import columns, comparisons, document, naming
from experiments.reporting.columns import METHOD, STRENGTH_AND_PUBLISHED, Column, Table
from experiments.reporting.comparisons import Comparison
from experiments.reporting.document import Document
from experiments.reporting.evaluated import Pgd, PgdModel, sweep_workspace, under_pgd
from experiments.reporting.plots import lines
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import select, train_and_evaluate

_TRAINING = {
    "pgd": "adversarial training",
    "fast": "fast adversarial training, beyond the paper",
    "clean": "training on clean images",
}


@dataclasses.dataclass(frozen=True)
class Table4Options:
    """Measure accuracy under PGD for several eps, after adversarial training (Table 4),
    fast adversarial training (one step from a random start), or none."""  # noqa: D205, D209

    sweep: SweepOptions = dataclasses.field(default_factory=SweepOptions)

    training: tuple[TrainingName, ...] = ("pgd", "clean")
    """pgd: train on images attacked by PGD during training, as in Table 4. fast: on
    images attacked in one step from a random start, beyond the paper. clean: on clean
    images, as in Table 1."""

    train_steps: int | None = None
    """Number of PGD steps in training; None is the paper's. The step size is scaled so
    that the total distance stays the same (at most 2.5 eps)."""

    test_steps: int | None = None
    """Number of PGD steps in evaluation; None is the paper's. The step size is scaled
    as in training."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables and figures."""

    division: DivisionOptions = dataclasses.field(default_factory=DivisionOptions)

    def __post_init__(self) -> None:
        pgd_of(self.sweep.models.dataset)  # refuses data sets without PGD
        self.sweep.check_published(TABLE4)
        check_choices("--training", self.training)
        check_at_least_1("--train-steps", self.train_steps)
        check_at_least_1("--test-steps", self.test_steps)

    def adversary(self, training: TrainingName) -> Adversary | None:
        """Returns what attacks the training images; None for training on clean ones."""
        dataset = self.sweep.models.dataset
        return adversaries.adversary(dataset, training, self.train_steps)

    @property
    def evaluation(self) -> gradient.Steps:
        """Returns the steps of PGD in evaluation."""
        paper = pgd_of(self.sweep.models.dataset)
        steps = self.test_steps or paper.test_steps
        step_size = adversaries.step_size(
            paper, paper.test_steps, steps, max(paper.test_eps)
        )
        return gradient.Steps(step_size, steps, paper.init_radius)

    def scaled(self, training: TrainingName) -> list[str]:
        """Returns how models and attacks are scaled down from the published ones."""
        paper = pgd_of(self.sweep.models.dataset)
        steps = [(self.test_steps, paper.test_steps, "evaluation")]
        if training == "pgd":
            steps.insert(0, (self.train_steps, paper.train_steps, "training"))
        return naming.scale(self.sweep, adversarial=training != "clean") + [
            f"{asked} of {published} PGD steps in {where}"
            for asked, published, where in steps
            if asked is not None and asked != published
        ]


def run(options: Table4Options) -> list[pathlib.Path]:
    """Trains, attacks, prints the tables and writes them with their figures."""
    sweep, part = options.sweep, options.division.selected
    eps = pgd_of(sweep.models.dataset).test_eps
    written = []
    with sweep_workspace(sweep, part, result_options(options)) as workspace:
        for training in options.training:
            models = train_and_evaluate(
                sweep, workspace,
                lambda runs: under_pgd(workspace, runs, eps, options.evaluation),
                options.adversary(training), TABLE4,
            )  # fmt: skip
            if part is not None:
                note = document.part_note(sweep, part, [m.run for m in models])
                print(f"\n{_TRAINING[training].capitalize()}. {note}\n")
                continue
            table = table4(options, training, models, len(workspace.test.split))
            written += table.print_and_write(options.results_dir)
            curves = {
                row.setting.method: np.array(
                    [[test.clean.accuracy, *test.accuracies] for test in row.results]
                )
                for row in table.table.rows
            }
            figure = lines.draw(
                (0.0, *eps), {"": curves},  # the title of the figure says the rest
                xlabel="eps, for pixels in [0, 1]", ylabel="accuracy under PGD (%)",
            )  # fmt: skip
            stem = options.results_dir / table.path
            written += save(figure, table.figure_title, stem)
    return written


Row: TypeAlias = columns.Row[Sequence[Pgd], PublishedPgd]


def table4(
    options: Table4Options, training: TrainingName, models: Sequence[PgdModel],
    images: int,
) -> Document[Row]:  # fmt: skip
    """Selects strengths and summarizes the seeds."""
    sweep = options.sweep
    eps = pgd_of(sweep.models.dataset).test_eps
    published = sweep.models.published(TABLE4) if training == "pgd" else {}
    selected, degenerate = select(models, sweep.methods)
    rows = [
        Row(setting, [model.test for model in group], published)
        for setting, group in selected.items()
    ]
    adversary = options.adversary(training)
    left_out = [model.run.config for model in degenerate]
    nan = document.names(m.run.config for m in models if m.test.nan_logits.any())
    return Document(
        "table4" if training == "pgd" else f"table4-{training}",
        f"Table 4, {_TRAINING[training]}",
        sweep,
        table=Table([METHOD, *_columns(eps), _STRENGTH], rows, images),
        notes=[
            *_attack_notes(options, adversary, published, images),
            *document.common_notes(sweep, "mean over eps", left_out, adversary),
            *([f"NaN logits, counted as wrong: {nan}."] if nan else []),
        ],
        claims=_claims(training, rows, published),
        conditions={
            "training": training,
            "adversary": adversary and dataclasses.asdict(adversary),
            "pgd": {"eps": eps} | dataclasses.asdict(options.evaluation),
            "test_images": images,
        },
        details={"models": [model.as_dict() for model in models]},
        scaled=options.scaled(training),
        more_options=result_options(options),
    )


# What the paper publishes is printed, but not recorded.
_STRENGTH = dataclasses.replace(STRENGTH_AND_PUBLISHED, records_published=False)


def _columns(eps: Sequence[float]) -> list[Column[Row]]:
    def attacked(i: int) -> Column[Row]:
        return Column(
            f"eps={eps[i]:.4g}",
            f"eps = {eps[i]:.4g}",
            lambda row: [test.accuracies[i] for test in row.results],
            lambda row: row.published_value(lambda cells: cells.accuracies[i]),
            records_published=False,
        )

    on_clean: Column[Row] = Column(
        "clean", "CLN", lambda row: [test.clean.accuracy for test in row.results]
    )
    return [*map(attacked, range(len(eps))), on_clean]


def _claims(
    training: TrainingName, rows: Sequence[Row], published: Mapping[str, PublishedPgd]
) -> list[Comparison]:
    """Compares Absum with all methods after adversarial training, else with none."""
    if training == "fast":
        return []
    means = {
        row.setting.method: [test.accuracies.mean() for test in row.results]
        for row in rows
    }
    where = "mean over eps"
    if training == "clean":
        return comparisons.compare(means, ["absum"], [NONE.method], where, denies=True)
    others = ["weight_decay", "l1", *SNC_METHODS, NONE.method]
    percent = {m: float(np.mean(cells.accuracies)) for m, cells in published.items()}
    return comparisons.compare(means, ["absum"], others, where, published=percent)


def _attack_notes(
    options: Table4Options, adversary: Adversary | None,
    published: Mapping[str, PublishedPgd], images: int,
) -> list[str]:  # fmt: skip
    steps = options.evaluation
    attack = (
        f"Accuracy in percent under PGD ({steps.steps} steps of {steps.step_size:.4g}, "
        f"start within {steps.init_radius:.4g}) on {images:,} test images"
        f"{document.spread_note(options.sweep)}."
        f"{document.published_note(options.sweep.models.dataset, published)}"
    )
    if adversary is None:
        return [attack]
    return [
        attack,
        f"Trained on images attacked with eps = {adversary.eps:.4g} in "
        f"{adversary.steps} steps of {adversary.step_size:.4g} from within "
        f"{adversary.init_radius:.4g}, and on no others.",
    ]
