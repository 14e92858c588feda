"""Decoded data sets kept as `.npy`, so that each is decoded once."""

import hashlib
import io
import os
import pathlib
from collections.abc import Callable
from typing import IO

import numpy as np

from experiments import files, paths
from experiments.data.split import Split

Splits = tuple[Split, Split]


def default_cache_dir() -> pathlib.Path:
    """The user's cache folder for this project."""
    return paths.expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "absum-jax"


def folder_key(folder: pathlib.Path) -> str:
    """A digest of a folder's place and of its files' names, sizes and times."""
    lines = [str(folder.resolve())]
    for file in sorted(folder.iterdir()):
        status = file.stat()
        lines.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _save(stream: IO[bytes], array: np.ndarray) -> None:
    # In memory first: the error that NumPy raises on a full disk does not say so.
    content = io.BytesIO()
    np.save(content, array)
    stream.write(content.getbuffer())


def cached(entry: pathlib.Path, read: Callable[[], Splits]) -> Splits:
    """Returns what is cached in a folder, or reads and caches it.

    Each file appears whole, so that a killed reader leaves no half of one, and readers
    that run at the same time write the same files. A complete folder is only read; it
    may be read-only.

    Raises:
      UsageError: if something has to be cached and cannot be.
    """
    kept = [
        entry / f"{part}_{name}.npy"
        for part in ("train", "test")
        for name in ("images", "labels")
    ]
    if not all(path.exists() for path in kept):
        files.writable_folder(entry.parent, "--cache-dir")
        train, test = read()
        arrays = (train.images, train.labels, test.images, test.labels)
        for path, array in zip(kept, arrays, strict=True):
            files.write_own(path, lambda stream, array=array: _save(stream, array))  # type: ignore[misc]
    loaded = [np.load(path, allow_pickle=False) for path in kept]
    return Split(*loaded[:2]), Split(*loaded[2:])
