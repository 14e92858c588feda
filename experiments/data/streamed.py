"""A part of a data set whose pictures are decoded when they are used."""

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
from experiments.data.split import Images, check_labels
from experiments.jobs.errors import UsageError

# Images (N, 224, 224, 3) uint8, and labels (N,) int32.
Batch = tuple[np.ndarray, np.ndarray]
Batches = Generator[Batch, None, None]
# Images that a worker decodes at a time. Small, so that workers share a batch and their
# buffers take little memory.
PIECE = 32
# More than the pieces of any training.
_ENDLESS = 2**48


@dataclasses.dataclass(frozen=True)
class StreamedSplit(Images):
    """Pictures of a prepared data set of ImageNet's form, on disk."""

    folder: pathlib.Path  # of the prepared data set
    name: str  # of the split in TFDS
    examples: np.ndarray  # (N,) indices into that split
    workers: int  # processes that decode; 0 is threads of this one

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.examples)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Returns (height, width, channels) of the decoded images."""
        return pictures.SIZE, pictures.SIZE, 3

    def take(self, indices: np.ndarray) -> "StreamedSplit":
        """Returns the images at some indices."""
        return dataclasses.replace(self, examples=self.examples[indices])

    @property
    def fingerprint(self) -> str:
        """Returns a digest of the split, computed without reading its pictures.

        It covers the version, the names and lengths of the files, the size of all
        examples in bytes, and the choice of examples; sets that differ only in pixels
        or labels have the same fingerprint.
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
        """Yields the batches of a training without end, decoded ahead.

        Each epoch is another permutation, whose last `len(self) % batch_size` examples
        are dropped. The permutation depends on the seed and the epoch only, the crop
        and flip of an example on the seed, the epoch and the example: the batch of a
        step does not depend on where iteration begins, which process decodes it, or the
        number of hosts.

        Args:
          seed: not negative.
          batch_size: of all hosts together.
          first: step of the whole training, from 0, whose batch comes first.
          part: number of this host, from 0, and number of hosts; each host yields an
            equal contiguous part of every batch.

        Returns:
          The batches. Close the generator to end the processes.

        Raises:
          UsageError: if a batch cannot be divided among the hosts, or a file is
            missing; while iterating, if an example is damaged.
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
                f"a batch of {batch_size} images cannot be divided among {hosts} hosts."
            )
        size = batch_size // hosts
        ranges = _ranges(host * size, (host + 1) * size)
        make = functools.partial(
            _training_piece,
            _Reader(self.folder, self.name), self.examples, seed, batch_size, ranges,
        )  # fmt: skip
        first_piece = first * len(ranges)
        return self._joined(make, first_piece, _ENDLESS, itertools.repeat(ranges))

    def read(self, ranges: Sequence[tuple[int, int]]) -> Batches:
        """Yields the images and labels of ranges, for evaluation, decoded ahead.

        Close the generator to end the processes.
        """
        for start, stop in ranges:
            if not 0 <= start < stop <= len(self):
                raise ValueError(f"({start}, {stop}) is no range in 0..{len(self)}.")
        parts = [_ranges(*limits) for limits in ranges]
        pieces = list(itertools.chain(*parts))
        reader = _Reader(self.folder, self.name)
        make = functools.partial(_evaluation_piece, reader, self.examples, pieces)
        return self._joined(make, 0, len(pieces), parts)

    def _joined(
        self,
        make: Callable[[int], Batch],
        first: int,
        stop: int,
        joined: Iterable[list[tuple[int, int]]],
    ) -> Batches:
        """Makes pieces ahead, and joins those of successive ranges."""
        made = workers.ahead(make, first, stop, self.workers)
        with contextlib.closing(made) as pieces:
            for ranges in joined:
                begin, end = ranges[0][0], ranges[-1][1]
                images = np.empty((end - begin, *self.image_shape), np.uint8)
                labels = np.empty(end - begin, np.int32)
                # Copied one by one: pieces from processes lie in shared memory, which
                # is small.
                for limits in ranges:
                    piece = slice(*(limit - begin for limit in limits))
                    images[piece], labels[piece] = next(pieces)
                yield images, labels


def whole(folder: pathlib.Path, name: str, processes: int) -> StreamedSplit:
    """Opens all examples of a split of a prepared data set."""
    files = prepared.files(folder, name)
    prepared.check_lengths(folder, files)
    return StreamedSplit(folder, name, np.arange(sum(files.examples)), processes)


def _ranges(start: int, stop: int) -> list[tuple[int, int]]:
    """Divides a range into the pieces of workers."""
    return [(i, min(i + PIECE, stop)) for i in range(start, stop, PIECE)]


class _Reader:
    """Decodes examples of a split; each process that receives it opens the files."""

    def __init__(self, folder: pathlib.Path, split: str) -> None:
        self._split = split
        self._files = prepared.files(folder, split)
        self._source = prepared.encoded(folder, split)
        workers.allow_open_files(len(self._files.paths))

    def images(
        self, examples: np.ndarray, image_of: Callable[[Image.Image, int], np.ndarray]
    ) -> Batch:
        """Reads examples, and makes an image of each picture and its index."""
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
        # array_record, protobuf, TFDS and Pillow raise errors of their own.
        except Exception as error:
            ends = np.cumsum(self._files.examples)
            file = int(np.searchsorted(ends, example, side="right"))
            record = example - int(ends[file]) + self._files.examples[file]
            raise UsageError(
                f"record {record} of {self._files.paths[file]} (example {example} of "
                f"the {self._split} split, {name}) cannot be read: {error}. If the "
                "file is damaged, copy or prepare the set again."
            ) from error


def _training_piece(
    reader: _Reader,
    examples: np.ndarray,
    seed: int,
    batch_size: int,
    ranges: list[tuple[int, int]],  # of this host in each batch
    number: int,  # counted over the whole training
) -> Batch:
    step, piece = divmod(number, len(ranges))
    epoch, batch = divmod(step, len(examples) // batch_size)
    start, stop = (batch * batch_size + limit for limit in ranges[piece])
    order = _order(seed, epoch, len(examples))
    return reader.images(
        examples[order[start:stop]],
        lambda picture, example: pictures.augmented(
            picture, _rng(seed, _CROPS, epoch, example)
        ),
    )


def _evaluation_piece(
    reader: _Reader, examples: np.ndarray, ranges: list[tuple[int, int]], number: int
) -> Batch:
    return reader.images(
        examples[slice(*ranges[number])],
        lambda picture, example: pictures.centre(picture),
    )


_ORDER, _CROPS = 0, 1  # uses of random numbers


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


# Two, as some workers are in the next epoch already.
@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Draws the permutation of an epoch."""
    return _rng(seed, _ORDER, epoch).permutation(examples)
