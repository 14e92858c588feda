"""Folders of several users and processes, read-only ones, and full disks."""

import contextlib
import errno
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from experiments import cli
from experiments.data import Split, cache
from experiments.jobs import files, locks
from experiments.jobs.errors import UsageError

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def shared():
    """A folder that every user may write to; pytest's own are of one user."""
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def _user(uid):
    """Works as another user where this one is root, whom no permission stops."""
    before = os.geteuid()
    if os.getuid() != 0:
        yield
        return
    os.seteuid(0)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.seteuid(before)


def _splits():
    images = np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1)
    labels = np.arange(3, dtype=np.int32)
    return Split(images, labels), Split(images[:1] + 7, labels[:1])


def _any(splits):
    """Checks nothing."""


def _same(one, other):
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_a_complete_cache_is_only_read(shared):
    kept = shared / "cache" / "kept.npz"
    cache.cached(kept, _splits, _any)
    for path in (kept, kept.parent):
        path.chmod(0o555)
    # Once as this user too: another may not read the modules that this imports.
    for uid in (os.geteuid(), 12345):
        with _user(uid):
            _same(cache.cached(kept, pytest.fail, _any), _splits())
    refused = pytest.raises(UsageError, match=r"--cache-dir .*cannot be written to")
    with _user(12345), refused:
        cache.cached(kept.parent / "other.npz", pytest.fail, _any)
    kept.parent.chmod(0o755)


def test_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o002)
    try:
        files.write_json(tmp_path / "a" / "b.json", 1)
        files.append_json_line(tmp_path / "a" / "c.jsonl", 1)
        cache.cached(tmp_path / "cache" / "kept.npz", _splits, _any)
        with locks.side_by_side(tmp_path / "runs", "a", "1-of-2", "trains"):
            pass
    finally:
        os.umask(before)
    found = {
        path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
    }
    assert len(found) == 9
    for path, mode in found.items():
        assert mode == (0o775 if (tmp_path / path).is_dir() else 0o664), path


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_two_users_share_a_folder(shared):
    with _user(12345), locks.exclusive(shared, "trains"):
        files.write_json(shared / "a.json", 1)
        with (
            _user(12346),
            pytest.raises(UsageError, match="another process trains"),
            locks.exclusive(shared, "trains"),
        ):
            pass
    # The first one's umask keeps others from writing to its files, not to its folder.
    assert stat.S_IMODE((shared / "lock").stat().st_mode) == 0o644
    with _user(12346), locks.exclusive(shared, "trains"):
        assert files.write_json(shared / "a.json", 2).stat().st_uid == 12346
    with _user(12345), locks.side_by_side(shared, "a", "1-of-2", "trains"):
        pass
    with _user(12345):
        (shared / "parts").chmod(0o777)
    with _user(12346), locks.side_by_side(shared, "b", "1-of-2", "trains"):
        pass


def test_a_disk_that_fills_up(tmp_path, monkeypatch, capsys):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    arguments = [
        "figure1",
        f"--cache-dir={tmp_path / 'cache'}",
        f"--results-dir={tmp_path}",
    ]
    assert cli.main(arguments) == 1
    said = capsys.readouterr().err
    assert f"No space left on device: '{tmp_path / 'cache'}/mnist5k-" in said
    assert "Finished work is on disk" in said
    assert not list((tmp_path / "cache").iterdir())


KILLED = """
import os, sys, time
import pathlib
import numpy as np
from experiments.data import Split, cache

kept = os.fsync
def fsync(descriptor):
    kept(descriptor)
    if "kept.npz" in os.readlink(f"/proc/self/fd/{descriptor}"):
        print("writing", flush=True)
        time.sleep(600)
os.fsync = fsync
split = Split(np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, np.int32))
cache.cached(pathlib.Path(sys.argv[1]), lambda: (split, split), lambda _: None)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="there is no /proc")
def test_what_a_killed_writer_leaves_is_removed(tmp_path):
    target = tmp_path / "kept.npz"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, target], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"writing\n"
        of_the_user = tmp_path / "kept.npz.mine.partial"
        of_the_user.touch()
        files.write_text(target, "of another process meanwhile")
        (left,) = tmp_path.glob("kept.npz.????????.partial")
        target.unlink()
    finally:
        process.kill()
        process.communicate()
    assert left.exists()
    _same(cache.cached(target, _splits, _any), _splits())
    assert set(tmp_path.iterdir()) == {target, of_the_user}
