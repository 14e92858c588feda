"""Which processes may work in a folder at the same time.

A lock goes with its process, however that ends. Without effect where the operating
system or the file system has no `flock`.
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
    """Locks an open file for as long as it is open.

    Args:
      stream: the file.
      wait: whether to wait for another process that holds a lock on it.

    Returns:
      Whether the file is locked now: never where there are no locks.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _opened(path: pathlib.Path) -> IO[str]:
    """Opens a file to lock it, and makes it where there is none."""
    try:
        # On NFS a shared lock asks for a file to read, the other for one to write.
        return path.open("a+")
    except PermissionError:
        # It is another user's, in a shared folder. Except on NFS reading is enough.
        return path.open()


@contextlib.contextmanager
def _locked(path: pathlib.Path, taken: str, *, shared: bool = False) -> Iterator[None]:
    """Holds a lock on a file, which may be held many times if all of them share it.

    Raises:
      UsageError: saying by whom it is taken.
    """
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


def _folder_lock(
    folder: pathlib.Path, does_what: str, *, shared: bool
) -> contextlib.AbstractContextManager[None]:
    taken = f"another process {does_what}, in {folder}"
    return _locked(folder / "lock", taken, shared=shared)


@contextlib.contextmanager
def exclusive(folder: pathlib.Path, does_what: str) -> Iterator[None]:
    """Keeps all other processes out of a folder.

    Raises:
      UsageError: if another process is in it.
    """
    with _folder_lock(folder, does_what, shared=False):
        yield


@contextlib.contextmanager
def side_by_side(
    folder: pathlib.Path, group: str, member: str, does_what: str
) -> Iterator[None]:
    """Shares a folder with other members of a group, and keeps all others out.

    Args:
      folder: the folder.
      group: a name, without hyphens, of what may be there at the same time.
      member: which of the group this process is; each is there once.
      does_what: with the folder.

    Raises:
      UsageError: if this member, another group, or a process on its own is in it.
    """
    members = folder / "parts"
    with (
        _folder_lock(folder, does_what, shared=True),
        _locked(
            members / f"{group}-{member}",
            f"part {member} of this command runs already, in {folder}",
        ),
    ):
        # Whoever is second of two that begin at once sees the first, as each holds its
        # own before it looks. To look is to share, so that two may look at once.
        for other in members.iterdir():
            if not other.name.startswith(f"{group}-"):
                taken = f"a part of another command {does_what}, in {folder}"
                with _locked(other, taken, shared=True):
                    pass
        yield
