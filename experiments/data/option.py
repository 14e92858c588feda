"""The option that names a data set: one of the table, or a file of arrays."""

import dataclasses
import functools
import pathlib
import re
from typing import Annotated

import numpy as np

from experiments.data.conditions import COLOR, GRAY
from experiments.data.registry import DATASETS, DatasetInfo, register
from experiments.data.split import Split, check
from experiments.jobs import files
from experiments.jobs.errors import UsageError, damage_named
from experiments.names import Name

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclasses.dataclass(frozen=True)
class _File:
    """A `.npz` file of the arrays x_train, y_train, x_test and y_test.

    Images are uint8 (N, h, w, channels), or (N, h, w) if they are gray; labels are
    integers (N,) from 0.
    """

    path: pathlib.Path

    def __call__(self) -> tuple[Split, Split]:
        """Returns the training and the test split."""
        return _read(self.path)

    def info(self) -> DatasetInfo:
        """Describes the data set, which is trained as the paper's of as many channels.

        Raises:
          UsageError: if the file is no such data set.
        """
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.path.stem):
            raise UsageError(
                f"{self.path}: folders are named after the file, whose name "
                "must consist of letters, digits and ._- alone."
            )
        train, test = self()
        classes = 1 + int(max(train.labels.max(), test.labels.max()))
        shape = train.image_shape
        for name, split in (("train", train), ("test", test)):
            try:
                check(split, shape, classes, len(split.images))
            except ValueError as error:
                raise UsageError(
                    f"{self.path}: x_{name}, y_{name}: {error}."
                ) from error
        if len(shape) != 3 or shape[-1] not in (1, 3):
            raise UsageError(
                f"{self.path}: images must be (N, h, w) or (N, h, w, channels) with 1 "
                f"or 3 channels, got {train.images.shape}."
            )
        if not 2 <= classes <= len(train):
            raise UsageError(
                f"{self.path}: labels must be those of at least two classes and no "
                f"more than there are training images, got {classes - 1} for the "
                f"largest of {len(train)}."
            )
        return DatasetInfo(
            self.path.stem, self.path.stem, len(train), shape, classes,
            GRAY if shape[-1] == 1 else COLOR, source=self,
        )  # fmt: skip


@functools.cache
def _read(path: pathlib.Path) -> tuple[Split, Split]:
    fix = f"give a file of the arrays {', '.join(_ARRAYS)}"
    with (
        damage_named(path, fix),
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as file,
    ):
        arrays = {name: file[name] for name in _ARRAYS if name in file}
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise UsageError(f"{path} lacks {', '.join(missing)}; {fix}.")

    def split(part: str) -> Split:
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if labels.dtype.kind not in "iu" or labels.size == 0:
            raise UsageError(
                f"{path}: y_{part} must be integers, one for each image, got "
                f"{labels.shape} {labels.dtype}."
            )
        # Labels beyond int32 stay out of range.
        labels = np.clip(labels, -1, 2**31 - 1).astype(np.int32)
        return Split(images[..., None] if images.ndim == 3 else images, labels)

    return split("train"), split("test")


def _from_file(text: str) -> str:
    """Adds the data set of a file to the table, and returns its name."""
    if not text.endswith(".npz"):
        raise UsageError(
            f"a data set must be one of {', '.join(DATASETS)}, or a file FILE.npz, got "
            f"{text!r}."
        )
    info = _File(files.expanded(text).resolve()).info()
    if DATASETS.get(info.name, info) != info:
        raise UsageError(f"{text}: there is another {info.name}; rename the file.")
    register(info)
    return info.name


DatasetName = Annotated[str, Name(lambda: tuple(DATASETS), _from_file, "|FILE.npz")]
