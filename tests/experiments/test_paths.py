"""Paths as users write them, and users without a home folder."""

import dataclasses
import pathlib
import pwd
import typing

import command_line
import pytest

from experiments import cli
from experiments.composed import flat
from experiments.data import cache, prepared
from experiments.jobs import files
from experiments.jobs.errors import UsageError


def _unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def _path_options(options, seen=()):
    """The options of a class, and of those in it, that are paths."""
    for name, kind in typing.get_type_hints(options).items():
        if pathlib.Path in (kind, *typing.get_args(kind)):
            yield "--" + name.replace("_", "-")
        elif dataclasses.is_dataclass(kind):
            yield from _path_options(kind)


@pytest.mark.parametrize("command", cli._COMMANDS)
def test_every_option_that_is_a_path(command, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for option in _path_options(cli.options_type(command)):
        parsed = cli.parse(command, [f"{option}=~/a b/~"])
        name = option[2:].replace("-", "_")
        assert flat(parsed)[name] == tmp_path / "a b" / "~"
        with pytest.raises(UsageError, match=f"^{option}: a path must not be empty"):
            cli.parse(command, [f"{option}="])


def test_there_are_such_options():
    options = set(_path_options(cli.options_type("table1")))
    assert options == {
        "--runs-dir", "--results-dir", "--data-dir", "--cache-dir", "--manual-dir",
    }  # fmt: skip


def test_folders_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", "~/sets")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/kept")
    assert prepared.default_data_dir() == tmp_path / "sets"
    assert cache.default_cache_dir() == tmp_path / "kept" / "absum-jax"
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert prepared.default_data_dir() == tmp_path / "tensorflow_datasets"
    assert cache.default_cache_dir() == tmp_path / ".cache" / "absum-jax"


def test_a_user_without_a_home_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", _unknown)
    with pytest.raises(UsageError, match=r"home folder of ~/x is unknown: set HOME"):
        files.expanded("~/x")
    assert cli.main(["figure1", f"--results-dir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert ": the home folder of ~/.cache is unknown: set HOME" in said


@pytest.mark.slow
def test_libraries_need_no_home_folder(prepared_fake, tmp_path):
    done = command_line.run(
        "import os, pwd; del os.environ['HOME']; pwd.getpwuid = {}.__getitem__",
        "figure1", "--dataset=mnist", f"--data-dir={prepared_fake}",
        f"--cache-dir={tmp_path}", f"--results-dir={tmp_path}",
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("option", ["--runs-dir", "--records-dir"])
def test_a_link_to_itself(option, tmp_path, capsys):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert cli.main(["record", f"--runs-dir={tmp_path}", f"{option}={loop}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
