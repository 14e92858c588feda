"""A part of a data set whose pictures are decoded when they are asked for."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Generator, Iterable, Sequence

import numpy as np
from PIL import Image

from experiments.data import pictures, prepared, workers
from experiments.data.registry import DATASETS, STREAMED
from experiments.data.split import check_labels, subset_indices
from experiments.jobs.errors import UsageError

Batch = tuple[
    np.ndarray, np.ndarray
]  # images (N, 224, 224, 3) uint8, labels (N,) int32
Batches = Generator[Batch, None, None]
# Images that a worker makes at a time. Small, so that workers share a batch, and that
# what they hold ready takes little memory.
PIECE = 32
# More than the steps of any training.
_ENDLESS = 2**48


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """Pictures of a prepared data set of ImageNet's form, none of them held."""

    folder: pathlib.Path  # of the prepared data set
    name: str  # of the split that TFDS has
    examples: np.ndarray  # (N,) which of its examples, in the order of this split
    workers: int  # processes that decode; 0 is threads of this one

    def __len__(self) -> int:
        """The number of images."""
        return len(self.examples)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of the images made of the pictures."""
        return pictures.SIZE, pictures.SIZE, 3

    def take(self, indices: np.ndarray) -> "StreamedSplit":
        """The images at some indices."""
        return dataclasses.replace(self, examples=self.examples[indices])

    def subset(self, examples: int | None, option: str) -> "StreamedSplit":
        """As `Split.subset`."""
        if examples is None:
            return self
        return self.take(subset_indices(examples, len(self), option))

    @property
    def fingerprint(self) -> str:
        """A digest that tells two splits apart, without a look at their pictures.

        Of the version, the names and lengths of the files, the bytes of all examples
        and which of them are used: sets that agree in all of these, and differ in
        pixels or labels, would have the same.
        """
        files = prepared.files(self.folder, self.name)
        names = [path.name for path in files.paths]
        content = f"{self.folder.name} {names} {files.examples} {files.size}"
        digest = hashlib.sha256(content.encode())
        digest.update(self.examples.astype("<i8").tobytes())
        return digest.hexdigest()[:12]

    def training_batches(
        self, seed: int, batch_size: int, first: int, *, part: tuple[int, int] = (0, 1)
    ) -> Batches:
        """Yields the batches of a training, without end, decoded ahead.

        Each epoch is another permutation, of which the last `len(self) % batch_size`
        examples sit out. It is drawn from the seed and the epoch, and the crop and flip
        of an example from the seed, the epoch and the example: so the batch of a step
        is the same wherever iteration begins, whoever decodes it, and over however many
        hosts it is divided.

        Args:
          seed: not negative.
          batch_size: of all hosts together.
          first: the step of the whole training, from 0, whose batch comes first.
          part: this host's number, from 0, and how many hosts there are; each yields a
            contiguous part of every batch, as large as the others'.

        Returns:
          Images (batch_size / hosts, 224, 224, 3) uint8 and labels int32, batch by
          batch; to be closed, which ends the processes.

        Raises:
          UsageError: if a batch cannot be divided among the hosts, or a file is
            missing; while iterating, if an example is damaged.
          ValueError: if another argument is out of range.
        """
        host, hosts = part
        if not 0 <= host < hosts:
            raise ValueError(f"part must be a host and how many there are, got {part}.")
        if seed < 0 or first < 0:
            raise ValueError(f"seed and first must not be negative: {seed}, {first}.")
        if not 1 <= batch_size <= len(self):
            raise ValueError(
                f"batch_size must lie in 1..{len(self)}, the images of this split, "
                f"got {batch_size}."
            )
        if batch_size % hosts:
            raise UsageError(
                f"a batch of {batch_size} images cannot be divided among {hosts} hosts "
                "alike."
            )
        size = batch_size // hosts
        make = _TrainingPieces(
            _Reader(self.folder, self.name), self.examples,
            seed, batch_size, _ranges(host * size, (host + 1) * size),
        )  # fmt: skip
        first_piece = first * len(make.ranges)
        return self._joined(
            make, first_piece, _ENDLESS, itertools.repeat(make.ranges)
        )  # fmt: skip

    def read(self, ranges: Sequence[tuple[int, int]]) -> Batches:
        """Yields images as they are evaluated, decoded ahead.

        Args:
          ranges: (start, stop) indices, of which none is empty.

        Returns:
          Images (stop - start, 224, 224, 3) uint8 and labels int32, range by range in
          order; to be closed, which ends the processes.

        Raises:
          UsageError: if a file is missing; while iterating, if an example is damaged.
          ValueError: if a range is none of this split.
        """
        for start, stop in ranges:
            if not 0 <= start < stop <= len(self):
                raise ValueError(f"({start}, {stop}) is no range in 0..{len(self)}.")
        parts = [_ranges(*limits) for limits in ranges]
        make = _EvaluationPieces(
            _Reader(self.folder, self.name),
            self.examples,
            list(itertools.chain(*parts)),
        )
        return self._joined(make, 0, len(make.ranges), parts)

    def _joined(
        self,
        make: Callable[[int], Batch],
        first: int,
        stop: int,
        joined: Iterable[list[tuple[int, int]]],
    ) -> Batches:
        """Joins the pieces of some ranges each time, which are made ahead."""
        with contextlib.closing(
            workers.ahead(make, first, stop, self.workers)
        ) as pieces:
            for ranges in joined:
                sizes = [end - start for start, end in ranges]
                size = sum(sizes)
                images = np.empty((size, *self.image_shape), np.uint8)
                labels = np.empty(size, np.int32)
                at = 0
                # Copied one by one: what comes from a process lies in shared memory, of
                # which there is little.
                for length in sizes:
                    piece = slice(at, at + length)
                    images[piece], labels[piece] = next(pieces)
                    at += length
                yield images, labels


def whole(folder: pathlib.Path, name: str, processes: int) -> StreamedSplit:
    """All examples of a split of a prepared data set.

    Args:
      folder: of the data set.
      name: of the split.
      processes: how many decode; 0 is threads of this one.

    Raises:
      UsageError: if the split or a file of it is missing.
    """
    files = prepared.files(folder, name)
    prepared.check_lengths(folder, files)
    return StreamedSplit(folder, name, np.arange(sum(files.examples)), processes)


def _ranges(start: int, stop: int) -> list[tuple[int, int]]:
    """Divides a range into what workers make at a time."""
    return [(i, min(i + PIECE, stop)) for i in range(start, stop, PIECE)]


class _Reader:
    """Decodes examples of a split; its files are opened by whom it is sent to."""

    def __init__(self, folder: pathlib.Path, split: str) -> None:
        self._split = split
        self._files = prepared.files(folder, split)
        self._source = prepared.encoded(folder, split)
        workers.allow_open_files(len(self._files.paths))

    def images(
        self, examples: np.ndarray, image_of: Callable[[Image.Image, int], np.ndarray]
    ) -> Batch:
        """Reads some examples.

        Args:
          examples: which.
          image_of: makes an image of a picture and its example.

        Raises:
          UsageError: if one of them is damaged.
        """
        images = np.empty((len(examples), pictures.SIZE, pictures.SIZE, 3), np.uint8)
        labels = np.empty(len(examples), np.int32)
        for i, example in enumerate(examples.tolist()):
            picture, labels[i] = self._decoded(example)
            images[i] = image_of(picture, example)
        return images, labels

    def _decoded(self, example: int) -> tuple[Image.Image, int]:
        name = "of unknown name"
        try:
            stored = self._source[example]
            name = stored["file_name"].decode()
            check_labels(np.atleast_1d(stored["label"]), DATASETS[STREAMED].classes)
            return pictures.decode(stored["image"]), stored["label"]
        # array_record, protobuf, TFDS and Pillow each have errors of their own.
        except Exception as error:
            file, record = self._place(example)
            raise UsageError(
                f"record {record} of {file} (example {example} of the {self._split} "
                f"split, {name}) cannot be read: {error}. If the file is damaged, copy "
                "or prepare the set anew."
            ) from error

    def _place(self, example: int) -> tuple[pathlib.Path, int]:
        """The file of an example, and its number there."""
        ends = np.cumsum(self._files.examples)
        number = int(np.searchsorted(ends, example, side="right"))
        start = int(ends[number]) - self._files.examples[number]
        return self._files.paths[number], example - start


@dataclasses.dataclass(frozen=True)
class _TrainingPieces:
    """The parts of this host of every batch, numbered over the whole training."""

    reader: _Reader
    examples: np.ndarray
    seed: int
    batch_size: int
    ranges: list[tuple[int, int]]  # of this host in each batch

    def __call__(self, number: int) -> Batch:
        step, piece = divmod(number, len(self.ranges))
        epoch, batch = divmod(step, len(self.examples) // self.batch_size)
        start, stop = (batch * self.batch_size + limit for limit in self.ranges[piece])
        order = _order(self.seed, epoch, len(self.examples))
        return self.reader.images(
            self.examples[order[start:stop]],
            lambda picture, example: pictures.augmented(
                picture, _rng(self.seed, _CROPS, epoch, example)
            ),
        )


@dataclasses.dataclass(frozen=True)
class _EvaluationPieces:
    """The parts of the ranges that are read."""

    reader: _Reader
    examples: np.ndarray
    ranges: list[tuple[int, int]]

    def __call__(self, number: int) -> Batch:
        return self.reader.images(
            self.examples[slice(*self.ranges[number])],
            lambda picture, example: pictures.centre(picture),
        )


_ORDER, _CROPS = 0, 1  # what random numbers are for


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


# Two, as some workers are in the next epoch already.
@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """The permutation of an epoch."""
    return _rng(seed, _ORDER, epoch).permutation(examples)
