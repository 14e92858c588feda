"""Decoded data sets kept as `.npy`, so that each is decoded once."""

import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import numpy as np

from experiments import paths
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


def _names(part: str) -> tuple[str, str]:
    return f"{part}_images.npy", f"{part}_labels.npy"


def cached(entry: pathlib.Path, read: Callable[[], Splits]) -> Splits:
    """Returns what is cached in a folder, or reads and caches it.

    The folder appears whole, so that a reader that is killed leaves no half of it.
    """
    if not entry.exists():
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent) as scratch:
            whole = pathlib.Path(scratch) / "whole"
            whole.mkdir()
            for part, split in zip(("train", "test"), read(), strict=True):
                images, labels = _names(part)
                np.save(whole / images, split.images)
                np.save(whole / labels, split.labels)
            try:
                whole.rename(entry)
            except OSError:
                # Another process was faster; its copy is as good.
                if not entry.exists():
                    raise
                shutil.rmtree(whole)
    train, test = (
        Split(*(np.load(entry / file, allow_pickle=False) for file in _names(part)))
        for part in ("train", "test")
    )
    return train, test
