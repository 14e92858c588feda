"""Counts what devices exchange in a program, in what XLA compiled for them."""

import math
import re
from typing import NamedTuple

# ResNet-18 of ImageNet: its parameters, those of convolutions among them, and the
# channels of its normalized layers.
PARAMETERS, KERNELS, CHANNELS = 11_689_512, 11_166_912, 4_800

_KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
# A line of HLO: name, type, operation and operands.
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?(%[\w.\-]+) = (.*?) ([a-z][a-z\-]*)\(([^)]*)")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")


class Array(NamedTuple):
    """An operand of an exchange."""

    dtype: str  # as HLO names it, such as "f32"
    shape: tuple[int, ...]
    bytes: int


class Exchange(NamedTuple):
    """One operation in which all devices take part."""

    kind: str  # such as "all-reduce"
    operands: tuple[Array, ...]  # of a device

    @property
    def bytes(self) -> int:
        """Sums the bytes of a device's operands."""
        return sum(array.bytes for array in self.operands)

    @property
    def has_kernels(self) -> bool:
        """Returns whether it is one of gradients, not of statistics or scalars."""
        # Products keep axes of size one.
        return any(sum(n > 1 for n in array.shape) > 1 for array in self.operands)


def formula_bytes(parameters: int, channels: int, in_bfloat16: int = 0) -> int:
    """Returns the bytes of each device that a training step exchanges.

    All in float32, or in part in bfloat16: the gradients; two sums of each normalized
    channel, of its values and of their squares, or in groups its running mean and
    variance; the loss and the accuracy. The backward pass through statistics of the
    whole batch needs no other sums than the gradients of scale and shift, as CPUs
    compute it.

    Args:
      parameters: how many the network has.
      channels: the channels of all its normalized layers.
      in_bfloat16: the parameters whose gradients are summed in bfloat16.
    """
    return 4 * parameters - 2 * in_bfloat16 + 4 * 2 * channels + 4 * 2


def _arrays(type_text: str) -> list[Array]:
    """Lists the arrays of an HLO type."""
    arrays = []
    for name, bits, dimensions in _ARRAY.findall(type_text):
        shape = tuple(map(int, filter(None, dimensions.split(","))))
        width = 8 if name == "pred" else int(bits)
        arrays.append(Array(name, shape, math.ceil(math.prod(shape) * width / 8)))
    return arrays


def exchanges_of(hlo: str) -> list[Exchange]:
    """Lists the exchanges of a compiled program, in the order of its text.

    One within a loop is listed once, however often the loop runs.

    Args:
      hlo: its text, as `jax.stages.Compiled.as_text` returns it.
    """
    found = [match for line in hlo.splitlines() if (match := _INSTRUCTION.match(line))]
    types = {match[1]: match[2] for match in found}
    exchanges = []
    for match in found:
        # What is begun and awaited apart counts where it is begun.
        kind = match[3].removesuffix("-start")
        if kind in _KINDS:
            operands = re.findall(r"%[\w.\-]+", match[4])
            arrays = [array for name in operands for array in _arrays(types[name])]
            exchanges.append(Exchange(kind, tuple(arrays)))
    return exchanges
