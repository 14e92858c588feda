"""The networks by name."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
from flax import nnx

from experiments.data.registry import DATASETS
from experiments.models.densenet import DenseNet121
from experiments.models.googlenet import GoogLeNet
from experiments.models.resnet import ImageNetResNet18, ResNet18
from experiments.models.small_cnn import SmallCNN
from experiments.names import Name, Registry


class Width(NamedTuple):
    """A fraction of ResNet-18's channels, beyond the paper."""

    divisor: int
    suffix: str  # of the network's name
    label: str


WIDTHS = {
    "1/2": Width(2, "half", "half"),
    "1/4": Width(4, "quarter", "a quarter"),
    "1/8": Width(8, "eighth", "an eighth"),
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How a network is made, what for, and how it is trained."""

    name: str  # on the command line and in names of folders
    label: str  # in tables and figures
    create: Callable[..., nnx.Module]
    sizes: range  # heights and widths of the images it is for
    channels: int = 3  # of those images
    # A form in which tracing sees the convolutions, if it does not in `create`'s.
    create_native: Callable[..., nnx.Module] | None = None
    has_dropout: bool = False  # then it is called with `dropout_key`
    is_small: bool = False  # whether many models share a program
    has_batch_norm: bool = True
    # Which of equal entries takes the gradient of the network's own max-pooling; None
    # if it has none (flax's always gives it to the first).
    max_pool_ties: str | None = None
    parent: str | None = None  # the network whose channels it has a fraction of

    def is_for(self, shape: tuple[int, ...]) -> bool:
        """Returns whether the network is for images (height, width, channels)."""
        *size, channels = shape
        return channels == self.channels and all(n in self.sizes for n in size)


ARCHITECTURES = Registry[Architecture]()
register = ARCHITECTURES.register


def _listed() -> tuple[str, ...]:
    """Returns the networks but for narrower ones."""
    return tuple(n for n, a in ARCHITECTURES.items() if a.parent is None)


NetworkName = Annotated[str, Name(_listed)]

_SMALL_IMAGES = range(32, 224)
register(
    Architecture(
        "small_cnn", "small CNN", SmallCNN, range(28, 29), channels=1,
        create_native=functools.partial(SmallCNN, form="native"), has_dropout=True,
        is_small=True, has_batch_norm=False, max_pool_ties="first",
    ),
    Architecture("resnet18", "ResNet-18", ResNet18, _SMALL_IMAGES),
    Architecture("googlenet", "GoogLeNet", GoogLeNet, _SMALL_IMAGES),
    Architecture("densenet121", "DenseNet-121", DenseNet121, _SMALL_IMAGES),
    Architecture("resnet18_224", "ResNet-18", ImageNetResNet18, range(224, 225)),
    *(
        Architecture(
            f"resnet18_{width.suffix}", f"ResNet-18, {width.label} of the channels",
            functools.partial(ResNet18, divisor=width.divisor), _SMALL_IMAGES,
            parent="resnet18",
        )
        for width in WIDTHS.values()
    ),
)  # fmt: skip


def networks_for(dataset: str) -> tuple[str, ...]:
    """Returns the networks for a data set; the first is that of Tables 2 to 4."""
    shape = DATASETS[dataset].image_shape
    return tuple(n for n in _listed() if ARCHITECTURES[n].is_for(shape))


def with_width(network: str, width: str) -> str:
    """Returns the name of a network in a width: `"1"` or one of `WIDTHS`."""
    return network if width == "1" else f"{network}_{WIDTHS[width].suffix}"


class _OneKey(nnx.Rngs):
    """The same key for every draw.

    flax counts draws in an array, and asks it for its sharding each time, as in
    `layers.norm`: half of the time that DenseNet-121 takes to be described.
    """

    def __init__(self) -> None:
        pass

    def params(self) -> jax.Array:
        """Returns the key."""
        return jax.random.key(0)


def without_values(create: Callable[..., nnx.Module], **options: Any) -> nnx.Module:
    """Makes a network with shapes in place of arrays, as `nnx.eval_shape` does."""
    return nnx.eval_shape(lambda: create(**options, rngs=_OneKey()))
