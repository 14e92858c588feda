"""What records tell of a data set whose images need not be there."""

import dataclasses
import operator
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.data.dataset import Dataset
from experiments.data.registry import DATASETS
from experiments.data.split import check_examples
from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError, damage_named

_FILE = "data.json"


def file_of(runs_dir: pathlib.Path, dataset: str) -> pathlib.Path:
    """The file that makes a data set's folder of runs one of records."""
    return runs_dir / dataset / _FILE


@dataclasses.dataclass(frozen=True)
class RecordedSplit:
    """A part of a data set without its images: how many there are, and which."""

    total: int
    image_shape: tuple[int, ...]
    fingerprints: Mapping[int, str]  # of the choices of so many images
    examples: int

    def __len__(self) -> int:
        """The number of images."""
        return self.examples

    def subset(self, examples: int | None, option: str) -> "RecordedSplit":
        """The same choice as `Split.subset`, which raises what this does."""
        if examples is None:
            return self
        check_examples(examples, self.total, option)
        return dataclasses.replace(self, examples=examples)

    @property
    def is_known(self) -> bool:
        """Whether there are records of these images."""
        return self.examples in self.fingerprints

    @property
    def fingerprint(self) -> str:
        """The digest of the images.

        Raises:
          UsageError: if no record is of as many.
        """
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

    held_in: RecordedSplit | None = None
    held_out: RecordedSplit | None = None

    def with_validation(self) -> tuple[Any, Any]:
        """The training images without, and as, the held-out validation split."""
        return self.held_in, self.held_out


def load(runs_dir: pathlib.Path, name: str) -> RecordedDataset:
    """Loads what records tell of a data set."""
    path = file_of(runs_dir, name)
    fix = "restore it, or make it again with the command record"
    content = files.read_json(path, fix)
    with damage_named(path, fix):
        if not digests.is_whole(content):
            raise ValueError("it is not as it was written")
        # Those of earlier versions have no checksum.
        found = content["classes"], tuple(content["image_shape"])
        if found != (DATASETS[name].classes, DATASETS[name].image_shape):
            raise ValueError("it is that of another data set")
        # Of `Dataset` as far as records need them.
        splits: dict[str, Any] = {
            kind: RecordedSplit(
                total=operator.index(of_kind["total"]),
                image_shape=tuple(content["image_shape"]),
                fingerprints={int(n): f for n, f in of_kind["fingerprints"].items()},
                examples=of_kind["total"],
            )
            for kind, of_kind in content["splits"].items()
        }
        return RecordedDataset(
            name, splits["train"], splits["test"], content["classes"],
            tuple(map(float, content["mean"])), tuple(map(float, content["std"])),
            splits["held_in"], splits["held_out"],
        )  # fmt: skip


def described(dataset: Dataset, examples: Mapping[str, set[int]]) -> dict[str, Any]:
    """Describes a data set for `load`, as JSON holds it.

    Args:
      dataset: the data set, with its images.
      examples: the sizes of the choices of images that models and evaluations have, of
        `train`, `test`, `held_in` and `held_out`.
    """
    held_in, held_out = dataset.with_validation()
    splits = {
        "train": dataset.train, "test": dataset.test,
        "held_in": held_in, "held_out": held_out,
    }  # fmt: skip
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
