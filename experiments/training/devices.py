"""Divides models and batches over several devices, of one process or several."""

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from experiments.jobs import machine
from experiments.jobs.errors import UsageError


class Placement(NamedTuple):
    """A mesh of devices with the axes `seeds`, `sweep` and `data`.

    The models of a program are divided over the first two, by seeds and by settings,
    and each batch over `data`.
    """

    mesh: Mesh

    @property
    def state(self) -> NamedSharding:
        """Shards trees with leading axes (seeds, settings)."""
        return NamedSharding(self.mesh, PartitionSpec("seeds", "sweep"))

    @property
    def seeds(self) -> NamedSharding:
        """Shards arrays with a leading axis (seeds,)."""
        return NamedSharding(self.mesh, PartitionSpec("seeds"))

    @property
    def settings(self) -> NamedSharding:
        """Shards trees with a leading axis (settings,)."""
        return NamedSharding(self.mesh, PartitionSpec("sweep"))

    @property
    def batch(self) -> NamedSharding:
        """Shards arrays with a leading axis (batch,)."""
        return NamedSharding(self.mesh, PartitionSpec("data"))

    @property
    def replicated(self) -> NamedSharding:
        """Replicates arrays on all devices."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def shards(self) -> tuple[int, int]:
        """Counts the parts into which seeds and settings are divided."""
        return self.mesh.shape["seeds"], self.mesh.shape["sweep"]

    def padded(self, settings: int) -> int:
        """Rounds a number of settings up to one that divides over the devices."""
        parts = self.mesh.shape["sweep"]
        return math.ceil(settings / parts) * parts


def _placement(devices: np.ndarray) -> Placement:
    axes = "seeds", "sweep", "data"
    return Placement(Mesh(devices, axes, axis_types=(AxisType.Auto,) * 3))


def largest_divisor(number: int, at_most: int) -> int:
    """Returns the largest divisor of a number up to a bound."""
    return max(d for d in range(1, number + 1) if number % d == 0 and d <= at_most)


def one_for_each_core() -> None:
    """Makes each core a CPU device, unless the environment sets their number.

    Call it before anything asks jax for devices; afterwards it does nothing.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    # RuntimeError: the devices are there.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", machine.available_cores())


_chosen: Sequence[jax.Device] | None = None


@contextlib.contextmanager
def using(devices: Sequence[jax.Device]) -> Iterator[None]:
    """Divides work over these devices, which programs may only be compiled for."""
    global _chosen
    before, _chosen = _chosen, devices
    try:
        yield
    finally:
        _chosen = before


def available() -> list[jax.Device]:
    """Lists the devices to use: all, with those of a process next to each other."""
    devices = jax.devices() if _chosen is None else _chosen
    return sorted(devices, key=lambda d: (d.process_index, d.id))


def _processes() -> int:
    return len({device.process_index for device in available()})


def on_cpu() -> bool:
    """Returns whether the devices in use are CPUs.

    Defaults outside of compiled programs depend on this; what is inside is chosen when
    the program is lowered.
    """
    return available()[0].platform == "cpu"


def replicated_per_process() -> NamedSharding:
    """Returns the sharding that replicates an array once per process."""
    first = {device.process_index: device for device in available()[::-1]}
    return NamedSharding(_mesh(list(first.values())), PartitionSpec())


def devices_per_batch(images: int) -> int:
    """Counts the devices that a batch divides over, as many of each process."""
    processes = _processes()
    if images % processes:
        return 1
    each = largest_divisor(images // processes, len(available()) // processes)
    return processes * each


def divided_batch(images: int) -> NamedSharding:
    """Returns the sharding that divides a batch over as many devices as divide it.

    A batch that does not divide over the processes is replicated once per process.
    """
    each = devices_per_batch(images) // _processes()
    if each == 0:
        return replicated_per_process()
    by_process = itertools.groupby(available(), lambda device: device.process_index)
    shared = [device for _, found in by_process for device in list(found)[:each]]
    return NamedSharding(_mesh(shared), PartitionSpec("data"))


def local_range(start: int, stop: int) -> tuple[int, int]:
    """Returns the part of a range of images that `divided_batch` gives this process."""
    processes = jax.process_count()
    if (stop - start) % processes:
        return start, stop
    size = (stop - start) // processes
    first = start + jax.process_index() * size
    return first, first + size


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def _divide_batch(batch_size: int, most: int, asked: int | None) -> int:
    """Chooses how many devices share a batch: as asked, or the most possible."""
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
    """Lays out arrays, the same on all processes, on the devices of a mesh."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(leaf: Any) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

    return jax.tree.map(place, tree)


@functools.cache
def _replicate(mesh: Mesh) -> Any:
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda leaf: leaf, out_shardings=sharding)


def local_copies(tree: Any) -> Any:
    """Copies arrays of several processes to each; those of one process are returned."""

    def copy(leaf: jax.Array) -> jax.Array:
        sharding = leaf.sharding
        if not isinstance(sharding, NamedSharding) or leaf.is_fully_addressable:
            return leaf
        return _replicate(sharding.mesh)(leaf).addressable_data(0)

    return jax.tree.map(copy, tree)


def to_numpy(tree: Any) -> Any:
    """Copies arrays, of several processes too, to NumPy ones."""
    return jax.tree.map(np.asarray, local_copies(tree))


def joint_placement(
    seeds: int, settings: int, batch_size: int, asked: int | None
) -> Placement:
    """Divides devices for one program of small models, of all seeds and settings.

    As many devices as asked share a batch; None is one, as batches are small. Settings
    are divided, and seeds as well if there are more devices than settings.
    """
    shared = _divide_batch(batch_size, 1, asked)
    groups = len(available()) // shared
    # Each process must take part in the program, if only for padding.
    uses_all = _processes() > 1

    def columns(rows: int) -> int:
        return groups // rows if uses_all else min(groups // rows, settings)

    def cost(rows: int) -> tuple[int, int]:
        """Returns the models of a device, and the number of devices."""
        models = seeds // rows * math.ceil(settings / columns(rows))
        return models, rows * columns(rows)

    divisors = range(1, min(seeds, groups) + 1 if groups > settings else 2)
    rows = min(
        (r for r in divisors if seeds % r == 0 and (groups % r == 0 or not uses_all)),
        key=cost,
    )
    shape = rows, columns(rows), shared
    return _placement(np.array(available()[: math.prod(shape)]).reshape(shape))


def separate_placements(
    models: int, batch_size: int, asked: int | None
) -> list[Placement]:
    """Divides devices into groups, each for one large model at a time.

    As many devices as asked share a batch; None leaves no device idle while there are
    models.
    """
    devices = len(available())
    if _processes() > 1:
        # One model at a time, as each process must take part in each program.
        asked = asked or devices
        if asked != devices or batch_size % devices:
            raise UsageError(
                "--data-parallel must be, for large networks, the number of devices of "
                f"all processes, {devices}, and divide the {batch_size} images of a "
                f"batch, got {asked}."
            )
    spare = devices // largest_divisor(devices, models)
    shared = _divide_batch(batch_size, spare, asked)
    groups = np.array(available()).reshape(-1, 1, 1, shared)
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
    return jax.tree.map(lambda x: jax.lax.slice_in_dim(x, 0, size, axis=axis), tree)
