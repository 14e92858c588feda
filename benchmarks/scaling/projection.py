"""How training on ImageNet would scale on accelerators: computed, not measured.

What is exchanged is counted (`exchanges`); the rest is `Assumptions`, the rate of
decoding alone from a measurement.
"""

import dataclasses
import math
from typing import NamedTuple

from benchmarks.scaling.exchanges import Step
from experiments.data import DATASETS
from experiments.jobs.errors import UsageError
from experiments.training.constraints import CLIP_EVERY

IMAGES, TEST_IMAGES = 1_281_167, 50_000
RECIPE = DATASETS["imagenet2012"].conditions.recipe
# Of ResNet-18 at 224 x 224: 1.82e9 multiplications, and as many additions.
FORWARD_FLOPS = 3.63e9
# A forward pass, and backward its like for the values and for the parameters.
TRAINING_FLOPS = 3 * FORWARD_FLOPS


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What is assumed of accelerators, hosts and the network between them."""

    tflops: float = 150.0
    """Operations a second of an accelerator, in TFLOP/s: what it reaches, not its
    peak, and the same for few images as for many."""

    host_gigabytes: float = 200.0
    """GB/s from each accelerator to the next one within a host, each way."""

    network_gigabytes: float = 25.0
    """GB/s from each host to the next one, each way."""

    hop_microseconds: float = 5.0
    """Microseconds that a small message takes from one accelerator to another."""

    accelerators_per_host: int = 8
    """How many accelerators a host has."""

    cores_per_host: int = 96
    """How many cores of a host decode."""

    images_per_core: float = 380.0
    """Images a second that a core decodes, as docs/data.md has it."""

    def __post_init__(self) -> None:
        """Refuses what is not positive."""
        for name, value in dataclasses.asdict(self).items():
            if not 0 < value < math.inf:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} must be positive and finite, got {value}.")


class Projected(NamedTuple):
    """A step of training, in seconds, and what follows from it."""

    accelerators: int
    hosts: int
    batch: int
    compute: float
    layers: float  # exchange of statistics, while nothing else is done
    gradients: float  # exchange of gradients
    reading: float  # decoding of the step's images by all cores of the hosts

    @property
    def step(self) -> float:
        """Nothing is computed while gradients are exchanged, as it is compiled."""
        return self.compute + self.layers + self.gradients

    @property
    def overlapped(self) -> float:
        """The gradients are exchanged during the backward pass, as far as it lasts."""
        backward = self.compute * 2 / 3
        return self.compute - backward + self.layers + max(backward, self.gradients)

    @property
    def efficiency(self) -> float:
        """The share of a step in which it computes."""
        return self.compute / self.step

    @property
    def fed(self) -> float:
        """A step as the cores feed it: images are decoded during the one before."""
        return max(self.step, self.reading)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return IMAGES // self.batch


def ring_seconds(accelerators: int, size: float, assumed: Assumptions) -> float:
    """Seconds to sum arrays over a ring, whose slowest link decides.

    Each link carries 2 (n - 1) / n of the bytes.

    Args:
      accelerators: n.
      size: bytes of the arrays of each.
      assumed: of the links.
    """
    rate = assumed.network_gigabytes
    if accelerators <= assumed.accelerators_per_host:
        rate = assumed.host_gigabytes
    return 2 * (accelerators - 1) / accelerators * size / (1e9 * rate)


def tree_seconds(accelerators: int, assumed: Assumptions) -> float:
    """Seconds to sum a few bytes over a tree, there and back.

    Args:
      accelerators: how many.
      assumed: of a hop.
    """
    return 2 * math.ceil(math.log2(accelerators)) * 1e-6 * assumed.hop_microseconds


def project(
    accelerators: int, batch: int, exchanged: Step, assumed: Assumptions
) -> Projected:
    """A step of training on ImageNet.

    Args:
      accelerators: how many share the batch.
      batch: images a step, a multiple of them.
      exchanged: what the step exchanges.
      assumed: the rest.

    Raises:
      ValueError: if the batch does not divide over the accelerators.
    """
    if batch % accelerators:
        raise ValueError(
            f"batch must divide over {accelerators} accelerators, got {batch}."
        )
    hosts = math.ceil(accelerators / assumed.accelerators_per_host)
    decoded = hosts * assumed.cores_per_host * assumed.images_per_core
    return Projected(
        accelerators=accelerators,
        hosts=hosts,
        batch=batch,
        compute=batch / accelerators * TRAINING_FLOPS / (1e12 * assumed.tflops),
        layers=exchanged.layers.exchanges * tree_seconds(accelerators, assumed),
        gradients=ring_seconds(accelerators, exchanged.end.bytes, assumed),
        reading=batch / decoded,
    )


def single_fourier_seconds(
    accelerators: int, frequencies: int, assumed: Assumptions
) -> float:
    """Seconds of the Single Fourier Attack on all test images, which exchanges nothing.

    Args:
      accelerators: how many share the images.
      frequencies: of the attack.
      assumed: of an accelerator.
    """
    passes = TEST_IMAGES * frequencies
    return passes * FORWARD_FLOPS / (1e12 * assumed.tflops * accelerators)


def pgd_seconds(accelerators: int, steps: int, assumed: Assumptions) -> float:
    """Seconds of PGD on all test images, which exchanges nothing.

    A step is a forward pass and its like backward; the answer is one more.

    Args:
      accelerators: how many share the images.
      steps: of the attack.
      assumed: of an accelerator.
    """
    passes = TEST_IMAGES * (2 * steps + 1)
    return passes * FORWARD_FLOPS / (1e12 * assumed.tflops * accelerators)


def clips() -> int:
    """How often SNC clips all convolutions in the published schedule."""
    return RECIPE.epochs * (IMAGES // RECIPE.batch_size) // CLIP_EVERY


def clip_share(training: Projected, clip_seconds: float) -> float:
    """The share of training with SNC that is the clip, which each device does alike.

    Args:
      training: a step of it without.
      clip_seconds: of one clip of all convolutions by one accelerator.
    """
    return clip_seconds / (clip_seconds + CLIP_EVERY * training.step)
