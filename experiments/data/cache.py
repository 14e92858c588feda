"""Caches decoded data sets as `.npz`, so that each is decoded once."""

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
    """Returns the user's cache folder for this project."""
    return files.expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "absum-jax"


def folder_key(folder: pathlib.Path) -> str:
    """Computes a digest of a folder's path and of the names, sizes and times in it."""
    lines = [str(folder.resolve())]
    for file in sorted(folder.iterdir()):
        status = file.stat()
        lines.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def cached(
    path: pathlib.Path, read: Callable[[], Splits], check: Callable[[Splits], None]
) -> Splits:
    """Returns the splits in a cached file, or reads and caches them.

    A damaged file, or one that `check` refuses, is replaced, with a message. An intact
    one may be read-only.

    Raises:
      UsageError: if the file cannot be written.
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
    # In memory first: NumPy's error on a full disk does not name the reason.
    arrays = {
        f"{part}_{name}": array
        for part, split in zip(_PARTS, splits, strict=True)
        for name, array in (("images", split.images), ("labels", split.labels))
    }
    np.savez(content, allow_pickle=False, **arrays)
    files.write_on_each_process(path, lambda stream: stream.write(content.getbuffer()))
    return splits


def _load(path: pathlib.Path) -> Splits:
    # NumPy verifies the archive's checksum of each array.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        train, test = (
            Split(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in _PARTS
        )
    return train, test
