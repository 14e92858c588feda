"""Data sets from a file of arrays, and the option that names a data set."""

import functools
import pathlib
import re
from typing import Annotated

import numpy as np

from experiments.data.conditions import COLOR, GRAY
from experiments.data.registry import DATASETS, DatasetInfo, register
from experiments.data.split import Split, check, read_npz
from experiments.jobs import files
from experiments.jobs.errors import UsageError, damage_named
from experiments.names import Name

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def _converted(split: Split, part: str) -> Split:
    """Returns gray images with a channel, and labels as int32."""
    images, labels = split.images, split.labels
    if labels.dtype.kind not in "iu" or labels.size == 0:
        raise ValueError(
            f"y_{part} must be integers, one for each image, got {labels.shape} "
            f"{labels.dtype}"
        )
    # Labels beyond int32 stay out of range.
    labels = np.clip(labels, -1, 2**31 - 1).astype(np.int32)
    return Split(images[..., None] if images.ndim == 3 else images, labels)


def read(path: pathlib.Path) -> tuple[Split, Split]:
    """Reads the training and the test split in a file of arrays."""
    train, test = read_npz(path, _ARRAYS)
    return _converted(train, "train"), _converted(test, "test")


@functools.cache
def _described(path: pathlib.Path) -> DatasetInfo:
    """Reads a data set, which is trained as the paper's of as many channels.

    Images are uint8 (N, h, w, channels), or (N, h, w) if they are gray; labels are
    integers (N,) from 0.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", path.stem):
        raise UsageError(
            f"{path}: folders are named after the file, whose name must consist of "
            "letters, digits and ._- alone."
        )
    with damage_named(path, f"give a file of the arrays {', '.join(_ARRAYS)}"):
        train, test = read(path)
        shape = train.image_shape
        classes = 1 + int(max(train.labels.max(), test.labels.max()))
        for part, split in (("train", train), ("test", test)):
            try:
                check(split, shape, classes, len(split.images))
            except ValueError as error:
                raise ValueError(f"x_{part}, y_{part}: {error}") from error
        if len(shape) != 3 or shape[-1] not in (1, 3):
            raise ValueError(
                "images must be (N, h, w) or (N, h, w, channels) with 1 or 3 channels, "
                f"got {train.images.shape}"
            )
        if not 2 <= classes <= len(train):
            raise ValueError(
                "labels must be those of at least two classes and no more than there "
                f"are training images, got {classes - 1} for the largest of "
                f"{len(train)}"
            )
    conditions = GRAY if shape[-1] == 1 else COLOR
    return DatasetInfo(
        path.stem, path.stem, len(train), shape, classes, conditions,
        source=lambda: (train, test),
    )  # fmt: skip


def _from_file(text: str) -> str:
    """Adds the data set of a file to the table, and returns its name."""
    info = _described(files.expanded(text).resolve())
    if DATASETS.get(info.name, info) != info:
        raise UsageError(f"{text}: there is another {info.name}; rename the file.")
    register(info)
    return info.name


# Without files.
NamedDataset = Annotated[str, Name(lambda: tuple(DATASETS))]
DatasetName = Annotated[str, Name(lambda: tuple(DATASETS), _from_file, ".npz")]
