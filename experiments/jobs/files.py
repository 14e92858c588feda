"""Files that are complete or absent, and files of lines that survive a kill.

In a multi-process run only process 0 touches the disk, and broadcasts what it read.
These functions are collectives: every process must call them in the same order.
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

from experiments.jobs import locks, processes
from experiments.jobs.errors import UsageError, damage_named

_SCRATCH_SUFFIX = ".partial"


@contextlib.contextmanager
def _errors_name(path: pathlib.Path) -> Iterator[None]:
    """Adds the path to errors of the system without one, such as for a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextlib.contextmanager
def _scratch(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, IO[bytes]]]:
    """Opens a scratch file beside a path, and removes it unless it was renamed.

    First removes the scratch files of killed processes; those in use are locked.
    """
    ours = f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}{_SCRATCH_SUFFIX}"
    for left in path.parent.glob(ours):
        # It may belong to another user, or just have been renamed or removed.
        with contextlib.suppress(OSError), left.open("r+b") as stream:
            if locks.lock(stream, wait=False):
                left.unlink()
    while True:
        # Random, as processes on several hosts may have the same number.
        scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_SCRATCH_SUFFIX}")
        try:
            with scratch.open("xb") as stream:
                locks.lock(stream, wait=True)
                # Another process may have removed it before it was locked.
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
        # Some file systems cannot sync folders.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def sync(folder: pathlib.Path) -> None:
    """Forces a folder and everything in it onto the disk."""
    if processes.is_first():
        for path in [*folder.rglob("*"), folder]:
            _sync(path)


def write_atomically(
    path: pathlib.Path, write: Callable[[IO[bytes]], object]
) -> pathlib.Path:
    """Writes a file under a scratch name and renames it once it is on disk."""
    return write_on_each_process(path, write) if processes.is_first() else path


def write_on_each_process(
    path: pathlib.Path, write: Callable[[IO[bytes]], object]
) -> pathlib.Path:
    """Does what `write_atomically` does, on every process that calls it."""
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


def _read(
    path: pathlib.Path, parse: Callable[[bytes], Any], fix: str = "remove it"
) -> Any:
    """Parses a file, on all processes; None if there is no file."""

    def read() -> Any:
        with (
            contextlib.suppress(FileNotFoundError),
            damage_named(path, fix, passed=(FileNotFoundError,)),
        ):
            return parse(path.read_bytes())
        return None

    return processes.broadcast_from_first(read)


def _value(data: bytes) -> Any:
    value = json.loads(data)
    if value is None:
        raise ValueError("null in place of a value")
    return value


def _whole_lines(data: bytes) -> list[bytes]:
    return data[: data.rfind(b"\n") + 1].splitlines()


def read_json_if_there(path: pathlib.Path, fix: str = "remove it") -> Any:
    """Reads a JSON file; None if there is none. An error suggests the fix."""
    return _read(path, _value, fix)


def read_json(path: pathlib.Path, fix: str = "remove it") -> Any:
    """Reads a JSON file; the error for a damaged or missing one suggests the fix."""
    value = read_json_if_there(path, fix)
    if value is None:
        raise UsageError(f"{path} is missing; {fix}.")
    return value


def read_json_lines(path: pathlib.Path) -> list[Any]:
    """Reads a file of JSON lines, without an incomplete last one; [] if none."""
    return _read(path, lambda data: [_value(line) for line in _whole_lines(data)]) or []


def read_lines(path: pathlib.Path) -> list[str] | None:
    """Reads the lines of a text file, without an incomplete last one; None if none.

    Bytes that are not text are replaced.
    """
    return _read(
        path,
        lambda data: [line.decode(errors="replace") for line in _whole_lines(data)],
    )


def write_json_lines(path: pathlib.Path, values: Iterable[Any]) -> None:
    """Writes a file of JSON lines atomically."""
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))


def exists(path: pathlib.Path) -> bool:
    """Returns whether a file or folder exists."""
    return processes.broadcast_from_first(path.exists)


def folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the folders in a folder, sorted by name; [] if it does not exist."""
    names = processes.broadcast_from_first(
        lambda: sorted(entry.name for entry in folder.glob("*") if entry.is_dir())
    )
    return [folder / name for name in names]


def remove(folder: pathlib.Path) -> None:
    """Removes a folder and its content, which other processes may be removing too."""
    if processes.is_first():
        shutil.rmtree(folder, ignore_errors=True)


def append_json_line(path: pathlib.Path, value: Any) -> None:
    """Appends one line of JSON, in place of an incomplete last one."""
    if processes.is_first():
        with _errors_name(path), path.open("a+b") as stream:
            if size := os.fstat(stream.fileno()).st_size:
                stream.seek(size - 1)
                if stream.read() != b"\n":
                    stream.seek(0)
                    stream.truncate(stream.read().rfind(b"\n") + 1)
            stream.write(json.dumps(value).encode() + b"\n")


def writable_folder(folder: pathlib.Path, option: str) -> None:
    """Makes a folder, and checks that it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{option} {folder} cannot be written to: {error}") from error


def expanded(text: str) -> pathlib.Path:
    """Replaces `~` by the home folder in a path of an option or the environment.

    Shells do not expand the `~` of `--option=~/folder` and of most variables.
    """
    if not text:
        raise UsageError("a path must not be empty; the current folder is `.`.")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"the home folder of {text} is unknown: set HOME, or give the whole path "
            "by its option."
        ) from error
