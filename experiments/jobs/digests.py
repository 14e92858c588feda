"""Digests and checksums, which detect changes of files and arrays."""

import hashlib
import json
import pathlib
import zlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from experiments.jobs import processes


def of_files(paths: Iterable[pathlib.Path]) -> dict[str, str | None]:
    """Computes the SHA-256 of each file, by name; None for a missing one."""

    def digest(path: pathlib.Path) -> str | None:
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            return None

    return processes.broadcast_from_first(
        lambda: {path.name: digest(path) for path in paths}
    )


def of_folder(folder: pathlib.Path) -> str:
    """Computes one SHA-256 of the paths and bytes of all files in a folder."""

    def digest() -> str:
        content = hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                name = path.relative_to(folder).as_posix()
                content.update(json.dumps([name, len(data)]).encode() + data)
        return content.hexdigest()

    return processes.broadcast_from_first(digest)


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths, in the tree's order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def of_arrays(tree: Any) -> str:
    """Computes one SHA-256 of the paths, shapes, dtypes and values of a tree.

    Equal arrays have equal digests, unlike the files of their checkpoints.
    """
    content = hashlib.sha256()
    for path, leaf in sorted(named(tree).items()):
        array = np.asarray(leaf)
        content.update(json.dumps([path, array.shape, array.dtype.name]).encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def with_checksum(content: dict[str, Any], owner: str = "") -> dict[str, Any]:
    """Adds a checksum of the content and its owner to a JSON object."""
    return content | {"checksum": _checksum(content, owner)}


def is_whole(
    content: dict[str, Any], owner: str = "", *, may_lack: bool = True
) -> bool:
    """Checks whether a JSON object matches its checksum, or may lack one.

    Earlier versions wrote checksums without an owner, or none.
    """
    if "checksum" not in content:
        return may_lack
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return any(content["checksum"] == _checksum(rest, one) for one in {owner, ""})


def _checksum(content: dict[str, Any], owner: str) -> str:
    return f"{zlib.crc32(json.dumps(content).encode(), zlib.crc32(owner.encode())):08x}"
