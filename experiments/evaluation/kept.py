"""Evaluations of trained models, kept in each run's folder as they come."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from experiments.data import Split
from experiments.data.recorded import RecordedSplit
from experiments.evaluation.points import Evaluation, Line, Point, Points
from experiments.jobs.progress import progress
from experiments.models import Classifier, Variables
from experiments.training import devices
from experiments.training.runs import Run, stacked_variables

# Few, as a CPU has a small cache.
_CPU_BATCH = 50
_SMALL_CPU_BATCH = 200
# Images of a large network a device: enough to fill it. Streamed ones are larger.
_LARGE_BATCH = 2048
_STREAMED_BATCH = 256
# Few enough that a chunk of them in float32 takes a part of a device's memory.
_CHUNK_BATCHES = 4
# Streamed images are told by their largest logit, and by their five largest.
_STREAMED_TOP_K = (1, 5)

# Indices of images, from the first to before the second.
Range = tuple[int, int]


class Streamed(Protocol):
    """Images that do not fit into memory, read as they are wanted."""

    def __len__(self) -> int:
        """The number of images."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""

    @property
    def fingerprint(self) -> str:
        """A digest of the content, which tells two splits apart."""

    def read(
        self, ranges: Sequence[Range]
    ) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """Images (stop - start, h, w, channels) uint8 and labels of each range."""


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """A network, and the images that its models are evaluated on.

    Held ones lie on the device all at once (`arrays`), streamed ones chunk by chunk
    (`chunks`).
    """

    classifier: Classifier
    split: Split | Streamed | RecordedSplit
    name: str  # "test" or "validation"

    def evaluation(self, attack: str, **conditions: Any) -> Evaluation:
        """What an attack on these images under some conditions is called."""
        fingerprint = self.split.fingerprint
        return Evaluation(attack, self.name, len(self.split), fingerprint, conditions)

    @property
    def are_streamed(self) -> bool:
        """Whether they do not all lie on the device at once."""
        return not isinstance(self.split, Split | RecordedSplit)

    @property
    def top_k(self) -> int | tuple[int, ...]:
        """How many of the largest logits may hold the label; several are told apart."""
        return _STREAMED_TOP_K if self.are_streamed else 1

    def arrays(self) -> tuple[jax.Array, jax.Array]:
        """Images in [0, 1] and labels, divided over as many devices as share them.

        On a CPU, those of a small network lie on one device, which uses all cores:
        several would wait for each other after each batch and take twice as long.
        """
        if not isinstance(self.split, Split):
            raise TypeError("streamed images do not lie on the device all at once.")
        total = len(self.split)
        own = slice(*devices.local_range(0, total))
        images, labels = self.split.images[own], self.split.labels[own]
        is_alone = devices.on_cpu() and jax.process_count() == 1
        if self.classifier.is_small and is_alone:
            return _on_devices(images, labels, total, devices.replicated_per_process())
        return _on_devices(images, labels, total, devices.divided_batch(total))

    @property
    def chunk_size(self) -> int:
        """How many streamed images lie on the devices at a time."""
        return _CHUNK_BATCHES * self.batch_size(1)

    def chunks(
        self, ranges: Sequence[Range]
    ) -> Generator[tuple[jax.Array, jax.Array], None, None]:
        """Yields streamed images and labels range by range, as `arrays` has them."""
        if isinstance(self.split, Split | RecordedSplit):
            raise TypeError("held images do not come in chunks.")
        parts = [devices.local_range(*limits) for limits in ranges]
        with contextlib.closing(self.split.read(parts)) as read:
            for (start, stop), own in zip(ranges, read, strict=True):
                total = stop - start
                yield _on_devices(*own, total, devices.divided_batch(total))

    def variables(self, runs: Sequence[Run]) -> Variables:
        """The networks of several runs, stacked along a new first axis."""
        abstract = jax.eval_shape(self.classifier.init, jax.random.key(0))
        return stacked_variables(runs, abstract)

    def batch_size(self, models: int) -> int:
        """Images a pass through stacked models."""
        if devices.on_cpu():
            return _SMALL_CPU_BATCH if self.classifier.is_small else _CPU_BATCH
        if self.classifier.is_small:
            return max(16, 16384 // models)
        if self.are_streamed:
            return _STREAMED_BATCH * len(devices.available())
        return _LARGE_BATCH * devices.devices_per_batch(len(self.split))

    def groups(self, members: Sequence[int]) -> list[Sequence[int]]:
        """Which models are evaluated in one program."""
        if self.classifier.is_small:
            return [members]
        return [[member] for member in members]


def _on_devices(
    images: np.ndarray, labels: np.ndarray, total: int, sharding: NamedSharding
) -> tuple[jax.Array, jax.Array]:
    """Lays images, in [0, 1], and labels out on devices.

    Args:
      images: those of this process, as `devices.local_range` divides them.
      labels: theirs.
      total: how many images all processes have together.
      sharding: how they are to lie.
    """
    x, y = (
        jax.make_array_from_process_local_data(sharding, part, (total, *part.shape[1:]))
        for part in (images, labels)
    )
    return x.astype(jnp.float32) / 255, y


def _values(lines: Iterable[Line]) -> dict[Point, Any]:
    return {line["point"]: line["value"] for line in lines}


def kept(
    images: EvaluationSet,
    runs: Sequence[Run],
    evaluation: Evaluation,
    points: Sequence[Point],
    compute: Callable[[Any, jax.Array, jax.Array, Any], Sequence[Any]],
    unit: str,
) -> list[dict[Any, Any]]:
    """Evaluates trained models on held images; skips what is on disk already.

    All models that miss the same points go through one program, large ones one by one,
    a point a call, and each value is written to the folders of the runs as it comes.

    Args:
      images: what they are evaluated on.
      runs: trained models.
      evaluation: what is evaluated.
      points: the parts of the evaluation.
      compute: from stacked variables, images, labels and a point to a value for each
        model, which JSON holds.
      unit: what a point is called, in the singular.

    Returns:
      The value at each point, of each run.
    """
    kept_points = [Points(run, evaluation) for run in runs]
    missing = []
    for own in kept_points:
        done = _values(own.read())
        missing.append(tuple(point for point in points if point not in done))
    # In an order that is the same for all processes, as that of a set is not.
    groups = [group for group in dict.fromkeys(missing) if group]
    for group in sorted(groups, key=len, reverse=True):
        alike = [i for i, points in enumerate(missing) if points == group]
        for members in images.groups(alike):
            for i in members:
                kept_points[i].begin()
            variables = images.variables([runs[i] for i in members])
            x, y = images.arrays()
            plural = "model" if len(members) == 1 else "models"
            title = (
                f"{evaluation.attack}: {len(members)} {plural} on "
                f"{evaluation.examples} images"
            )
            with progress(len(group), title, unit) as advance:
                for point in group:
                    values = compute(variables, x, y, point)
                    for i, value in zip(members, values, strict=True):
                        kept_points[i].append({"point": point, "value": value})
                    advance(1)
    results = []
    for own in kept_points:
        known = _values(own.read())
        results.append({point: known[point] for point in points})
    return results
