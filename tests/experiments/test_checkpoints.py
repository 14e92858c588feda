"""Checkpoints are whole or absent, whatever the disk does."""

import errno
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError
from experiments.models import Variables
from experiments.training import checkpoints


def _tree(step):
    return {"a": jax.random.normal(jax.random.key(step), (10_000,)), "b": jnp.ones(3)}


def _steps(folder):
    """The steps in a folder, each of which loads."""
    steps = checkpoints.saved_steps(folder)[::-1]
    for step in steps:
        loaded = checkpoints.load_step(folder, step, _tree(0))
        np.testing.assert_array_equal(loaded["a"], _tree(step)["a"])
    return steps


def test_arrays_on_disk_have_the_names_that_earlier_versions_gave(tmp_path):
    layer = {"mean": jnp.zeros(2)}
    checkpoints.save_arrays(tmp_path / "saved", Variables({"kernel": layer}, layer))
    saved = ocp.metadata(tmp_path / "saved").metadata
    assert set(digests.named(saved)) == {"params/kernel/mean", "statistics/mean"}
    earlier = {"params": {"kernel": layer}, "statistics": layer}
    found = checkpoints.load_arrays(tmp_path / "saved", earlier)
    assert digests.of_arrays(found) == digests.of_arrays(earlier)
    assert digests.of_arrays(Variables(*found.values())) == digests.of_arrays(earlier)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _fill(folder, pages_left):
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    filler = folder / "filler"
    filler.write_bytes(bytes(max(0, free - 4096 * pages_left)))
    return filler


# A checkpoint takes 20 pages of 4,096 bytes in files of several kinds: Python meets the
# full disk, or TensorStore.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("pages_left", [0, 1, 8, 14, 18])
def test_a_full_disk_is_told_and_the_last_step_stays(small_disk, pages_left):
    folder, arrays = small_disk / "checkpoints", small_disk / "arrays"
    with checkpoints.writer(folder, 0) as save:
        save(1, _tree(1))
    filler = _fill(small_disk, pages_left)

    def overfill():
        with checkpoints.writer(folder, 0) as save:
            save(2, _tree(2))

    with pytest.raises(OSError, match="No space left on device") as caught:
        overfill()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(folder))
    with pytest.raises(OSError, match="No space left on device") as caught:
        checkpoints.save_arrays(arrays, _tree(1))
    assert caught.value.filename == str(arrays)
    assert _steps(folder) == [1]

    filler.unlink()
    with checkpoints.writer(folder, 0) as save:
        save(2, _tree(2))
    checkpoints.save_arrays(arrays, _tree(1))
    assert _steps(folder)[-1] == 2
    assert sorted(path.name for path in small_disk.iterdir()) == [
        "arrays",
        "checkpoints",
    ]


def test_a_line_for_a_full_disk_is_dropped_later(small_disk):
    path = small_disk / "metrics.jsonl"
    files.append_json_line(path, {"epoch": 1})
    filler = _fill(small_disk, 0)
    with pytest.raises(OSError, match="No space left on device") as caught:
        files.append_json_line(path, {"epoch": 2, "long": "x" * 4096})
    assert caught.value.filename == str(path)
    filler.unlink()
    assert files.read_json_lines(path) == [{"epoch": 1}]


def test_what_is_removed_is_no_checkpoint(tmp_path, monkeypatch):
    def killed(folder):
        next(path for path in folder.rglob("*") if path.is_file()).unlink()
        raise KeyboardInterrupt

    def three_steps():
        with checkpoints.writer(tmp_path, 0) as save:
            for step in (1, 2, 3):
                save(step, _tree(step), final=True)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            three_steps()
    # The third was not begun, as the first was being removed.
    assert _steps(tmp_path) == [2]
    with checkpoints.writer(tmp_path, 0) as save:
        save(3, _tree(3), final=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


@pytest.mark.parametrize("moved", ["one/steps/2", "two/steps/1"])
def test_a_step_that_was_moved_is_not_used(moved, tmp_path):
    folder = tmp_path / "one" / "steps"
    with checkpoints.writer(folder, 0) as save:
        save(1, _tree(1))
    assert _steps(folder) == [1]
    there = tmp_path / moved
    shutil.copytree(folder / "1", there)
    with pytest.raises(UsageError, match=f"{there} is damaged: its arrays are not"):
        checkpoints.load_step(there.parent, int(there.name), _tree(0))


def test_a_step_is_saved_once_and_not_too_often(tmp_path):
    with checkpoints.writer(tmp_path, 3600) as save:
        save(1, _tree(1))
        save(2, _tree(2))
        save(3, _tree(3), final=True)
        save(3, _tree(4), final=True)
    assert _steps(tmp_path) == [3]
    assert checkpoints.saved_steps(tmp_path) == [3]
