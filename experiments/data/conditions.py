"""How the paper trains on, and attacks, gray and color images (P, appendix)."""

import dataclasses
from typing import NamedTuple

from experiments.config import Recipe


class Pgd(NamedTuple):
    """PGD on one data set, in training and evaluation, for pixels in [0, 1]."""

    step_size: float
    init_radius: float  # of the uniform random start
    train_eps: float
    train_steps: int
    test_eps: tuple[float, ...]
    test_steps: int
    transfer_eps: float  # Table 2
    recipe: Recipe  # of adversarial training


class Conditions(NamedTuple):
    """How models are trained and attacked."""

    recipe: Recipe
    single_fourier_eps: float  # of the Single Fourier Attack, for pixels in [0, 1]
    pgd: Pgd | None  # None where the paper has no PGD


_GRAY_RECIPE = Recipe(epochs=100, batch_size=64, learning_rate=0.01, momentum=0.5)
_COLOR_RECIPE = Recipe(
    epochs=350,
    batch_size=128,
    learning_rate=0.1,
    momentum=0.9,
    milestones=(150, 250),
    augmented=True,
)
_SHORTER = dataclasses.replace(_COLOR_RECIPE, epochs=150, milestones=(50, 100))

# The appendix ends its list of eps at 0.4, Table 4 at 0.30.
GRAY = Conditions(
    _GRAY_RECIPE,
    single_fourier_eps=80 / 255,
    pgd=Pgd(
        step_size=0.01,
        init_radius=2 / 255,
        train_eps=0.3,
        train_steps=40,
        test_eps=(0.05, 0.10, 0.15, 0.20, 0.25, 0.30),
        test_steps=40,
        transfer_eps=0.2,
        recipe=_GRAY_RECIPE,
    ),
)
SVHN = Conditions(
    _COLOR_RECIPE,
    single_fourier_eps=10 / 255,
    pgd=Pgd(
        step_size=2 / 255,
        init_radius=2 / 255,
        train_eps=8 / 255,
        train_steps=7,
        test_eps=(4 / 255, 8 / 255, 12 / 255, 16 / 255, 20 / 255),
        test_steps=100,
        transfer_eps=4 / 255,
        recipe=_SHORTER,
    ),
)
assert SVHN.pgd is not None
# Adversarial training decays all weights on CIFAR.
COLOR = SVHN._replace(
    pgd=SVHN.pgd._replace(recipe=dataclasses.replace(_SHORTER, decay=1e-4))
)
# PyTorch's example of ImageNet training, "except for regularization weight", in 240
# epochs. The example of the time divides the rate by ten every 30 epochs; that it goes
# on doing so beyond its own 90 epochs is our reading. Its crops are of random sizes.
IMAGENET = Conditions(
    Recipe(
        epochs=240,
        batch_size=256,
        learning_rate=0.1,
        momentum=0.9,
        milestones=tuple(range(30, 240, 30)),
        augmented=True,
    ),
    single_fourier_eps=10 / 255,
    pgd=None,
)
