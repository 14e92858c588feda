"""How the paper trains on each data set (P, appendix), as data."""

import dataclasses

from experiments.config import Recipe

_GRAY = Recipe(epochs=100, batch_size=64, learning_rate=0.01, momentum=0.5)
_COLOR = Recipe(
    epochs=350,
    batch_size=128,
    learning_rate=0.1,
    momentum=0.9,
    milestones=(150, 250),
    augmented=True,
)
# PyTorch's example of ImageNet training, "except for regularization weight", in 240
# epochs. The example of the time divides the rate by ten every 30 epochs; that it goes
# on doing so beyond its own 90 epochs is our reading. Its crops are of random sizes.
_IMAGENET = Recipe(
    epochs=240,
    batch_size=256,
    learning_rate=0.1,
    momentum=0.9,
    milestones=tuple(range(30, 240, 30)),
    augmented=True,
)
# With adversarial training, which the paper has none of on ImageNet. The adversary is
# in `PGD`.
_SHORTER = dataclasses.replace(_COLOR, epochs=150, milestones=(50, 100))
_SHORTER_WITH_DECAY = dataclasses.replace(_SHORTER, decay=1e-4)

TRAINING: dict[str, Recipe] = {
    "mnist": _GRAY,
    "fashion_mnist": _GRAY,
    "cifar10": _COLOR,
    "cifar100": _COLOR,
    "svhn_cropped": _COLOR,
    "imagenet2012": _IMAGENET,
}
ADVERSARIAL_TRAINING: dict[str, Recipe] = {
    "mnist": _GRAY,
    "fashion_mnist": _GRAY,
    "cifar10": _SHORTER_WITH_DECAY,
    "cifar100": _SHORTER_WITH_DECAY,
    "svhn_cropped": _SHORTER,
}
