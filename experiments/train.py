"""Trains models, one or a sweep, and evaluates them on clean images."""

import dataclasses
import pathlib
from collections.abc import Sequence

from absum_jax.markdown import aligned
from experiments import adversaries
from experiments.adversaries import TrainingName
from experiments.composed import result_options
from experiments.config import Adversary, Setting
from experiments.evaluation import clean
from experiments.jobs.parts import DivisionOptions
from experiments.methods import MethodName
from experiments.options import ModelOptions, check_at_least_1, check_models, settings
from experiments.published import TABLE1, TABLE4
from experiments.reporting.labels import model_cells
from experiments.training.runs import Run
from experiments.workspace import opened


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Train one model, or a sweep over several methods, strengths or seeds. Other
    commands reuse the models in the runs folder."""  # noqa: D205, D209

    models: ModelOptions = dataclasses.field(default_factory=ModelOptions)

    methods: tuple[MethodName, ...] = ("none",)
    """Regularization methods."""

    strengths: tuple[float, ...] | None = None
    """Regularization strengths (lambda) of weight decay, L1 and Absum; None is the one
    that the paper selects. Of fourier-noise, L2 norms of the noise; None is 4."""

    max_norms: tuple[float, ...] | None = None
    """Bounds on the spectral norm (sigma) of SNC; None is the one that the paper
    selects."""

    seeds: tuple[int, ...] = (0,)
    """Seeds; each trains every method and strength once."""

    training: TrainingName = "clean"
    """clean: train on clean images, as in Table 1. pgd: on images attacked by PGD
    during training, as in Table 4. fast: on images attacked in one step from a random
    start."""

    train_steps: int | None = None
    """Number of PGD steps in training; None is the paper's. The step size is scaled so
    that the total distance stays the same (at most 2.5 eps)."""

    division: DivisionOptions = dataclasses.field(default_factory=DivisionOptions)

    def __post_init__(self) -> None:
        check_models(self.methods, self.strengths, self.max_norms, self.seeds)
        check_at_least_1("--train-steps", self.train_steps)
        _ = self.adversary  # refuses data sets without PGD

    @property
    def adversary(self) -> Adversary | None:
        """Returns what attacks the training images; None for training on clean ones."""
        return adversaries.adversary(
            self.models.dataset, self.training, self.train_steps
        )

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Returns every method at every strength that is to be trained."""
        table = TABLE1 if self.training == "clean" else TABLE4
        return settings(
            self.models, self.methods, self.strengths, self.max_norms, table
        )


def _row(run: Run, answer: clean.Clean) -> tuple[str, ...]:
    last, accuracy = run.metrics()[-1], f"{100 * answer.accuracy:.2f}"
    if run.has_diverged:  # then it has no loss
        loss = f"diverged at step {last['diverged_at_step']}"
    else:
        loss = f"{last['train_loss']:.4g}"
    epoch, folder = str(last["epoch"]), str(run.folder)
    return (*model_cells(run.config), accuracy, loss, epoch, folder)


def table(runs: Sequence[Run], answers: Sequence[clean.Clean]) -> list[str]:
    """Makes the lines of a table of trained models."""
    # Without Top-5 there is no need to name it.
    kind = "Top-1 " if any(answer.top5 is not None for answer in answers) else ""
    header = (
        *("method", "lambda / sigma", "seed", f"clean {kind}accuracy (%)"),
        *("training loss", "epochs", "folder"),
    )
    rows = [_row(*model) for model in zip(runs, answers, strict=True)]
    return aligned(header, rows)


def run(options: TrainOptions) -> list[pathlib.Path]:
    """Trains missing models and prints the table; writes nothing but the runs."""
    chosen, part = options.settings, options.division.selected
    with opened(options.models, part=part, whole=result_options(options)) as workspace:
        runs = workspace.train(chosen, options.seeds, options.adversary)
        answers = clean.evaluate(workspace.test, runs)
    print("\n" + "\n".join(table(runs, answers)) + "\n")
    if part is not None:
        models = len(chosen) * len(options.seeds)
        print(f"part {part}: {len(runs)} of {models} models\n")
    return []
