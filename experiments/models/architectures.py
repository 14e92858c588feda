"""The networks by name."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from experiments.models.densenet import DenseNet121
from experiments.models.googlenet import GoogLeNet
from experiments.models.resnet import ImageNetResNet18, ResNet18
from experiments.models.small_cnn import SmallCNN

# Data sets, and how many classes they have.
_GREY = {"mnist5k": 10, "mnist": 10, "fashion_mnist": 10}
_COLOURED = {"cifar10": 10, "cifar100": 100, "svhn_cropped": 10}


class Architecture(NamedTuple):
    """How a network is made, what for, and how it is trained."""

    create: Callable[..., nnx.Module]
    create_native: Callable[..., nnx.Module]  # in a form that tracing can see
    datasets: Mapping[str, int]  # those it is for, and their classes
    has_dropout: bool = False  # then it is called with `dropout_key`
    is_small: bool = False  # whether many models share a program
    # Which of equal entries takes the gradient of the network's own max-pooling; None
    # if it has none (flax's always gives it to the first).
    max_pool_ties: str | None = None


ARCHITECTURES: dict[str, Architecture] = {
    "small_cnn": Architecture(
        SmallCNN,
        functools.partial(SmallCNN, form="native"),
        _GREY,
        has_dropout=True,
        is_small=True,
        max_pool_ties="first",
    ),
    "resnet18": Architecture(ResNet18, ResNet18, _COLOURED),
    "googlenet": Architecture(GoogLeNet, GoogLeNet, _COLOURED),
    "densenet121": Architecture(DenseNet121, DenseNet121, _COLOURED),
    "resnet18_224": Architecture(
        ImageNetResNet18, ImageNetResNet18, {"imagenet2012": 1000}
    ),
}


def networks_for(dataset: str) -> tuple[str, ...]:
    """The networks of a data set; Tables 2 to 4 are of the first."""
    return tuple(
        name
        for name, architecture in ARCHITECTURES.items()
        if dataset in architecture.datasets
    )


class _OneKey(nnx.Rngs):
    """The same key for every draw.

    flax counts draws in an array, and asks it for its sharding each time, as in
    `layers.norm`: half of the time that DenseNet-121 takes to be described.
    """

    def __init__(self) -> None:
        pass

    def params(self) -> jax.Array:
        """The key."""
        return jax.random.key(0)


def without_values(create: Callable[..., nnx.Module], **options: Any) -> nnx.Module:
    """A network with shapes in place of arrays, as `nnx.eval_shape` makes it.

    Args:
      create: its constructor.
      **options: of the constructor, but for `rngs`.
    """
    return nnx.eval_shape(lambda: create(**options, rngs=_OneKey()))
