"""Digests that tell whether a finished run is as it was written."""

import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from experiments import hosts


def of_files(paths: Iterable[pathlib.Path]) -> dict[str, str | None]:
    """Computes the SHA-256 of each file, by name; None for one that is not there."""

    def digest(path: pathlib.Path) -> str | None:
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            return None

    return hosts.agreed(lambda: {path.name: digest(path) for path in paths})


def of_arrays(tree: Any) -> str:
    """Computes the SHA-256 of a tree's content: paths, shapes, dtypes and values.

    Unlike the files of a checkpoint, this is the same whenever the arrays are.
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    content = hashlib.sha256()
    for path, leaf in sorted(leaves.items()):
        content.update(json.dumps([path, leaf.shape, leaf.dtype.name]).encode())
        content.update(np.ascontiguousarray(leaf).tobytes())
    return content.hexdigest()
