"""The networks by name."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from experiments.data.registry import CLASSES, STREAMED
from experiments.models.densenet import DenseNet121
from experiments.models.googlenet import GoogLeNet
from experiments.models.resnet import ImageNetResNet18, ResNet18
from experiments.models.small_cnn import SmallCNN

# Data sets, and how many classes they have.
_GREY = {name: CLASSES[name] for name in ("mnist5k", "mnist", "fashion_mnist")}
_COLOURED = {name: CLASSES[name] for name in ("cifar10", "cifar100", "svhn_cropped")}

# Shares of ResNet-18's channels, beyond the paper, by what they are divided by, and how
# the names of such networks end.
WIDTHS = {"1/2": (2, "half"), "1/4": (4, "quarter"), "1/8": (8, "eighth")}


class Architecture(NamedTuple):
    """How a network is made, what for, and how it is trained."""

    create: Callable[..., nnx.Module]
    create_native: Callable[..., nnx.Module]  # in a form that tracing can see
    datasets: Mapping[str, int]  # those it is for, and their classes
    has_dropout: bool = False  # then it is called with `dropout_key`
    is_small: bool = False  # whether many models share a program
    has_batch_norm: bool = True
    # Which of equal entries takes the gradient of the network's own max-pooling; None
    # if it has none (flax's always gives it to the first).
    max_pool_ties: str | None = None
    narrowed: str | None = None  # the network of which it has a share of the channels


def _narrower(divisor: int) -> Architecture:
    create = functools.partial(ResNet18, divisor=divisor)
    return Architecture(create, create, _COLOURED, narrowed="resnet18")


ARCHITECTURES: dict[str, Architecture] = {
    "small_cnn": Architecture(
        SmallCNN,
        functools.partial(SmallCNN, form="native"),
        _GREY,
        has_dropout=True,
        is_small=True,
        has_batch_norm=False,
        max_pool_ties="first",
    ),
    "resnet18": Architecture(ResNet18, ResNet18, _COLOURED),
    "googlenet": Architecture(GoogLeNet, GoogLeNet, _COLOURED),
    "densenet121": Architecture(DenseNet121, DenseNet121, _COLOURED),
    "resnet18_224": Architecture(
        ImageNetResNet18, ImageNetResNet18, {STREAMED: CLASSES[STREAMED]}
    ),
    **{f"resnet18_{name}": _narrower(divisor) for divisor, name in WIDTHS.values()},
}


def networks_for(dataset: str) -> tuple[str, ...]:
    """The paper's networks of a data set; Tables 2 to 4 are of the first."""
    return tuple(
        name
        for name, architecture in ARCHITECTURES.items()
        if dataset in architecture.datasets and architecture.narrowed is None
    )


def with_width(network: str, width: str) -> str:
    """The name of a network that has a share of the channels.

    Args:
      network: one of the paper's.
      width: `"1"`, all of them, or one of `WIDTHS`.

    Returns:
      One of `ARCHITECTURES`, if the network comes in other widths.
    """
    return network if width == "1" else f"{network}_{WIDTHS[width][1]}"


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
