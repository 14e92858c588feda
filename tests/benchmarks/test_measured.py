"""Processes that are timed start, take their turns and end."""

import pathlib

import pytest

from benchmarks.scaling import measured
from benchmarks.scaling.measured import Machines

pytestmark = pytest.mark.slow

_FOLDER = pathlib.Path(__file__).parent


def test_processes_take_turns(monkeypatch, tmp_path):
    monkeypatch.setattr(measured.program, "__name__", "told_program")
    monkeypatch.setenv("PYTHONPATH", str(_FOLDER))
    monkeypatch.setenv("TOLD", str(tmp_path))
    monkeypatch.setattr(measured, "DEVICES", (1, 4))
    monkeypatch.setattr(measured, "_ROUNDS", 2)
    seconds = measured.seconds_of("sweep")
    assert seconds.keys() == {Machines(1, 1), Machines(1, 4), Machines(2, 4)}
    assert min(seconds.values()) > 0

    # Each once to warm up, and each round.
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "sweep, 1 devices, process 0 of 1": "xxx",
        "sweep, 4 devices, process 0 of 1": "xxx",
        "sweep, 2 devices, process 0 of 2": "xxx",
        "sweep, 2 devices, process 1 of 2": "xxx",
    }


def test_a_process_that_ends_is_noticed(capfd):
    with pytest.raises(RuntimeError, match="a process ended"):
        measured.seconds_of("no such work")
    assert "no such work" in capfd.readouterr().err
