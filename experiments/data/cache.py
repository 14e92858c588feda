"""Caches decoded data sets as `.npz`, so that each is decoded once."""

import hashlib
import io
import os
import pathlib
from collections.abc import Callable

import numpy as np

from experiments.data.split import Split, read_npz
from experiments.jobs import files
from experiments.jobs.errors import UsageError, damage_named

Splits = tuple[Split, Split]

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


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
    """
    if path.exists():
        try:
            with damage_named(path, "decoding the data set again"):
                splits = read_npz(path, _ARRAYS)
                check(splits)
                return splits
        except UsageError as error:
            print(error)
    files.writable_folder(path.parent, "--cache-dir")
    train, test = read()
    arrays = train.images, train.labels, test.images, test.labels
    # In memory first: NumPy's error on a full disk does not name the reason.
    content = io.BytesIO()
    named = dict(zip(_ARRAYS, arrays, strict=True))
    np.savez(content, allow_pickle=False, **named)
    files.write_on_each_process(path, lambda stream: stream.write(content.getbuffer()))
    return train, test
