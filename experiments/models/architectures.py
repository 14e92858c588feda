"""The networks by name."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from flax import nnx

from experiments.models.resnet import ResNet18
from experiments.models.small_cnn import SmallCNN


class Architecture(NamedTuple):
    """How a network is made, and how it is trained."""

    create: Callable[..., nnx.Module]
    create_native: Callable[..., nnx.Module]  # in a form that tracing can see
    has_dropout: bool = False  # then it is called with `dropout_key`
    is_small: bool = False  # whether many models share a program, by `vmap`


ARCHITECTURES: dict[str, Architecture] = {
    "small_cnn": Architecture(
        SmallCNN,
        functools.partial(SmallCNN, form="native"),
        has_dropout=True,
        is_small=True,
    ),
    "resnet18": Architecture(ResNet18, ResNet18),
}
