"""Counts what devices exchange in a program, in what XLA compiled for them.

Run as a program, it prints what training and evaluation on ImageNet exchange.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

import absum_jax
from experiments.config import NONE
from experiments.evaluation.single_fourier import attacked_accuracies
from experiments.models import Classifier, build
from experiments.training import devices, optimization, programs, step

# ResNet-18 of ImageNet: its parameters, and the channels of its normalized layers.
PARAMETERS, CHANNELS = 11_689_512, 4_800

_KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
# A line of HLO: name, type, operation and operands.
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?(%[\w.\-]+) = (.*?) ([a-z][a-z\-]*)\(([^)]*)")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
# Sizes that compile quickly: what is exchanged depends neither on the size of the
# images nor on their number.
_SIZE, _BATCH = 64, 32


class Exchange(NamedTuple):
    """One operation in which all devices take part."""

    kind: str  # such as "all-reduce"
    shapes: tuple[tuple[int, ...], ...]  # of a device's operands
    bytes: int  # of a device's operands

    @property
    def has_kernels(self) -> bool:
        """Whether it is one of gradients, not of statistics or scalars alone."""
        # Products keep axes of size one.
        return any(sum(n > 1 for n in shape) > 1 for shape in self.shapes)


class Amount(NamedTuple):
    """How much is exchanged."""

    exchanges: int
    bytes: int  # of each device


class Step(NamedTuple):
    """What a training step exchanges."""

    layers: Amount  # of statistics, each of which the next layer waits for
    end: Amount  # of gradients, and what else nothing waits for

    @property
    def bytes(self) -> int:
        """All of it, of each device."""
        return self.layers.bytes + self.end.bytes


class Exchanged(NamedTuple):
    """What is exchanged of a batch of ImageNet."""

    step: Step
    step_in_groups: Step  # each device normalizes its part of the batch by itself
    single_fourier: Amount  # under one frequency
    pgd: Amount  # of all steps of the attack


def formula_bytes(parameters: int, channels: int) -> int:
    """Returns the bytes of each device that a training step exchanges, in float32.

    The gradients; two sums of each normalized channel, of its values and of their
    squares, or in groups its running mean and variance; the loss and the accuracy. The
    backward pass through statistics of the whole batch needs no other sums than the
    gradients of scale and shift, as CPUs compute it.

    Args:
      parameters: how many the network has.
      channels: the channels of all its normalized layers.
    """
    return 4 * parameters + 4 * 2 * channels + 4 * 2


def _arrays(type_text: str) -> list[tuple[tuple[int, ...], int]]:
    """Shape and bytes of each array of an HLO type."""
    arrays = []
    for name, bits, dimensions in _ARRAY.findall(type_text):
        shape = tuple(map(int, filter(None, dimensions.split(","))))
        width = 8 if name == "pred" else int(bits)
        arrays.append((shape, math.ceil(math.prod(shape) * width / 8)))
    return arrays


def exchanges_of(hlo: str) -> list[Exchange]:
    """The exchanges of a compiled program, in the order of its text.

    One within a loop is listed once, however often the loop goes round.

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
            shapes, sizes = zip(*arrays, strict=True)
            exchanges.append(Exchange(kind, shapes, sum(sizes)))
    return exchanges


def _compiled(lowered: jax.stages.Lowered) -> list[Exchange]:
    text = lowered.compile().as_text()
    assert text is not None  # as it is on devices that XLA compiles for
    return exchanges_of(text)


def _laid_out(tree: Any, sharding: Sharding) -> Any:
    """Shapes in place of arrays that lie on the devices of a mesh."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )


def _classifier(groups: int = 1) -> Classifier:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return build("resnet18_224", mean, std, 1000, batch_norm_groups=groups)


def of_training(
    size: int = _SIZE, batch: int = _BATCH, groups: int = 1
) -> list[Exchange]:
    """The exchanges of a step of training on ImageNet, the batch on all devices.

    Args:
      size: height and width of the images.
      batch: how many there are.
      groups: in how many the batch is normalized.
    """
    classifier = _classifier(groups)
    [placement] = devices.separate_placements(1, batch, None)
    h = optimization.hyperparameters((NONE,), 0.1, 0.9)
    h = optimization.without_unused(h, (NONE,))
    seeds = jnp.array([0])
    state = jax.eval_shape(lambda: step.init_sweep(classifier, seeds, h))
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    lowered = programs.train_batch.lower(
        step.TrainSpec(classifier, batch, epoch_steps=1, placement=placement),
        _laid_out(state, placement.state),
        _laid_out(seeds, placement.replicated), _laid_out(h, placement.settings),
        *_laid_out((images, labels), placement.batch), optimization.schedule(0, 1),
        jnp.asarray(0),
    )  # fmt: skip
    return _compiled(lowered)


def of_attacks(size: int = _SIZE, batch: int = _BATCH) -> list[list[Exchange]]:
    """The exchanges of a batch under the Single Fourier Attack, and under PGD.

    Args:
      size: height and width of the images.
      batch: how many there are.
    """
    classifier = _classifier()
    sharding = devices.divided_batch(batch)
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    variables = jax.eval_shape(classifier.init, jax.random.key(0))
    stacked = jax.eval_shape(
        lambda tree: jax.tree.map(lambda leaf: leaf[None], tree), variables
    )
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    x, y = _laid_out((images, labels), sharding)

    def under_pgd(variables: Any, x: jax.Array, y: jax.Array) -> Any:
        return absum_jax.pgd_accuracy(
            jax.tree_util.Partial(classifier.logits, variables), x, y,
            key=jax.random.key(0), eps=0.1, step_size=0.1, steps=2, batch_size=batch,
        )  # fmt: skip

    attacked = attacked_accuracies.lower(
        classifier, _laid_out(stacked, everywhere), x, y, jnp.zeros((2, 2), int),
        jnp.asarray(0.1), scale="linf", batch=batch, top_k=(1, 5),
    )  # fmt: skip
    pgd = jax.jit(under_pgd).lower(_laid_out(variables, everywhere), x, y)
    return [_compiled(attacked), _compiled(pgd)]


def _amount(exchanges: Iterable[Exchange]) -> Amount:
    sizes = [exchange.bytes for exchange in exchanges]
    return Amount(len(sizes), sum(sizes))


def step_of(exchanges: Sequence[Exchange]) -> Step:
    """What a training step exchanges, divided into what is waited for and the end."""
    return Step(
        _amount(exchange for exchange in exchanges if not exchange.has_kernels),
        _amount(exchange for exchange in exchanges if exchange.has_kernels),
    )


def exchanged() -> Exchanged:
    """What is exchanged on ImageNet, by all devices that there are."""
    groups = len(devices.available())
    steps = step_of(of_training()), step_of(of_training(groups=groups))
    return Exchanged(*steps, *map(_amount, of_attacks()))


def from_json(text: str) -> Exchanged:
    """The inverse of `json.dumps`."""
    whole, grouped, single_fourier, pgd = json.loads(text)
    whole, grouped = (
        Step(*(Amount(*amount) for amount in step)) for step in (whole, grouped)
    )
    return Exchanged(whole, grouped, Amount(*single_fourier), Amount(*pgd))


if __name__ == "__main__":
    print(json.dumps(exchanged()))
