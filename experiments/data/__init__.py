"""Data sets as 8-bit images: arrays or streamed, from a package, TFDS or a file."""

from experiments.data.loading import DataOptions, Dataset, load
from experiments.data.npz import DatasetName, NamedDataset
from experiments.data.registry import DATASETS, DatasetInfo, pgd_of, register
from experiments.data.split import Split
from experiments.data.streamed import StreamedSplit

__all__ = [
    "DATASETS",
    "DataOptions",
    "Dataset",
    "DatasetInfo",
    "DatasetName",
    "NamedDataset",
    "Split",
    "StreamedSplit",
    "load",
    "pgd_of",
    "register",
]
