"""Table 4: accuracy under PGD, with and without adversarial training."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from absum_jax.markdown import aligned
from experiments import adversaries
from experiments.adversaries import TrainingName
from experiments.config import NONE, Adversary
from experiments.data import pgd_of
from experiments.evaluation import gradient
from experiments.jobs.errors import UsageError
from experiments.jobs.shards import DivisionOptions
from experiments.methods import METHODS, SNC_METHODS
from experiments.options import SweepOptions
from experiments.published import TABLE4, PublishedPgd, published_row
from experiments.reporting import claims, document, naming
from experiments.reporting.claims import Claim
from experiments.reporting.document import Document
from experiments.reporting.outcomes import sweep_workspace
from experiments.reporting.plots import pgd
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import tried
from experiments.reporting.under_pgd import Attacked, attack, score, select
from experiments.statistics.summary import Statistic

_TRAINING = {
    "pgd": "adversarial training",
    "fast": "fast adversarial training, beyond the paper",
    "clean": "training on clean images",
}


@dataclasses.dataclass(frozen=True)
class Table4Options(SweepOptions):
    """Accuracy under PGD for a list of eps, after adversarial training (Table 4), fast
    adversarial training (one step from a random start), or none."""  # noqa: D205, D209

    training: tuple[TrainingName, ...] = ("pgd", "clean")
    """On images that PGD attacks on the fly, as in Table 4; on images attacked in one
    step from a random start, beyond the paper; on clean images, as in Table 1."""

    train_steps: int | None = None
    """Steps of PGD in training, which go as far in all, or 2.5 eps where that is less;
    None is the paper's."""

    test_steps: int | None = None
    """Steps of PGD in evaluation, likewise."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables and figures."""

    division: DivisionOptions = dataclasses.field(default_factory=DivisionOptions)

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        adversaries.check_attacked(self.dataset)
        super().__post_init__()
        if not self.training or len(set(self.training)) != len(self.training):
            raise UsageError(
                f"--training must name at least one, each once, got {self.training}."
            )
        adversaries.check_steps("--train-steps", self.train_steps)
        adversaries.check_steps("--test-steps", self.test_steps)

    @property
    def published_strengths(self) -> dict[str, float]:
        """The strength that the paper selects of each method with adversaries."""
        return adversaries.published_strengths(self)

    def adversary(self, training: TrainingName) -> Adversary | None:
        """What attacks the training images."""
        return adversaries.adversary(self.dataset, training, self.train_steps)

    @property
    def evaluation(self) -> gradient.Steps:
        """How PGD goes about it in evaluation."""
        paper = pgd_of(self.dataset)
        steps = self.test_steps or paper.test_steps
        step_size = adversaries.step_size(
            paper, paper.test_steps, steps, max(paper.test_eps)
        )
        return gradient.Steps(step_size, steps, paper.init_radius)

    def scaled(self, training: TrainingName) -> list[str]:
        """How models and attacks fall short of the published ones."""
        paper = pgd_of(self.dataset)
        steps = [(self.test_steps, paper.test_steps, "evaluation")]
        if training == "pgd":
            steps.insert(0, (self.train_steps, paper.train_steps, "training"))
        return naming.scale(self, adversarial=training != "clean") + [
            f"{asked} of {published} PGD steps in {where}"
            for asked, published, where in steps
            if asked is not None and asked != published
        ]


def _claims(
    training: TrainingName, chosen: Mapping[str, Sequence[Attacked]],
    published: Mapping[str, PublishedPgd],
) -> list[Claim]:  # fmt: skip
    """Absum is above all with adversarial training, and does not help without."""
    means = {m: [model.test.mean() for model in group] for m, group in chosen.items()}
    if training == "fast":
        return []
    where = "mean over eps"
    if training == "clean":
        return claims.above(means, ["absum"], [NONE.method], where, denies=True)
    others = ["weight_decay", "l1", *SNC_METHODS, NONE.method]
    theirs = {m: float(np.mean(cells.accuracies)) for m, cells in published.items()}
    return claims.above(means, ["absum"], others, where, published=theirs)


def _notes(
    options: Table4Options, training: TrainingName, models: Sequence[Attacked],
    left_out: Sequence[Attacked], images: int,
) -> list[str]:  # fmt: skip
    steps, adversary = options.evaluation, options.adversary(training)
    notes = [
        f"Accuracy in percent under PGD ({steps.steps} steps of {steps.step_size:.4g}, "
        f"start within {steps.init_radius:.4g}) on {images:,} test images"
        f"{document.with_spread(options)}."
    ]
    if training == "pgd":
        published = published_row(TABLE4, options.dataset, options.published_network)
        notes[0] += document.beside(options.dataset, published)
    if adversary is not None:
        notes.append(
            f"Trained on images attacked with eps = {adversary.eps:.4g} in "
            f"{adversary.steps} steps of {adversary.step_size:.4g} from within "
            f"{adversary.init_radius:.4g}, and on no others."
        )
    undefined = document.names(m.run.config for m in models if m.nan_logits.any())
    return [
        *notes,
        document.training_note(
            options, document.selection_note(options, "mean over eps"), adversary
        ),
        *document.left_out_note(model.run.config for model in left_out),
        *([f"NaN logits, counted as wrong: {undefined}."] if undefined else []),
    ]


def table4(
    options: Table4Options, training: TrainingName, models: Sequence[Attacked],
    images: int,
) -> tuple[Document, dict[str, list[Attacked]]]:  # fmt: skip
    """Selects strengths and summarises the seeds.

    Args:
      options: what was asked for.
      training: how the models were trained.
      models: all of them.
      images: how many were attacked.

    Returns:
      The table, and the models of each method in it.
    """
    eps = pgd_of(options.dataset).test_eps
    published = (
        published_row(TABLE4, options.dataset, options.published_network)
        if training == "pgd"
        else {}
    )
    selected, left_out = select(models)
    chosen: dict[str, list[Attacked]] = {
        method: selected[method] for method in options.methods if method in selected
    }
    rows, records = [], []
    for method, group in chosen.items():
        setting, paper = group[0].run.config.setting, published.get(method)
        under_pgd = np.transpose([model.test for model in group])
        statistics = [Statistic.of(column, images) for column in under_pgd]
        plain = Statistic.of([model.clean.accuracy for model in group], images)
        theirs = paper.accuracies if paper else (None,) * len(eps)
        cells = map(document.with_published, statistics, theirs)
        strength = document.strength(setting, paper.strength if paper else None)
        rows.append((METHODS[method].label, *cells, str(plain), strength))
        columns = {f"eps={e:.4g}": s for e, s in zip(eps, statistics, strict=True)}
        records.append(
            {"method": method, "strength": setting.strength}
            | {
                f"{name}_{key}": value
                for name, statistic in {**columns, "clean": plain}.items()
                for key, value in dataclasses.asdict(statistic).items()
            }
        )
    header = ("method", *(f"eps = {e:.4g}" for e in eps), "CLN", "lambda / sigma")
    held = _claims(training, chosen, published)
    adversary = options.adversary(training)
    table = Document(
        "table4" if training == "pgd" else f"table4-{training}",
        f"Table 4, {_TRAINING[training]}",
        options,
        document.body(
            aligned(header, rows),
            _notes(options, training, models, left_out, images),
            claims.section(held),
        ),
        records,
        {
            "training": training,
            "adversary": adversary and dataclasses.asdict(adversary),
            "pgd": {"eps": eps} | dataclasses.asdict(options.evaluation),
            "test_images": images,
            "rows": records,
            "claims": [claim.as_dict() for claim in held],
            "models": [model.as_dict() for model in models],
        },
        options.scaled(training),
    )
    return table, chosen


def run(options: Table4Options) -> list[pathlib.Path]:
    """Trains, attacks, prints the tables and writes them with their figures."""
    eps = pgd_of(options.dataset).test_eps
    written = []
    part = options.division.own
    with sweep_workspace(options, part) as workspace:
        images = len(workspace.test.split)
        for training in options.training:
            adversary = options.adversary(training)
            models = tried(
                options, workspace,
                lambda runs: attack(workspace, runs, eps, options.evaluation), score,
                adversary,
            )  # fmt: skip
            if part is not None:
                configs = [model.run.config for model in models]
                everything = len(options.settings) * len(options.trial_seeds)
                note = document.part_note(part, configs, everything)
                print(f"\n{_TRAINING[training].capitalize()}. {note}\n")
                continue
            table, chosen = table4(options, training, models, images)
            print(f"\n{table.markdown}\n")
            curves = {
                method: np.array([[m.clean.accuracy, *m.test] for m in group])
                for method, group in chosen.items()
            }
            figure = pgd.draw((0.0, *eps), curves, _TRAINING[training])
            written += table.write(options.results_dir)
            written += save(figure, options.results_dir / table.path)
    return written
