"""Data sets as arrays of 8-bit images, from a package or from TFDS."""

from experiments.data.dataset import Dataset, Split
from experiments.data.loading import DataOptions, load
from experiments.data.registry import DATASETS, DatasetName

__all__ = [
    "DATASETS",
    "DataOptions",
    "Dataset",
    "DatasetName",
    "Split",
    "load",
]
