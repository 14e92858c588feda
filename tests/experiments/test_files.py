"""Files that are whole or absent."""

import errno
import pathlib

import pytest

from experiments.jobs import files
from experiments.jobs.errors import UsageError


def test_write_leaves_no_scratch_file(tmp_path):
    files.write_json(tmp_path / "deep" / "a.json", {"x": 1})
    assert files.read_json(tmp_path / "deep" / "a.json") == {"x": 1}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.json"]


def test_failed_write_keeps_the_old_file(tmp_path):
    path = files.write_text(tmp_path / "a.txt", "old")

    def fail(stream):
        stream.write(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        files.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(
    not pathlib.Path("/dev/full").exists(), reason="the system has no /dev/full"
)
def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        files.append_json_line(path, {"epoch": 1})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))

    def fill(stream):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(OSError, match="No space left on device") as caught:
        files.write_atomically(tmp_path / "a.txt", fill)
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert [child.name for child in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_json_lines_survive_a_torn_last_line(tmp_path):
    path = tmp_path / "m.jsonl"
    assert files.read_json_lines(path) == []
    files.append_json_line(path, {"epoch": 1})
    files.append_json_line(path, {"epoch": 2})
    path.write_text(path.read_text() + '{"epo')
    assert files.read_json_lines(path) == [{"epoch": 1}, {"epoch": 2}]
    files.append_json_line(path, {"epoch": 3})
    assert [line["epoch"] for line in files.read_json_lines(path)] == [1, 2, 3]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match=r"--runs-dir .*file/below cannot be written to"
    ):
        files.writable_folder(tmp_path / "file" / "below", "--runs-dir")
