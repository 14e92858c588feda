"""Locks that decide which processes may work in a folder at the same time.

A lock ends with its process, however that ends. Locks have no effect where the
operating system or the file system lacks `flock`.
"""

import contextlib
import errno
import pathlib
from collections.abc import Iterator
from typing import IO, Any

from experiments.jobs.errors import UsageError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


def lock(stream: IO[Any], *, wait: bool) -> bool:
    """Locks an open file until it is closed, and returns whether it is locked now.

    May wait until another process unlocks it. Returns False without support of locks.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _opened(path: pathlib.Path) -> IO[str]:
    """Opens a file to lock it, and makes it if there is none."""
    try:
        # On NFS a shared lock needs a readable file, an exclusive one a writable file.
        return path.open("a+")
    except PermissionError:
        # It belongs to another user. Except on NFS a readable file suffices.
        return path.open()


@contextlib.contextmanager
def _locked(path: pathlib.Path, taken: str, *, shared: bool = False) -> Iterator[None]:
    """Holds a lock on a file, or raises a `UsageError` with the message `taken`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as stream:
        if fcntl is not None:
            how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            try:
                fcntl.flock(stream, how | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"{taken}; wait for it.") from None
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
        yield


def exclusive(
    folder: pathlib.Path, activity: str
) -> contextlib.AbstractContextManager[None]:
    """Excludes all other processes from a folder.

    Raises:
      UsageError: if another process holds it: "another process ACTIVITY".
    """
    return _locked(folder / "lock", f"another process {activity}, in {folder}")


@contextlib.contextmanager
def side_by_side(
    folder: pathlib.Path, group: str, member: str, activity: str
) -> Iterator[None]:
    """Holds a folder along with other members of a group, and excludes everyone else.

    The name of a group has no hyphens, and each member may hold the folder once.
    """
    members = folder / "parts"
    taken = f"another process {activity}, in {folder}"
    taken_part = f"part {member} of this command runs already, in {folder}"
    with (
        _locked(folder / "lock", taken, shared=True),
        _locked(members / f"{group}-{member}", taken_part),
    ):
        # Each process locks its file before it checks the others, so that of two that
        # start at once the second sees the first. A check takes a shared lock, so that
        # two processes can check at once.
        for other in members.iterdir():
            if not other.name.startswith(f"{group}-"):
                taken = f"a part of another command {activity}, in {folder}"
                with _locked(other, taken, shared=True):
                    pass
        yield
