"""Describes data sets in records, which are used without the images."""

import dataclasses
import operator
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.data.loading import Dataset
from experiments.data.registry import DATASETS
from experiments.data.split import Images
from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError, damage_named

_FILE = "data.json"


def file_of(runs_dir: pathlib.Path, dataset: str) -> pathlib.Path:
    """Returns the file whose presence marks a runs folder as one of records."""
    return runs_dir / dataset / _FILE


@dataclasses.dataclass(frozen=True)
class RecordedSplit(Images):
    """A part of a data set without its images: their number and fingerprints."""

    examples: int
    image_shape: tuple[int, ...]
    fingerprints: Mapping[int, str]  # by number of chosen images

    def __len__(self) -> int:
        """Returns the number of images."""
        return self.examples

    def take(self, indices: np.ndarray) -> "RecordedSplit":
        """Returns as many images as there are indices."""
        return dataclasses.replace(self, examples=len(indices))

    @property
    def is_known(self) -> bool:
        """Checks whether the records contain this number of images."""
        return self.examples in self.fingerprints

    @property
    def fingerprint(self) -> str:
        """Returns the digest of the images."""
        if not self.is_known:
            known = ", ".join(f"{count:,}" for count in self.fingerprints)
            raise UsageError(
                f"the records have no models or evaluations on {self.examples:,} "
                f"images, but on {known or 'none'}."
            )
        return self.fingerprints[self.examples]


@dataclasses.dataclass(frozen=True)
class RecordedDataset(Dataset):
    """A data set without its images."""

    held_in: RecordedSplit
    held_out: RecordedSplit

    def with_validation(self) -> tuple[Any, Any]:
        """Returns the held-in and the held-out training images."""
        return self.held_in, self.held_out


def load(runs_dir: pathlib.Path, name: str) -> RecordedDataset:
    """Loads the description of a data set from a folder of records."""
    path = file_of(runs_dir, name)
    fix = "restore it, or make it again with the command record"
    content = files.read_json(path, fix)
    with damage_named(path, fix):
        if not digests.is_whole(content):
            raise ValueError("it is not as it was written")
        # Earlier versions wrote no checksum.
        found = content["classes"], tuple(content["image_shape"])
        if found != (DATASETS[name].classes, DATASETS[name].image_shape):
            raise ValueError("it is that of another data set")
        splits: dict[str, Any] = {
            kind: RecordedSplit(
                operator.index(of_kind["total"]),
                tuple(content["image_shape"]),
                {int(n): f for n, f in of_kind["fingerprints"].items()},
            )
            for kind, of_kind in content["splits"].items()
        }
        return RecordedDataset(
            name, splits["train"], splits["test"], content["classes"],
            tuple(map(float, content["mean"])), tuple(map(float, content["std"])),
            splits["held_in"], splits["held_out"],
        )  # fmt: skip


def described(dataset: Dataset, examples: Mapping[str, set[int]]) -> dict[str, Any]:
    """Describes a data set as JSON, for `load`.

    `examples` are the numbers of images that models and evaluations use, for each of
    `train`, `test`, `held_in` and `held_out`.
    """
    splits = {"train": dataset.train, "test": dataset.test}
    splits["held_in"], splits["held_out"] = dataset.with_validation()
    return {
        "classes": dataset.classes,
        "image_shape": dataset.image_shape,
        "mean": dataset.mean,
        "std": dataset.std,
        "splits": {
            kind: {
                "total": len(split),
                "fingerprints": {
                    str(count): split.subset(count, kind).fingerprint
                    for count in sorted(examples[kind])
                },
            }
            for kind, split in splits.items()
        },
    }
