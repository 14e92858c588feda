"""Which processes may work in a folder at the same time."""

import errno
import os
import types

import pytest

from experiments.jobs import locks
from experiments.jobs.errors import UsageError


def _part(folder, group, member):
    return locks.side_by_side(folder, group, member, "trains")


def _says(lock):
    """Why a lock is not to be had."""
    # It belongs to the open file, so that one process can try it twice.
    with pytest.raises(UsageError) as caught:
        lock.__enter__()
    return str(caught.value)


def test_a_folder_has_one_process(tmp_path):
    with locks.exclusive(tmp_path, "trains"):
        second = _says(locks.exclusive(tmp_path, "trains"))
        assert second == f"another process trains, in {tmp_path}; wait for it."
    with locks.exclusive(tmp_path, "trains"):
        pass


def test_parts_of_one_command_share_a_folder(tmp_path):
    with _part(tmp_path, "a", "1-of-2"), _part(tmp_path, "a", "2-of-2"):
        alone = _says(locks.exclusive(tmp_path, "trains"))
        assert "another process trains" in alone
        twice = _says(_part(tmp_path, "a", "2-of-2"))
        assert "part 2-of-2 of this command runs already" in twice
        other = _says(_part(tmp_path, "b", "1-of-3"))
        assert "a part of another command trains" in other
    # What they leave is in no one's way.
    with _part(tmp_path, "b", "1-of-3"), _part(tmp_path, "b", "2-of-3"):
        pass
    with locks.exclusive(tmp_path, "trains"):
        assert "another process trains" in _says(_part(tmp_path, "a", "1-of-2"))


def test_one_part_that_ends_leaves_the_other_its_lock(tmp_path):
    with _part(tmp_path, "a", "1-of-2"):
        with _part(tmp_path, "a", "2-of-2"):
            pass
        assert "another process" in _says(locks.exclusive(tmp_path, "trains"))
        assert "another command" in _says(_part(tmp_path, "b", "1-of-2"))
        with _part(tmp_path, "a", "2-of-2"):
            pass


def _raising(number):
    def flock(stream, how):
        raise OSError(number, os.strerror(number))

    return types.SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4, LOCK_SH=1)


def test_a_file_system_without_locks_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", _raising(errno.ENOSYS))
    with locks.exclusive(tmp_path, "trains"), _part(tmp_path, "a", "1-of-2"):
        pass
    monkeypatch.setattr(locks, "fcntl", _raising(errno.ENOLCK))
    with pytest.raises(OSError, match="No locks available"):
        locks.exclusive(tmp_path, "trains").__enter__()
