"""How models and batches lie on several devices."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.errors import UsageError


class Placement(NamedTuple):
    """A mesh of devices with the axes `sweep` and `data`.

    The models of a program are divided over `sweep`, each batch over `data`.
    """

    mesh: Mesh

    @property
    def state(self) -> NamedSharding:
        """Of trees with leading axes (seeds, settings)."""
        return NamedSharding(self.mesh, PartitionSpec(None, "sweep"))

    @property
    def settings(self) -> NamedSharding:
        """Of trees with a leading axis (settings,)."""
        return NamedSharding(self.mesh, PartitionSpec("sweep"))

    @property
    def batch(self) -> NamedSharding:
        """Of what has a leading axis (batch,)."""
        return NamedSharding(self.mesh, PartitionSpec("data"))

    @property
    def everywhere(self) -> NamedSharding:
        """Of what each device has a copy of."""
        return NamedSharding(self.mesh, PartitionSpec())

    def padded(self, settings: int) -> int:
        """The next number of settings that divides over the devices."""
        shards = self.mesh.shape["sweep"]
        return math.ceil(settings / shards) * shards


def _placement(devices: np.ndarray) -> Placement:
    return Placement(Mesh(devices, ("sweep", "data"), axis_types=(AxisType.Auto,) * 2))


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of a number up to a bound."""
    return max(d for d in range(1, number + 1) if number % d == 0 and d <= at_most)


def data_axis(models: int, batch_size: int, asked: int | None) -> int:
    """How many devices share a batch.

    Args:
      models: how many are to be trained.
      batch_size: images a step.
      asked: what the user asks for; None leaves no device idle while there are models.

    Raises:
      UsageError: if what is asked for divides neither devices nor batch.
    """
    devices = jax.device_count()
    if asked is None:
        spare = devices // largest_divisor(devices, models)
        return largest_divisor(math.gcd(devices, batch_size), spare)
    if asked < 1 or devices % asked or batch_size % asked:
        raise UsageError(
            f"--data-parallel must divide the {devices} devices and the {batch_size} "
            f"images of a batch, got {asked}."
        )
    return asked


def together(data_devices: int) -> Placement:
    """All devices for one program of many models."""
    return _placement(np.array(jax.devices()).reshape(-1, data_devices))


def apart(data_devices: int) -> list[Placement]:
    """Groups of devices, each for one model at a time."""
    devices = np.array(jax.devices()).reshape(-1, 1, data_devices)
    return [_placement(group) for group in devices]


def pad_settings(tree: Any, axis: int, size: int) -> Any:
    """Repeats the last setting until there are as many as asked for."""

    def pad(leaf: jax.Array) -> jax.Array:
        index = np.minimum(np.arange(size), leaf.shape[axis] - 1)
        return jnp.take(leaf, index, axis)

    return jax.tree.map(pad, tree)
