"""The data sets by name."""

from collections.abc import Mapping
from typing import Literal

DatasetName = Literal[
    "mnist5k", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped",
    "imagenet2012",
]  # fmt: skip
# Ships in a package.
EMBEDDED = "mnist5k"

# Whether images are standardized inside the model, by the training set's mean and
# deviation (P, appendix).
STANDARDIZED: Mapping[str, bool] = {
    "mnist5k": True,
    "mnist": True,
    "fashion_mnist": False,
    "cifar10": True,
    "cifar100": True,
    "svhn_cropped": False,
    "imagenet2012": True,
}
DATASETS = tuple(STANDARDIZED)
# Of the training images: (examples, height, width, channels).
TRAIN_SHAPES: Mapping[str, tuple[int, int, int, int]] = {
    "mnist5k": (4_000, 28, 28, 1),
    "mnist": (60_000, 28, 28, 1),
    "fashion_mnist": (60_000, 28, 28, 1),
    "cifar10": (50_000, 32, 32, 3),
    "cifar100": (50_000, 32, 32, 3),
    "svhn_cropped": (73_257, 32, 32, 3),
    "imagenet2012": (1_281_167, 224, 224, 3),
}
