"""How models and batches lie on several devices, of one process or several."""

import contextlib
import functools
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from experiments.jobs.errors import UsageError


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
    def replicated(self) -> NamedSharding:
        """Replicates arrays on all devices."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def shards(self) -> int:
        """How many devices the models are divided over."""
        return self.mesh.shape["sweep"]

    def padded(self, settings: int) -> int:
        """The next number of settings that divides over the devices."""
        return math.ceil(settings / self.shards) * self.shards


def _placement(devices: np.ndarray) -> Placement:
    return Placement(Mesh(devices, ("sweep", "data"), axis_types=(AxisType.Auto,) * 2))


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of a number up to a bound."""
    return max(d for d in range(1, number + 1) if number % d == 0 and d <= at_most)


def one_for_each_core() -> None:
    """Makes each core a CPU device, unless the environment sets their number.

    Call it before anything asks jax for devices; afterwards it does nothing.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    # RuntimeError: the devices are there.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", len(cores))


def available() -> list[jax.Device]:
    """The devices to use: all there are, those of a process next to each other."""
    return sorted(jax.devices(), key=lambda d: (d.process_index, d.id))


def on_cpu() -> bool:
    """Returns whether the devices in use are CPUs.

    Defaults outside of compiled programs depend on this; what is inside is chosen when
    the program is lowered.
    """
    return available()[0].platform == "cpu"


def replicated_per_process() -> NamedSharding:
    """Returns the sharding that replicates an array once per process."""
    own = {device.process_index: device for device in available()[::-1]}
    return NamedSharding(_mesh(list(own.values())), PartitionSpec())


def sharing(images: int) -> int:
    """How many devices so many images divide over, as many of each process."""
    processes = jax.process_count()
    if images % processes:
        return 1
    each = largest_divisor(images // processes, len(available()) // processes)
    return processes * each


def divided_batch(images: int) -> NamedSharding:
    """Of images that are divided over as many devices as can share them alike.

    Where so many do not divide over the processes, each has all of them.
    """
    each = sharing(images) // jax.process_count()
    if each == 0:
        return replicated_per_process()
    of_process: dict[int, list[jax.Device]] = {}
    for device in available():
        of_process.setdefault(device.process_index, []).append(device)
    shared = [device for own in of_process.values() for device in own[:each]]
    return NamedSharding(_mesh(shared), PartitionSpec("data"))


def local_range(start: int, stop: int) -> tuple[int, int]:
    """The part of a range of images that `divided_batch` gives to this process."""
    processes = jax.process_count()
    if (stop - start) % processes:
        return start, stop
    size = (stop - start) // processes
    first = start + jax.process_index() * size
    return first, first + size


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def _sharing(batch_size: int, most: int, asked: int | None) -> int:
    """How many devices share a batch: as many as asked, or the most that divide it.

    Raises:
      UsageError: if what is asked for divides neither devices nor batch.
    """
    devices = len(available())
    if asked is None:
        return largest_divisor(math.gcd(devices, batch_size), most)
    if asked < 1 or devices % asked or batch_size % asked:
        raise UsageError(
            f"--data-parallel must divide the {devices} devices and the {batch_size} "
            f"images of a batch, got {asked}."
        )
    return asked


def put(tree: Any, sharding: Sharding) -> Any:
    """Lays arrays that all processes have out on the devices of a mesh.

    Args:
      tree: of NumPy arrays, or of arrays of this process; the same on all of them.
      sharding: how they are to lie.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(leaf: Any) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

    return jax.tree.map(place, tree)


@functools.cache
def _laid_out(sharding: NamedSharding) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=sharding)


def local_copies(tree: Any, sharding: NamedSharding) -> Any:
    """Whole copies of arrays of several processes, of each process for itself.

    What one process has by itself is returned as it is.

    Args:
      tree: of arrays on the devices of a mesh.
      sharding: replicated, of the same mesh.
    """
    if jax.process_count() == 1:
        return tree
    copies = _laid_out(sharding)(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), copies)


def to_numpy(tree: Any) -> Any:
    """NumPy copies of arrays, of several processes too: whole ones for each."""

    def fetch(leaf: jax.Array) -> np.ndarray:
        sharding = leaf.sharding
        if isinstance(sharding, NamedSharding) and not sharding.is_fully_addressable:
            leaf = _laid_out(NamedSharding(sharding.mesh, PartitionSpec()))(leaf)
        return np.asarray(leaf)

    return jax.tree.map(fetch, tree)


def joint_placement(settings: int, batch_size: int, asked: int | None) -> Placement:
    """Devices for one program of many small models.

    Args:
      settings: how many models of a seed there are to divide.
      batch_size: images a step.
      asked: how many devices are to share a batch; None is one, as batches are small.

    Raises:
      UsageError: if the devices or the batch cannot be divided as asked.
    """
    if jax.process_count() > 1:
        # Each process has to be part of the program, if only for padding.
        settings = len(available())
    shared = _sharing(batch_size, 1, asked)
    shards = min(len(available()) // shared, settings)
    devices = np.array(available()[: shards * shared])
    return _placement(devices.reshape(shards, shared))


def separate_placements(
    models: int, batch_size: int, asked: int | None
) -> list[Placement]:
    """Groups of devices, each for one large model at a time.

    Args:
      models: how many are to be trained.
      batch_size: images a step.
      asked: how many devices are to share a batch; None leaves no device idle while
        there are models.

    Raises:
      UsageError: if the devices or the batch cannot be divided as asked.
    """
    devices = len(available())
    if jax.process_count() > 1:
        # One model at a time, as each process has to be part of each program.
        asked = asked or devices
        if asked != devices or batch_size % devices:
            raise UsageError(
                "--data-parallel must be, for large networks, the number of devices of "
                f"all processes, {devices}, and divide the {batch_size} images of a "
                f"batch, got {asked}."
            )
    spare = devices // largest_divisor(devices, models)
    shared = _sharing(batch_size, spare, asked)
    groups = np.array(available()).reshape(-1, 1, shared)
    return [_placement(group) for group in groups]


@functools.partial(jax.jit, static_argnames=("axis", "size"))
def pad_settings(tree: Any, axis: int, size: int) -> Any:
    """Repeats the last setting until there are as many as asked for."""

    def pad(leaf: jax.Array) -> jax.Array:
        index = np.minimum(np.arange(size), leaf.shape[axis] - 1)
        return jnp.take(leaf, index, axis)

    return jax.tree.map(pad, tree)


@functools.partial(jax.jit, static_argnames=("axis", "size"))
def unpad_settings(tree: Any, axis: int, size: int) -> Any:
    """Returns the first settings, as many as asked for."""
    return jax.tree.map(
        lambda leaf: jax.lax.slice_in_dim(leaf, 0, size, axis=axis), tree
    )
