"""Data sets as arrays of 8-bit images, from a package or from TFDS."""

from experiments.data.dataset import Dataset, Split
from experiments.data.loading import DATASETS, DataOptions, load

__all__ = ["DATASETS", "DataOptions", "Dataset", "Split", "load"]
