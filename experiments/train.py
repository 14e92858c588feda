"""Trains models, one or a sweep, and evaluates them on clean images."""

import dataclasses
import pathlib
from collections.abc import Sequence

from absum_jax.markdown import aligned
from experiments import adversaries
from experiments.adversaries import TrainingName
from experiments.config import NONE
from experiments.evaluation import clean
from experiments.jobs.parts import DivisionOptions
from experiments.methods import METHODS
from experiments.options import MethodOptions
from experiments.training.runs import Run
from experiments.workspace import opened


@dataclasses.dataclass(frozen=True)
class TrainOptions(MethodOptions):
    """Train one model, or a sweep over several methods, strengths or seeds. Other
    commands reuse the models in the runs folder."""  # noqa: D205, D209

    training: TrainingName = "clean"
    """clean: on clean images, as in Table 1. pgd: on images that PGD attacks on the
    fly, as in Table 4. fast: on images attacked in one step from a random start."""

    train_steps: int | None = None
    """Number of PGD steps in training; None is the paper's. The step size is scaled so
    that the total distance stays the same (at most 2.5 eps)."""

    division: DivisionOptions = dataclasses.field(default_factory=DivisionOptions)

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        if self.training != "clean":
            adversaries.check_attacked(self.dataset)
        adversaries.check_steps("--train-steps", self.train_steps)

    @property
    def published_strengths(self) -> dict[str, float]:
        """Returns each method's strength that the paper selects for this training."""
        if self.training == "clean":
            return super().published_strengths
        return adversaries.published_strengths(self)


def _row(run: Run, answer: clean.Clean) -> tuple[str, ...]:
    config, last = run.config, run.metrics()[-1]
    if run.has_diverged:  # then it has no loss
        loss = f"diverged at step {last['diverged_at_step']}"
    else:
        loss = f"{last['train_loss']:.4g}"
    return (
        METHODS[config.method].label,
        "" if config.setting == NONE else f"{config.strength:g}",
        str(config.seed),
        f"{100 * answer.accuracy:.2f}",
        loss,
        str(last["epoch"]),
        str(run.folder),
    )


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
    adversary = adversaries.adversary(
        options.dataset, options.training, options.train_steps
    )
    settings, part = options.settings, options.division.selected
    with opened(options, part=part) as workspace:
        runs = workspace.train(settings, options.seeds, adversary)
        answers = clean.evaluate(workspace.test, runs)
    print("\n" + "\n".join(table(runs, answers)) + "\n")
    if part is not None:
        models = len(settings) * len(options.seeds)
        print(f"part {part}: {len(runs)} of {models} models\n")
    return []
