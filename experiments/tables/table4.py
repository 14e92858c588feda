"""Table 4: accuracy under PGD or AutoAttack, with and without adversarial training."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from absum_jax.evaluation.auto_attack_result import QUERIES, STEPS, Problems
from experiments import adversaries
from experiments.adversaries import TrainingName
from experiments.composed import result_options
from experiments.config import NONE, Adversary, RunConfig
from experiments.data import DATASETS, pgd_of
from experiments.evaluation import gradient
from experiments.jobs.errors import UsageError
from experiments.jobs.parts import DivisionOptions
from experiments.methods import SNC_METHODS
from experiments.options import (
    AttackName,
    SweepOptions,
    check_at_least_1,
    check_choices,
)
from experiments.published import TABLE1, TABLE4, PublishedPgd
from experiments.published import Table as PublishedTable
from experiments.reporting import auto_attack, columns, comparisons, document, naming
from experiments.reporting.columns import METHOD, STRENGTH_AND_PUBLISHED, Column, Table
from experiments.reporting.comparisons import Comparison
from experiments.reporting.document import Document
from experiments.reporting.evaluated import (
    Auto,
    AutoModel,
    Pgd,
    PgdModel,
    sweep_workspace,
    under_auto_attack,
    under_pgd,
)
from experiments.reporting.plots import lines
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import (
    by_setting,
    select,
    selected_by,
    train_and_evaluate,
)
from experiments.training.runs import Run
from experiments.workspace import Workspace

_TRAINING = {
    "pgd": "adversarial training",
    "fast": "fast adversarial training, beyond the paper",
    "clean": "training on clean images",
}


@dataclasses.dataclass(frozen=True)
class Table4Options:
    """Measure accuracy under PGD for several eps, after adversarial training (Table 4),
    fast adversarial training (one step from a random start), or none; or under
    AutoAttack."""  # noqa: D205, D209

    sweep: SweepOptions = dataclasses.field(default_factory=SweepOptions)

    training: tuple[TrainingName, ...] = ("pgd", "clean")
    """pgd: train on images attacked by PGD during training, as in Table 4. fast: on
    images attacked in one step from a random start, beyond the paper. clean: on clean
    images, the models of Table 1."""

    attack: tuple[AttackName, ...] = ("pgd",)
    """Which attacks to evaluate with, each in a table of its own. pgd: the paper's PGD.
    auto: AutoAttack, beyond the paper, on the strengths that PGD selects; it takes
    about half a second of a CPU core for each image that is not broken, each eps and
    each small model (--test-examples)."""

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
        check_choices("--training", self.training)
        for training in self.training:
            self.sweep.check_published(self.table(training))
        check_choices("--attack", self.attack)
        if "auto" in self.attack:
            self._check_auto_attack()
        check_at_least_1("--train-steps", self.train_steps)
        if self.train_steps and "pgd" not in self.training:
            raise UsageError(
                "--train-steps must be left out without --training pgd, got "
                f"{self.train_steps}."
            )
        check_at_least_1("--test-steps", self.test_steps)

    def _check_auto_attack(self) -> None:
        """Refuses what AutoAttack cannot be evaluated with."""
        models, classes = self.sweep.models, DATASETS[self.sweep.models.dataset].classes
        if classes < 4:
            raise UsageError(
                f"--attack auto needs at least four classes, and {models.dataset} has "
                f"{classes}."
            )
        if models.hosts.distributed:
            raise UsageError("--attack auto does not go with --distributed.")
        if self.division.part is not None and self.sweep.select_on != "paper":
            raise UsageError(
                "--attack auto goes with --part only if --select-on is paper: without "
                "all models no strength is selected."
            )

    def table(self, training: TrainingName) -> PublishedTable[Any]:
        """Returns the table of the paper that has the models' strengths."""
        return TABLE1 if training == "clean" else TABLE4

    def adversary(self, training: TrainingName) -> Adversary | None:
        """Returns what attacks the training images; None for training on clean ones."""
        dataset = self.sweep.models.dataset
        steps = self.train_steps if training == "pgd" else None
        return adversaries.adversary(dataset, training, steps)

    @property
    def evaluation(self) -> gradient.Steps:
        """Returns the steps of PGD in evaluation."""
        paper = pgd_of(self.sweep.models.dataset)
        steps = self.test_steps or paper.test_steps
        step_size = adversaries.step_size(
            paper, paper.test_steps, steps, max(paper.test_eps)
        )
        return gradient.Steps(step_size, steps, paper.init_radius)

    def scaled(self, training: TrainingName, attack: AttackName = "pgd") -> list[str]:
        """Returns how models and attacks are scaled down from the published ones."""
        paper = pgd_of(self.sweep.models.dataset)
        steps = []
        if attack == "pgd":
            steps.append((self.test_steps, paper.test_steps, "evaluation"))
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
    written = []
    with sweep_workspace(sweep, part, result_options(options)) as workspace:
        for training in options.training:
            for attack in options.attack:
                if part is not None:
                    runs = _attack_part(options, workspace, training, attack)
                    note = document.part_note(sweep, part, runs)
                    print(f"\n{_TRAINING[training].capitalize()}. {note}\n")
                elif attack == "auto":
                    table = _under_auto_attack(options, workspace, training)
                    written += _write(options, table, "AutoAttack")
                else:
                    models = _under_pgd(options, workspace, training)
                    images = len(workspace.test.split)
                    of_paper = table4(options, training, models, images)
                    written += _write(options, of_paper, "PGD")
    return written


Row: TypeAlias = columns.Row[Sequence[Pgd | Auto], PublishedPgd]


def _write(
    options: Table4Options, table: Document[Row], attack: str
) -> list[pathlib.Path]:
    """Prints and writes a table, and draws its figure."""
    written = table.print_and_write(options.results_dir)
    eps = pgd_of(options.sweep.models.dataset).test_eps
    curves = {
        row.setting.method: np.array(
            [[test.clean.accuracy, *test.accuracies] for test in row.results]
        )
        for row in table.table.rows
    }
    figure = lines.draw(
        (0.0, *eps), {"": curves},  # the title of the figure says the rest
        xlabel="eps, for pixels in [0, 1]", ylabel=f"accuracy under {attack} (%)",
    )  # fmt: skip
    stem = options.results_dir / table.path
    return written + save(figure, table.figure_title, stem)


def _attack_part(
    options: Table4Options, workspace: Workspace, training: TrainingName,
    attack: AttackName,
) -> list[Run]:  # fmt: skip
    """Trains and attacks a part of the models."""
    if attack == "pgd":
        return [model.run for model in _under_pgd(options, workspace, training)]
    sweep = options.sweep
    settings, adversary = sweep.settings(options.table(training)), options.adversary
    runs = workspace.train(settings, sweep.seeds, adversary(training))
    under_auto_attack(workspace, runs, pgd_of(sweep.models.dataset).test_eps)
    return runs


def _under_pgd(
    options: Table4Options, workspace: Workspace, training: TrainingName
) -> list[PgdModel]:
    """Trains and attacks all strengths, and the selected ones with all seeds."""
    eps = pgd_of(options.sweep.models.dataset).test_eps
    return train_and_evaluate(
        options.sweep, workspace,
        lambda runs: under_pgd(workspace, runs, eps, options.evaluation),
        options.adversary(training), options.table(training),
    )  # fmt: skip


def _under_auto_attack(
    options: Table4Options, workspace: Workspace, training: TrainingName
) -> Document[Row]:
    """Attacks the strengths that PGD selects, or the paper's."""
    sweep = options.sweep
    eps = pgd_of(sweep.models.dataset).test_eps
    selected = selected_by(
        sweep, workspace,
        lambda runs: under_pgd(workspace, runs, eps, options.evaluation),
        options.adversary(training), options.table(training),
    )  # fmt: skip
    models = under_auto_attack(workspace, selected.all_runs, eps)
    known = gradient.known_white_box(
        workspace.test, selected.all_runs, eps, options.evaluation
    )
    images = len(workspace.test.split)
    return table4_auto(options, training, models, selected.left_out, known, images)


def table4(
    options: Table4Options, training: TrainingName, models: Sequence[PgdModel],
    images: int,
) -> Document[Row]:  # fmt: skip
    """Selects strengths and summarizes the seeds."""
    sweep = options.sweep
    published = sweep.models.published(TABLE4) if training == "pgd" else {}
    selected, degenerate = select(models, sweep.methods)
    rows: list[Row] = [
        Row(setting, [model.test for model in group], published)
        for setting, group in selected.items()
    ]
    steps = options.evaluation
    attack = (
        f"PGD ({steps.steps} steps of {steps.step_size:.4g}, start within "
        f"{steps.init_radius:.4g})"
    )
    left_out = [model.run.config for model in degenerate]
    nan = document.names(m.run.config for m in models if m.test.nan_logits.any())
    eps = pgd_of(sweep.models.dataset).test_eps
    return _document(
        options, training, "pgd", rows, images,
        notes=[
            *_attack_notes(options, training, attack, published, images),
            *_common_notes(options, training, "mean over eps", left_out),
            *([f"NaN logits, counted as wrong: {nan}."] if nan else []),
        ],
        claims=_claims(training, rows, published),
        conditions={"pgd": {"eps": eps} | dataclasses.asdict(steps)},
        details={"models": [model.as_dict() for model in models]},
    )  # fmt: skip


def table4_auto(
    options: Table4Options, training: TrainingName, models: Sequence[AutoModel],
    left_out: Sequence[RunConfig], known: np.ndarray | None, images: int,
) -> Document[Row]:  # fmt: skip
    """Summarizes the seeds under AutoAttack.

    Args:
      options: those of the command.
      training: how the models were trained.
      models: those of the selected strengths.
      left_out: models that diverged or predict one class.
      known: their accuracies (models, eps) under PGD on the same images; None if they
        were not evaluated.
      images: the number of images.
    """
    groups = by_setting(models)
    rows: list[Row] = [
        Row(setting, [model.test for model in group], {})
        for setting, group in groups.items()
    ]
    eps = pgd_of(options.sweep.models.dataset).test_eps
    criterion = "mean over eps under PGD"
    problems = np.sum([model.test.attacked.problems for model in models], axis=0)
    under = [None] * len(models) if known is None else known.tolist()
    return _document(
        options, training, "auto", rows, images,
        notes=[
            *_attack_notes(options, training, _AUTO_ATTACK, {}, images),
            *_common_notes(options, training, criterion, left_out),
            *Problems(*problems).sentences(),
        ],
        claims=_claims(training, rows, {}, is_beyond=True),
        conditions={"auto_attack": {"eps": eps, "steps": STEPS, "queries": QUERIES}},
        details={
            "models": [
                model.as_dict() | {"pgd": accuracies}
                for model, accuracies in zip(models, under, strict=True)
            ]
        },
        appendix=[
            *auto_attack.overestimates(models, known, eps), "",
            *auto_attack.broken(models, images),
        ],
    )  # fmt: skip


def _document(
    options: Table4Options, training: TrainingName, attack: AttackName,
    rows: Sequence[Row], images: int, *, conditions: Mapping[str, Any], **parts: Any,
) -> Document[Row]:  # fmt: skip
    """Makes the document of one training and attack; `parts` are more of its fields."""
    adversary = options.adversary(training)
    suffixes = [training] * (training != "pgd") + [attack] * (attack != "pgd")
    by = " by AutoAttack" if attack == "auto" else ""
    eps = pgd_of(options.sweep.models.dataset).test_eps
    return Document(
        "-".join(["table4", *suffixes]),
        f"Table 4{by}, {_TRAINING[training]}",
        options.sweep,
        table=Table([METHOD, *_columns(eps), _STRENGTH], rows, images),
        conditions={
            "training": training,
            "adversary": adversary and dataclasses.asdict(adversary),
            **conditions,
            "test_images": images,
        },
        scaled=options.scaled(training, attack),
        more_options=result_options(options),
        **parts,
    )


def _common_notes(
    options: Table4Options, training: TrainingName, criterion: str,
    left_out: Sequence[RunConfig],
) -> list[str]:  # fmt: skip
    adversary = options.adversary(training)
    return document.common_notes(options.sweep, criterion, left_out, adversary)


_AUTO_ATTACK = "AutoAttack (standard version, L-infinity), beyond the paper,"
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
    training: TrainingName, rows: Sequence[Row], published: Mapping[str, PublishedPgd],
    *, is_beyond: bool = False,
) -> list[Comparison]:  # fmt: skip
    """Compares Absum with all methods after adversarial training, else with none."""
    if training == "fast":
        return []
    means = {
        row.setting.method: [test.accuracies.mean() for test in row.results]
        for row in rows
    }
    where = "mean over eps"
    if training == "clean":
        return comparisons.compare(
            means, ["absum"], [NONE.method], where, denies=True, is_beyond=is_beyond
        )
    others = ["weight_decay", "l1", *SNC_METHODS, NONE.method]
    percent = {m: float(np.mean(cells.accuracies)) for m, cells in published.items()}
    return comparisons.compare(
        means, ["absum"], others, where, published=percent, is_beyond=is_beyond
    )


def _attack_notes(
    options: Table4Options, training: TrainingName, attack: str,
    published: Mapping[str, PublishedPgd], images: int,
) -> list[str]:  # fmt: skip
    note = (
        f"Accuracy in percent under {attack} on {images:,} test images"
        f"{document.spread_note(options.sweep)}."
        f"{document.published_note(options.sweep.models.dataset, published)}"
    )
    adversary = options.adversary(training)
    if adversary is None:
        return [note]
    return [
        note,
        f"Trained on images attacked with eps = {adversary.eps:.4g} in "
        f"{adversary.steps} steps of {adversary.step_size:.4g} from within "
        f"{adversary.init_radius:.4g}, and on no others.",
    ]
