"""The data sets, and how the paper treats each."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

DatasetName = Literal[
    "mnist5k", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped"
]
# Ships in a package.
EMBEDDED = "mnist5k"


class Description(NamedTuple):
    """How a data set is used (P, appendix)."""

    standardised: bool  # by the training set's mean and deviation, inside the model
    augmented: bool  # in training: `augmentation.crop_and_flip`
    model: str  # the network of the paper's tables


DATASETS: Mapping[str, Description] = {
    "mnist5k": Description(True, False, "small_cnn"),
    "mnist": Description(True, False, "small_cnn"),
    "fashion_mnist": Description(False, False, "small_cnn"),
    "cifar10": Description(True, True, "resnet18"),
    "cifar100": Description(True, True, "resnet18"),
    "svhn_cropped": Description(False, True, "resnet18"),
}
