"""Compiled programs are kept from command to command, whatever happens to them."""

import importlib
import os
import pathlib
import subprocess
import sys
import zlib

import pytest
from processes import outputs

from experiments import cli, compiled

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _start(arguments, home, **environment):
    """Starts Python with a cache folder of its own, which jax knows nothing of."""
    others = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    ours = others | {"XDG_CACHE_HOME": str(home), **environment}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=ours, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _end_quietly(*processes):
    """Waits for processes, and returns what each printed."""
    ended = outputs(list(processes))
    for code, _, errors in ended:
        assert code == 0, errors
        assert "persistent compilation cache" not in errors
    return [output for _, output, _ in ended]


_TINY = """
import runpy
from tiny_network import in_place_of_small_cnn
with in_place_of_small_cnn():
    runpy.run_module("experiments", run_name="__main__")
"""


def _train(tmp_path, runs):
    return _start(
        ["-c", _TINY, "train", "--train-examples=128", "--epochs=1",
         f"--runs-dir={tmp_path / runs}"],
        tmp_path / "home", PYTHONPATH=str(pathlib.Path(__file__).parent),
    )  # fmt: skip


def _trained(tmp_path, runs):
    """Loss and accuracy in training, and sums of the trained kernels."""
    names = ("metrics.jsonl", "diagnostics.jsonl")
    ((metrics,), (diagnostics,)) = ((tmp_path / runs).rglob(name) for name in names)
    return metrics.read_text(), diagnostics.read_text()


def _entries(tmp_path):
    return sorted((tmp_path / "home" / "absum-jax" / "compiled").glob("*-cache"))


def test_two_commands_at_once_and_one_after_damage_train_the_same(tmp_path):
    _end_quietly(_train(tmp_path, "first"), _train(tmp_path, "second"))
    entries = _entries(tmp_path)
    assert entries
    for i, path in enumerate(entries):
        data = bytearray(path.read_bytes())
        zlib.decompress(data)
        data[len(data) // 2] ^= 1
        path.write_bytes([bytes(data), data[: len(data) // 2], b"", b"no zlib"][i % 4])
    _end_quietly(_train(tmp_path, "third"))
    assert _entries(tmp_path) == entries
    for path in entries:
        zlib.decompress(path.read_bytes())
    first, *others = (_trained(tmp_path, runs) for runs in ("first", "second", "third"))
    assert others == [first, first]


CONFIGURED = """
import os
import jax
if processes := os.environ.get("PROCESSES"):
    jax.process_count = lambda: int(processes)
from experiments.compiled import keep_compiled
keep_compiled()
jax.jit(lambda x: x + 1)(1.0)
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"JAX_COMPILATION_CACHE_DIR": os.devnull}, os.devnull),
        ({"JAX_ENABLE_COMPILATION_CACHE": "false"}, "None"),
        # It cannot be made.
        ({"XDG_CACHE_HOME": os.devnull}, "None"),
        ({"PROCESSES": "2"}, "None"),
    ],
    ids=["folder", "disabled", "unwritable", "distributed"],
)
def test_what_the_user_configured_is_left_alone(environment, folder, tmp_path):
    arguments = ["-c", CONFIGURED]
    # Programs of any size would be kept.
    environment = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment}
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        # jax warns that it cannot write into what is no folder.
        arguments = ["-W", "ignore", *arguments]
    (output,) = _end_quietly(_start(arguments, tmp_path / "home", **environment))
    assert output.strip() == folder
    assert not _entries(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
@pytest.mark.parametrize(("mode", "is_used"), [(0o700, True), (0o770, False)])
def test_programs_that_others_may_write_are_not_run(mode, is_used, tmp_path):
    folder = tmp_path / "home" / "absum-jax" / "compiled"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    (output,) = _end_quietly(_start(["-c", CONFIGURED], tmp_path / "home"))
    assert output.strip() == (str(folder) if is_used else "None")


def test_the_oldest_of_too_many_are_removed(tmp_path, monkeypatch):
    for i in range(4):
        path = tmp_path / f"{i}-cache"
        path.write_bytes(zlib.compress(b"program", level=0))
        os.utime(path, (i, i))
    size = path.stat().st_size
    (tmp_path / "folder-cache").mkdir()
    monkeypatch.setattr(compiled, "_LARGEST_TOTAL", 2 * size)
    compiled._tidy(tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["2-cache", "3-cache", "folder-cache"]


@pytest.mark.parametrize(("command", "times"), [("figure1", 1), ("figure6b", 0)])
def test_what_reports_compilation_compiles(command, times, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(compiled, "keep_compiled", lambda: called.append(command))
    module = importlib.import_module(f"experiments.figures.{command}")

    def run(options):
        return []

    run.__annotations__ = module.run.__annotations__
    monkeypatch.setattr(module, "run", run)
    assert cli.main([command, f"--results-dir={tmp_path}"]) == 0
    assert len(called) == times
