"""A data set in memory, and the parts of it that an experiment uses."""

import dataclasses
import hashlib

import numpy as np

from experiments.errors import UsageError

# The share of the training images that --select-on validation holds out.
VALIDATION_SHARE = 0.1


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
        if not 1 <= examples <= len(self):
            raise UsageError(
                f"{option} must lie in 1..{len(self)}, the images of this data set, "
                f"got {examples}."
            )
        return self.take(_choice(examples, len(self)))

    @property
    def fingerprint(self) -> str:
        """A digest of the content, which tells two splits apart."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set with its published split."""

    name: str
    train: Split
    test: Split
    classes: int
    # Per-channel mean and standard deviation that the model standardises by, in [0, 1].
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.train.images.shape[1:]

    @property
    def validation_examples(self) -> int:
        """How many training images `with_validation` holds out."""
        return round(len(self.train) * VALIDATION_SHARE)

    def with_validation(self) -> tuple[Split, Split]:
        """The training images without, and as, a held-out validation split."""
        held_out = _choice(self.validation_examples, len(self.train))
        kept = np.setdiff1d(np.arange(len(self.train)), held_out)
        return self.train.take(kept), self.train.take(held_out)


def _choice(examples: int, total: int) -> np.ndarray:
    """Indices in rising order, drawn at random but always the same."""
    return np.sort(np.random.default_rng(0).permutation(total)[:examples])


def channel_statistics(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1]."""
    # From the histogram of the 256 values: exact, and no float copy of the images.
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = np.average(values, weights=counts)
        means.append(float(mean))
        stds.append(float(np.sqrt(np.average((values - mean) ** 2, weights=counts))))
    return tuple(means), tuple(stds)
