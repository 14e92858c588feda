"""A part of a data set in memory."""

import dataclasses
import hashlib

import numpy as np

from experiments.jobs.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Split:
    """Images (N, height, width, channels) uint8 and labels (N,) int32."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.images.shape[1:]

    def take(self, indices: np.ndarray) -> "Split":
        """The images at some indices."""
        return Split(self.images[indices], self.labels[indices])

    def subset(self, examples: int | None, option: str) -> "Split":
        """A fixed choice of some images, smaller ones within larger; None is all.

        Args:
          examples: how many.
          option: the command-line option that says so, for the message.

        Raises:
          UsageError: if there are not as many.
        """
        if examples is None:
            return self
        return self.take(subset_indices(examples, len(self), option))

    @property
    def fingerprint(self) -> str:
        """A digest of the content, which tells two splits apart."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()[:12]


def check(
    split: Split, image_shape: tuple[int, ...], classes: int, examples: int
) -> None:
    """Refuses images and labels that cannot be those of a data set.

    Args:
      split: the images and labels.
      image_shape: (height, width, channels).
      classes: how many; labels are below.
      examples: how many images there are.

    Raises:
      ValueError: if a shape, a dtype or a label is another.
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
    """Refuses labels that lie outside of 0..classes - 1, by a `ValueError`."""
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise ValueError(f"label {outside[0]} in place of 0..{classes - 1}")


def subset_indices(examples: int, total: int, option: str) -> np.ndarray:
    """The indices of `Split.subset`; raises what it does."""
    check_examples(examples, total, option)
    return choice(examples, total)


def check_examples(examples: int, total: int, option: str) -> None:
    """Refuses a number of images that there are not."""
    if not 1 <= examples <= total:
        raise UsageError(
            f"{option} must lie in 1..{total}, the images of this data set, "
            f"got {examples}."
        )


def choice(examples: int, total: int) -> np.ndarray:
    """Indices in rising order, drawn at random but always the same."""
    return np.sort(np.random.default_rng(0).permutation(total)[:examples])
