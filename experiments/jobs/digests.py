"""Digests that tell whether a finished run is as it was written."""

import hashlib
import json
import pathlib
import zlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from experiments.jobs import agreement


def of_files(paths: Iterable[pathlib.Path]) -> dict[str, str | None]:
    """Computes the SHA-256 of each file, by name; None for one that is not there."""

    def digest(path: pathlib.Path) -> str | None:
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            return None

    return agreement.broadcast_from_first(
        lambda: {path.name: digest(path) for path in paths}
    )


def of_folder(folder: pathlib.Path) -> str:
    """Computes the SHA-256 of all files in a folder: their paths and bytes."""

    def digest() -> str:
        content = hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                name = path.relative_to(folder).as_posix()
                content.update(json.dumps([name, len(data)]).encode() + data)
        return content.hexdigest()

    return agreement.broadcast_from_first(digest)


def named(tree: Any) -> dict[str, Any]:
    """Names each leaf of a tree by its path, in the tree's order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def of_arrays(tree: Any) -> str:
    """Computes the SHA-256 of a tree's content: paths, shapes, dtypes and values.

    Unlike the files of a checkpoint, this is the same whenever the arrays are.
    """
    content = hashlib.sha256()
    for path, leaf in sorted(named(tree).items()):
        array = np.asarray(leaf)
        content.update(json.dumps([path, array.shape, array.dtype.name]).encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def with_checksum(content: dict[str, Any], owner: str = "") -> dict[str, Any]:
    """Adds a checksum of the rest, and of whose it is, to what JSON holds."""
    return content | {"checksum": _checksum(content, owner)}


def is_whole(
    content: dict[str, Any], owner: str = "", *, may_lack: bool = True
) -> bool:
    """Whether what was read from JSON matches its checksum.

    Args:
      content: from `with_checksum`.
      owner: whose it is. Checksums of earlier versions may be without.
      may_lack: whether it may have none, as of earlier versions.
    """
    if "checksum" not in content:
        return may_lack
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return content["checksum"] in (_checksum(rest, owner), _checksum(rest, ""))


def _checksum(content: dict[str, Any], owner: str) -> str:
    return f"{zlib.crc32(json.dumps(content).encode(), zlib.crc32(owner.encode())):08x}"
