"""A network, and the images that its trained models are evaluated on."""

import contextlib
import dataclasses
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from experiments.data import Split, StreamedSplit
from experiments.data.recorded import RecordedSplit
from experiments.evaluation.points import Evaluation
from experiments.models import Classifier, Variables
from experiments.training import devices
from experiments.training.runs import Run, stacked_variables

# Few, as a CPU has a small cache.
_CPU_BATCH = 50
_SMALL_CPU_BATCH = 200
# Images of a large network per device: enough to fill it. Streamed ones are larger.
_LARGE_BATCH = 2048
_STREAMED_BATCH = 256
# Few enough that a chunk of them in float32 takes a part of a device's memory.
_CHUNK_BATCHES = 4
# Top-1 and top-5 accuracy.
_STREAMED_TOP_K = (1, 5)

# Indices of images, from the first to before the second.
Range = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """A network, and the images that its models are evaluated on.

    Images are put on the devices in chunks. A set held in memory is a single chunk.
    """

    classifier: Classifier
    split: Split | StreamedSplit | RecordedSplit
    name: str  # "test" or "validation"

    def evaluation(self, attack: str, **conditions: Any) -> Evaluation:
        """Describes an attack on these images under some conditions."""
        fingerprint = self.split.fingerprint
        return Evaluation(attack, self.name, len(self.split), fingerprint, conditions)

    @property
    def are_streamed(self) -> bool:
        """Returns whether the images come in several chunks."""
        return not isinstance(self.split, Split | RecordedSplit)

    @property
    def top_k(self) -> int | tuple[int, ...]:
        """Returns how many of the largest logits may hold the label, or several."""
        return _STREAMED_TOP_K if self.are_streamed else 1

    @property
    def chunk_size(self) -> int:
        """Returns how many streamed images are on the devices at a time."""
        return _CHUNK_BATCHES * self.batch_size(1)

    def missing_chunks(self, done: Iterable[Range]) -> list[Range]:
        """Divides the images that are not done into chunks."""
        total = len(self.split)
        if not self.are_streamed:
            return missing_ranges(done, total, total)
        return missing_ranges(done, total, self.chunk_size, len(devices.available()))

    def chunks(
        self, ranges: Sequence[Range]
    ) -> Generator[tuple[jax.Array, jax.Array], None, None]:
        """Yields images in [0, 1] and labels of each range, divided over devices."""
        local = [devices.local_range(*limits) for limits in ranges]
        with contextlib.closing(self._read(local)) as read:
            for (start, stop), parts in zip(ranges, read, strict=True):
                total = stop - start
                sharding = self.sharding(total)
                make = jax.make_array_from_process_local_data
                x, y = (make(sharding, p, (total, *p.shape[1:])) for p in parts)
                yield x.astype(jnp.float32) / 255, y

    def _read(
        self, ranges: Sequence[Range]
    ) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        if isinstance(self.split, RecordedSplit):
            raise TypeError("records have no images.")
        if not isinstance(self.split, Split):
            return self.split.read(ranges)
        images, labels = self.split.images, self.split.labels
        return ((images[start:stop], labels[start:stop]) for start, stop in ranges)

    def sharding(self, images: int) -> NamedSharding:
        """Returns the sharding that divides a number of images over devices.

        On a CPU, those of a small network lie on one device, which uses all cores:
        several would wait for each other after each batch and take twice as long.
        """
        is_alone = devices.on_cpu() and jax.process_count() == 1
        if self.classifier.is_small and is_alone:
            return devices.replicated_per_process()
        return devices.divided_batch(images)

    def arrays(self) -> tuple[jax.Array, jax.Array]:
        """Returns all images and labels as a single chunk."""
        [whole] = self.chunks([(0, len(self.split))])
        return whole

    def variables(self, runs: Sequence[Run]) -> Variables:
        """Stacks the variables of several runs along a new first axis."""
        abstract = jax.eval_shape(self.classifier.init, jax.random.key(0))
        return stacked_variables(runs, abstract)

    def batch_size(self, models: int) -> int:
        """Returns how many images a pass through so many stacked models takes."""
        if devices.on_cpu():
            return _SMALL_CPU_BATCH if self.classifier.is_small else _CPU_BATCH
        if self.classifier.is_small:
            return max(16, 16384 // models)
        if self.are_streamed:
            return _STREAMED_BATCH * len(devices.available())
        return _LARGE_BATCH * devices.devices_per_batch(len(self.split))


def missing_ranges(
    done: Iterable[Range], images: int, size: int, shared_by: int = 1
) -> list[Range]:
    """Divides the images that are not done into ranges of at most a size.

    If several devices divide a range, ranges of fewer images than devices are the
    remainders.
    """
    missing: list[Range] = []
    at = 0
    for start, stop in [*sorted(done), (images, images)]:
        # The remainder has less than an image per device, and is a range by itself.
        whole = start - (start - at) % shared_by
        divided = max(shared_by, size - size % shared_by)
        for end, step in ((whole, divided), (start, size)):
            missing += [(i, min(i + step, end)) for i in range(at, end, step)]
            at = max(at, end)
        at = stop
    return missing
