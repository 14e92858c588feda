"""A part of a data set."""

import abc
import dataclasses
import hashlib
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
        """Chooses some images, always the same; smaller choices lie within larger.

        Args:
          examples: how many; None is all.
          option: the command-line option for that number, for the message.

        Raises:
          UsageError: if there are fewer images.
        """
        if examples is None:
            return self
        check_examples(examples, len(self), option)
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
        """(height, width, channels)."""
        return self.images.shape[1:]

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the images at some indices."""
        return Split(self.images[indices], self.labels[indices])

    @property
    def fingerprint(self) -> str:
        """A digest of the images and labels."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()[:12]


def check(
    split: Split, image_shape: tuple[int, ...], classes: int, examples: int
) -> None:
    """Refuses images and labels that cannot be those of a data set.

    Raises:
      ValueError: if a shape or dtype differs, or a label is not below `classes`.
    """
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


def check_examples(examples: int, total: int, option: str) -> None:
    """Refuses a number of images outside of 1..total by a `UsageError`."""
    if not 1 <= examples <= total:
        raise UsageError(
            f"{option} must lie in 1..{total}, the images of this data set, "
            f"got {examples}."
        )


def choice(examples: int, total: int) -> np.ndarray:
    """Draws sorted indices at random, the same ones on every call."""
    return np.sort(np.random.default_rng(0).permutation(total)[:examples])
