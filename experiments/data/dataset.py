"""A data set with its training, test and validation splits."""

import dataclasses

import numpy as np

from experiments.data.split import Split, choice
from experiments.data.streamed import StreamedSplit

# Fraction of the training images that --select-on validation holds out.
VALIDATION_FRACTION = 0.1


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set with its published split."""

    name: str
    train: Split | StreamedSplit
    test: Split | StreamedSplit
    classes: int
    # Per channel, in [0, 1]; the model standardises by them.
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.train.image_shape

    @property
    def validation_examples(self) -> int:
        """The number of training images that `with_validation` holds out."""
        return round(len(self.train) * VALIDATION_FRACTION)

    def with_validation(self) -> tuple[Split | StreamedSplit, Split | StreamedSplit]:
        """Divides the training images into held-in and held-out (validation) ones."""
        held_out = choice(self.validation_examples, len(self.train))
        held_in = np.setdiff1d(np.arange(len(self.train)), held_out)
        return self.train.take(held_in), self.train.take(held_out)


def channel_statistics(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes mean and standard deviation of each channel of pixels in [0, 1]."""
    # From the histogram of the 256 values: exact, and no float copy of the images.
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = np.average(values, weights=counts)
        means.append(float(mean))
        stds.append(float(np.sqrt(np.average((values - mean) ** 2, weights=counts))))
    return tuple(means), tuple(stds)
