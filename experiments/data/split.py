"""A part of a data set."""

import abc
import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Self

import numpy as np

from experiments.jobs.errors import UsageError


class Images(abc.ABC):
    """Images and labels, wherever they are stored."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of images."""

    @abc.abstractmethod
    def take(self, indices: np.ndarray) -> Self:
        """Returns the images at some indices."""

    def subset(self, examples: int | None, option: str) -> Self:
        """Chooses some images, always the same; a larger choice includes a smaller."""
        if examples is None:
            return self
        if not 1 <= examples <= len(self):
            raise UsageError(
                f"{option} must lie in 1..{len(self)}, the images of this data set, "
                f"got {examples}."
            )
        return self.take(choice(examples, len(self)))


@dataclasses.dataclass(frozen=True)
class Split(Images):
    """Images (N, height, width, channels) uint8 and labels (N,) int32, in memory."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Returns (height, width, channels)."""
        return self.images.shape[1:]

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the images at some indices."""
        return Split(self.images[indices], self.labels[indices])

    @property
    def fingerprint(self) -> str:
        """Returns a digest of the images and labels."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()[:12]


def check(
    split: Split, image_shape: tuple[int, ...], classes: int, examples: int
) -> None:
    """Refuses images and labels that cannot be those of a data set."""
    images, labels = split.images, split.labels
    for array, shape, dtype in (
        (images, (examples, *image_shape), np.uint8),
        (labels, (examples,), np.int32),
    ):
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"an array {array.shape} {array.dtype} in place of {shape} "
                f"{np.dtype(dtype)}"
            )
    check_labels(labels, classes)


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Refuses labels outside of 0..classes - 1 by a `ValueError`."""
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise ValueError(f"label {outside[0]} in place of 0..{classes - 1}")


def choice(examples: int, total: int) -> np.ndarray:
    """Draws sorted indices at random, the same ones on every call."""
    return np.sort(np.random.default_rng(0).permutation(total)[:examples])


def read_npz(path: pathlib.Path, names: Sequence[str]) -> tuple[Split, Split]:
    """Reads two splits, whose images and labels are four arrays in a `.npz` file."""
    # NumPy verifies the archive's checksum of each array.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        if missing := [name for name in names if name not in file]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        arrays = [file[name] for name in names]
    return Split(*arrays[:2]), Split(*arrays[2:])
