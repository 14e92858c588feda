"""Files that are whole or absent, and line files that survive a kill.

Of several processes that work together the first one alone writes, and what it reads
holds for all: all of them call the functions here in the same order.
"""

import contextlib
import errno
import glob
import json
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from experiments.jobs import agreement, locks
from experiments.jobs.errors import UsageError, damage_named

_SCRATCH_SUFFIX = ".partial"


@contextlib.contextmanager
def _errors_name(path: pathlib.Path) -> Iterator[None]:
    """Names the file in an error of the system that names none, as of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextlib.contextmanager
def _scratch(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, IO[bytes]]]:
    """Opens a scratch file beside a path, to be renamed to it, or removed otherwise.

    First removes those that killed processes left: a live one locks its own.
    """
    ours = f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}{_SCRATCH_SUFFIX}"
    for left in path.parent.glob(ours):
        # It may be another user's, or just have been renamed or removed.
        with contextlib.suppress(OSError), left.open("r+b") as stream:
            if locks.lock(stream, wait=False):
                left.unlink()
    while True:
        # Random, as processes on several hosts may have the same number.
        scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_SCRATCH_SUFFIX}")
        try:
            with scratch.open("xb") as stream:
                locks.lock(stream, wait=True)
                # Another process may have removed it before the lock was there.
                if scratch.exists():
                    yield scratch, stream
                    return
        finally:
            scratch.unlink(missing_ok=True)


def _sync(path: pathlib.Path) -> None:
    """Forces a file's content, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot do it for folders.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def sync(folder: pathlib.Path) -> None:
    """Forces all that is in a folder onto the disk."""
    if agreement.is_first():
        for path in [*folder.rglob("*"), folder]:
            _sync(path)


def write_atomically(
    path: pathlib.Path, write: Callable[[IO[bytes]], object]
) -> pathlib.Path:
    """Writes a file under a scratch name and renames it once it is on disk."""
    return write_own(path, write) if agreement.is_first() else path


def write_own(path: pathlib.Path, write: Callable[[IO[bytes]], object]) -> pathlib.Path:
    """Writes a file as `write_atomically` does, in every process that calls it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _errors_name(path), _scratch(path) as (scratch, stream):
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
        scratch.replace(path)
        _sync(path.parent)
    return path


def write_text(path: pathlib.Path, text: str) -> pathlib.Path:
    """Writes a text file atomically."""
    return write_atomically(path, lambda stream: stream.write(text.encode()))


def write_json(path: pathlib.Path, value: Any) -> pathlib.Path:
    """Writes a value as indented JSON, atomically."""
    return write_text(path, json.dumps(value, indent=2) + "\n")


def _content(path: pathlib.Path, fix: str = "remove it") -> bytes | None:
    """Reads a file; None where there is none. Anything else there is damage."""
    with (
        contextlib.suppress(FileNotFoundError),
        damage_named(path, fix, passed=(FileNotFoundError,)),
    ):
        return path.read_bytes()
    return None


def _parsed(data: bytes, path: pathlib.Path, fix: str = "remove it") -> Any:
    with damage_named(path, fix):
        value = json.loads(data)
        if value is None:
            raise ValueError("null in place of a value")
        return value


def read_json(path: pathlib.Path, fix: str = "remove it") -> Any:
    """Reads a JSON file; a damaged or missing one is reported with the fix."""

    def read() -> Any:
        with damage_named(path, fix):
            return _parsed(path.read_bytes(), path, fix)

    return agreement.broadcast_from_first(read)


def read_json_if_there(path: pathlib.Path, fix: str = "remove it") -> Any:
    """Reads a JSON file; None where there is none."""

    def read() -> Any:
        data = _content(path, fix)
        return None if data is None else _parsed(data, path, fix)

    return agreement.broadcast_from_first(read)


def exists(path: pathlib.Path) -> bool:
    """Whether there is such a file or folder."""
    return agreement.broadcast_from_first(path.exists)


def folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder, by name; none where there is none."""
    names = agreement.broadcast_from_first(
        lambda: sorted(entry.name for entry in folder.glob("*") if entry.is_dir())
    )
    return [folder / name for name in names]


def remove(folder: pathlib.Path) -> None:
    """Removes a folder with all that is in it, which others may be removing too."""
    if agreement.is_first():
        shutil.rmtree(folder, ignore_errors=True)


def append_json_line(path: pathlib.Path, value: Any) -> None:
    """Appends one line of JSON."""
    if not agreement.is_first():
        return
    with _errors_name(path), path.open("a") as stream:
        stream.write(json.dumps(value) + "\n")


def writable_folder(folder: pathlib.Path, option: str) -> None:
    """Makes a folder before anything is computed for it.

    Raises:
      UsageError: if it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{option} {folder} cannot be written to: {error}") from error


def read_json_lines(path: pathlib.Path) -> list[Any]:
    """Reads a file of JSON lines, leaving out a last line that was cut short."""
    return agreement.broadcast_from_first(
        lambda: [_parsed(line, path) for line in _whole_lines(path) or []]
    )


def read_lines(path: pathlib.Path) -> list[str] | None:
    """Reads the lines of a file but for a last one that was cut short.

    Bytes that are no text are replaced. None where there is no such file.
    """

    def read() -> list[str] | None:
        lines = _whole_lines(path)
        if lines is None:
            return None
        return [line.decode(errors="replace") for line in lines]

    return agreement.broadcast_from_first(read)


def _whole_lines(path: pathlib.Path) -> list[bytes] | None:
    data = _content(path)
    return None if data is None else data[: data.rfind(b"\n") + 1].splitlines()


def write_json_lines(path: pathlib.Path, values: Iterable[Any]) -> None:
    """Writes a file of JSON lines atomically."""
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))
