"""Data sets as 8-bit images, held as arrays or streamed, from a package or TFDS."""

from experiments.data.dataset import Dataset
from experiments.data.loading import DataOptions, load
from experiments.data.option import DatasetName
from experiments.data.registry import DATASETS, DatasetInfo, pgd_of, register
from experiments.data.split import Split
from experiments.data.streamed import StreamedSplit

__all__ = [
    "DATASETS",
    "DataOptions",
    "Dataset",
    "DatasetInfo",
    "DatasetName",
    "Split",
    "StreamedSplit",
    "load",
    "pgd_of",
    "register",
]
