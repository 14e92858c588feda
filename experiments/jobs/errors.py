"""The error that a user can fix, shown without a traceback."""

import contextlib
import errno
import pathlib
import sys
from collections.abc import Iterator

_ABSENT = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


class UsageError(ValueError):
    """A wrong option or missing data; the message explains how to fix it."""


def report(message: object, command: str = "") -> None:
    """Prints why a command, if one is known, ends: the form of all errors."""
    print(f"{f'experiments {command}'.rstrip()}: {message}", file=sys.stderr)


@contextlib.contextmanager
def damage_named(
    path: pathlib.Path, fix: str, *, passed: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turns any error that a damaged file causes into one line about the file.

    Errors of the system, such as refused access or too little memory, pass unchanged,
    as they do not indicate damage; so do those of the types `passed`. `fix` is what the
    user can do, such as "remove it".
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (UsageError, MemoryError, *passed)):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            if error.errno not in _ABSENT:
                raise
            path = pathlib.Path(error.filename or path)
        if isinstance(error, FileNotFoundError):
            raise UsageError(f"{path} is missing; {fix}.") from error
        raise UsageError(f"{path} is damaged: {_described(error)}; {fix}.") from error


def _described(error: Exception) -> str:
    """Returns the first line of an error, with its type unless the text suffices."""
    first, *_ = str(error).splitlines() or [""]
    first = first[:200].rstrip(".")
    if first and isinstance(error, ValueError | OSError | RuntimeError):
        return first
    return f"{type(error).__name__} {first}".rstrip()
