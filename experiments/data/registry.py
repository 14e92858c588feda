"""The data sets by name."""

from collections.abc import Mapping
from typing import Literal

DatasetName = Literal[
    "mnist5k",
    "mnist",
    "fashion_mnist",
    "cifar10",
    "cifar100",
    "svhn_cropped",
    "imagenet2012",
]
# Ships in a package.
EMBEDDED = "mnist5k"
# Pictures of any size, decoded when they are used.
STREAMED = "imagenet2012"

# Whether images are standardized inside the model, by the training set's mean and
# deviation (P, appendix; of ImageNet by PyTorch's example).
STANDARDIZED: Mapping[str, bool] = {
    "mnist5k": True,
    "mnist": True,
    "fashion_mnist": False,
    "cifar10": True,
    "cifar100": True,
    "svhn_cropped": False,
    "imagenet2012": True,
}
# Per-channel mean and deviation that are not computed: those of PyTorch's ImageNet
# example.
STATISTICS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet2012": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
DATASETS = tuple(STANDARDIZED)
CLASSES: Mapping[str, int] = {
    "mnist5k": 10,
    "mnist": 10,
    "fashion_mnist": 10,
    "cifar10": 10,
    "cifar100": 100,
    "svhn_cropped": 10,
    "imagenet2012": 1000,
}
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
