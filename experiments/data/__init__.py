"""Data sets as 8-bit images, held as arrays or streamed, from a package or TFDS."""

from experiments.data.dataset import Dataset
from experiments.data.loading import DataOptions, load
from experiments.data.registry import DATASETS, DatasetName
from experiments.data.split import Split
from experiments.data.streamed import StreamedSplit

__all__ = [
    "DATASETS",
    "DataOptions",
    "Dataset",
    "DatasetName",
    "Split",
    "StreamedSplit",
    "load",
]
