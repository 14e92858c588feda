"""Makes the adversaries of the paper's training, and of fast training beyond it."""

from typing import Literal

from experiments.config import Adversary
from experiments.data import pgd_of
from experiments.data.conditions import Pgd
from experiments.jobs.errors import UsageError

TrainingName = Literal["pgd", "fast", "clean"]


def step_size(paper: Pgd, published: int, steps: int, eps: float) -> float:
    """Computes the step size for another than the published number of steps."""
    if steps == published:
        return paper.step_size
    return min(paper.step_size * published, 2.5 * eps) / steps


def adversary(
    dataset: str, training: TrainingName, steps: int | None = None
) -> Adversary | None:
    """Returns what attacks the training images, in the paper's steps if None is given.

    `"fast"` is one step from a random start.
    """
    if steps is not None and training != "pgd":
        raise UsageError(
            f"--train-steps must be left out with --training {training}, got {steps}: "
            "it is the number of PGD's steps."
        )
    if training == "clean":
        return None
    paper = pgd_of(dataset)
    if training == "fast":
        # A step of 1.25 eps from within eps (Wong et al., 2020).
        return Adversary(paper.train_eps, 1.25 * paper.train_eps, 1, paper.train_eps)
    steps = steps or paper.train_steps
    size = step_size(paper, paper.train_steps, steps, paper.train_eps)
    return Adversary(paper.train_eps, size, steps, paper.init_radius)
