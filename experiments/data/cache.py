"""Decoded data sets kept as `.npz`, so that each is decoded once."""

import hashlib
import io
import os
import pathlib
from collections.abc import Callable

import numpy as np

from experiments.data.split import Split
from experiments.jobs import files
from experiments.jobs.errors import UsageError, damage_named

Splits = tuple[Split, Split]

_PARTS = ("train", "test")


def default_cache_dir() -> pathlib.Path:
    """The user's cache folder for this project."""
    return files.expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "absum-jax"


def folder_key(folder: pathlib.Path) -> str:
    """A digest of a folder's place and of its files' names, sizes and times."""
    lines = [str(folder.resolve())]
    for file in sorted(folder.iterdir()):
        status = file.stat()
        lines.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def cached(
    path: pathlib.Path, read: Callable[[], Splits], check: Callable[[Splits], None]
) -> Splits:
    """Returns what is cached in a file, or reads and caches it.

    A damaged file is replaced, which is printed. An undamaged one is only read, and may
    be read-only.

    Args:
      path: the file, which appears whole, whichever process is the first to write it.
      read: returns the training and the test split.
      check: raises a `ValueError` if cached splits cannot be those of the data set.

    Raises:
      UsageError: if something has to be cached and cannot be.
    """
    if path.exists():
        try:
            with damage_named(path, "decoding the data set again"):
                splits = _load(path)
                check(splits)
                return splits
        except UsageError as error:
            print(error)
    files.writable_folder(path.parent, "--cache-dir")
    splits = read()
    content = io.BytesIO()
    # In memory first: the error that NumPy raises on a full disk does not say so.
    np.savez(content, allow_pickle=False, **_arrays(splits))
    files.write_on_each_process(path, lambda stream: stream.write(content.getbuffer()))
    return splits


def _arrays(splits: Splits) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for part, split in zip(_PARTS, splits, strict=True):
        arrays |= {f"{part}_images": split.images, f"{part}_labels": split.labels}
    return arrays


def _load(path: pathlib.Path) -> Splits:
    # The archive has a checksum of each array, which is compared on reading.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        train, test = (
            Split(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in _PARTS
        )
    return train, test
