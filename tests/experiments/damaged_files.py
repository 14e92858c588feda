"""Damages each file of a folder as disks, copies and editors do, one at a time."""

import io
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np


def _flipped(share: float) -> Callable[[bytes], bytes]:
    """Changes one byte; not one of the zeros that some formats fill blocks with."""

    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        if content := np.flatnonzero(np.frombuffer(data, np.uint8)).tolist():
            changed[content[int(share * len(content))]] ^= 1
        return bytes(changed)

    return flip


# From the bytes of a file to those it then has.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut to half": lambda data: data[: len(data) // 2],
    "a byte in the middle": _flipped(0.5),
    "a byte at three quarters": _flipped(0.75),
    "zeros": lambda data: bytes(len(data)),
    "no UTF-8": lambda data: b"\xff\xfe" + data,
    "null": lambda data: b"null\n",
    "a list": lambda data: b"[]\n",
    "NaN": lambda data: b"NaN\n",
    "lists without end": lambda data: b"[" * 100_000 + b"\n",
}
# A binary file has enough of the others.
OF_TEXT = ("no UTF-8", "null", "a list", "NaN", "lists without end")
MISSING = "missing"


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _archive(**arrays: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def _of_arrays(change: Callable[[dict[str, np.ndarray]], object]):
    def damage(data: bytes) -> bytes:
        with np.load(io.BytesIO(data)) as archive:
            arrays = dict(archive)
        change(arrays)
        return _archive(**arrays)

    return damage


# Of a cache, whose checksums are right.
ARRAYS: dict[str, Callable[[bytes], bytes]] = {
    how: _of_arrays(change)
    for how, change in {
        "labels below": lambda a: a.update(train_labels=a["train_labels"] - 1),
        "labels above": lambda a: a.update(test_labels=a["test_labels"] + 10),
        "fewer labels": lambda a: a.update(train_labels=a["train_labels"][:-1]),
        "fewer of both": lambda a: a.update(
            test_labels=a["test_labels"][:-1], test_images=a["test_images"][:-1]
        ),
        "another shape": lambda a: a.update(
            train_images=a["train_images"].reshape(-1, 16, 64, 3)
        ),
        "another dtype": lambda a: a.update(
            train_images=a["train_images"].astype(np.float32)
        ),
        "labels of another dtype": lambda a: a.update(
            test_labels=a["test_labels"].astype(np.int64)
        ),
        "NaN": lambda a: a.update(train_images=np.full((2, 2), np.nan)),
        "an array less": lambda a: a.pop("test_labels"),
    }.items()
}


class Damaged(NamedTuple):
    """A copy of a folder with one damaged file."""

    folder: pathlib.Path
    path: pathlib.Path
    how: str

    def is_named_in(self, line: str) -> bool:
        """Returns whether a line names the file, or a folder that it is in."""
        below = self.path.relative_to(self.folder)
        parts = [self.path, *(self.folder / parent for parent in below.parents)][:-1]
        return "\n" not in line and any(str(part) in line for part in parts)


def copies(
    whole: pathlib.Path,
    scratch: pathlib.Path,
    damages: dict[str, Callable[[bytes], bytes]] = DAMAGES,
    pattern: str = "*",
) -> Iterator[Damaged]:
    """Yields copies of a folder, in each of which a file is damaged in one way.

    Args:
      whole: the folder.
      scratch: where the copies are, one at a time, each of another name.
      damages: ways; each file is missing once, too.
      pattern: of the files' paths.
    """
    files = sorted(path for path in whole.rglob(pattern) if path.is_file())
    assert files
    for path in files:
        data = path.read_bytes()
        outcomes = {how: damage(data) for how, damage in damages.items()}
        outcomes = {
            how: new
            for how, new in outcomes.items()
            if new != data and (how not in OF_TEXT or _is_text(data))
        }
        for how, changed in {**outcomes, MISSING: None}.items():
            folder = scratch / f"copy-{len(list(scratch.glob('*')))}"
            shutil.copytree(whole, folder)
            own = folder / path.relative_to(whole)
            if changed is None:
                own.unlink()
            else:
                own.write_bytes(changed)
            yield Damaged(folder, own, how)
            shutil.rmtree(folder)
