"""Progress: what a log is told."""

import io
import itertools
import os
import subprocess
import sys

import jax
import pytest
import tqdm

from experiments.jobs import progress


def test_no_time_is_left_to_tell_before_anything_is_done(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    with progress.progress(10, "work", "unit", initial=4) as advance:
        advance(0)
        advance(3)
        advance(3)
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "work: 4 of 10 units, 0 s"
    assert second == "work: 7 of 10 units, 0 s, 0 s left"
    assert last == "work: 10 of 10 units, 0 s"


@pytest.mark.parametrize(
    ("images", "rate"),
    [
        (0, "0"),
        (1, "0.025"),
        (134, "3.4"),
        (399, "10"),
        (400, "10"),
        (500, "12"),
        (60_000, "1,500"),
    ],
)
def test_a_slow_rate_has_two_digits(monkeypatch, capsys, images, rate):
    # It takes 40 seconds.
    clock = itertools.count(0, 40)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    with progress.progress(1, "training", "epoch", rate_of="image") as advance:
        advance(1, images)
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"training: 1 of 1 epochs, 40 s, {rate} images/s"


def _report(part, seconds):
    """Reports what jax reports when a part of compilation ends."""
    name = f"/jax/core/compile/{part}_duration"
    jax.monitoring.record_event_duration_secs(name, seconds)


def _compile_for(clock, seconds):
    for part, share in (("jaxpr_trace", 0.25), ("backend_compile", 0.75)):
        clock.now += share * seconds
        _report(part, share * seconds)


@pytest.fixture
def clock(monkeypatch):
    """Makes a clock that stands still until it is set."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    monkeypatch.setattr(tqdm.std, "time", clock)
    return clock


def test_estimates_leave_compilation_out(clock, capsys):
    clock.now = -7
    _compile_for(clock, 7)  # before the work, and of no concern to it
    with progress.progress(
        4, "work", "unit", rate_of="image", compiles=True
    ) as advance:
        jax.monitoring.record_event_duration_secs("/jax/other", 50.0)
        _compile_for(clock, 100)
        clock.now = 120
        advance(1, 40)
        _compile_for(clock, 10)
        clock.now = 150
        advance(1, 40)
        clock.now = 170
        advance(2, 80)
    assert capsys.readouterr().err.splitlines() == [
        "work: compiling",
        "work: 1 of 4 units, 120 s, 2 images/s, 60 s left",
        "work: 2 of 4 units, 150 s, 2 images/s, 40 s left",
        "work: 4 of 4 units, 170 s, 2.7 images/s",
    ]


def test_what_is_compiled_at_the_same_time_counts_once(clock, capsys):
    with progress.progress(4, "work", "unit", compiles=True) as advance:
        clock.now = 50
        _report("backend_compile", 40)  # within the trace that ends next
        clock.now = 70
        _report("jaxpr_trace", 70)
        _report("backend_compile", 30)  # of another thread
        clock.now = 90
        _report("backend_compile", 500)  # it began before the work
        clock.now = 120
        advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "work: compiling",
        "work: 1 of 4 units, 120 s, 90 s left",
    ]


def test_work_whose_every_unit_compiles_counts_it(clock, capsys):
    with progress.progress(4, "work", "unit") as advance:
        _compile_for(clock, 100)
        clock.now = 120
        advance(1)
    assert capsys.readouterr().err == "work: 1 of 4 units, 120 s, 360 s left\n"


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_leaves_compilation_out(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", _Terminal())
    with progress.progress(4, "work", "unit", compiles=True) as advance:
        _compile_for(clock, 100)
        clock.now = 120
        advance(1)
    _, compiling, after, _ = sys.stderr.getvalue().split("\r")[1:]
    assert compiling.startswith("work:   0%|          | 0/4 [00:00<?")
    assert compiling.endswith(", compiling]")
    assert "1/4 [00:20<01:00, 20.00s/ units]" in after


def test_a_bar_that_the_environment_turns_off():
    # tqdm reads TQDM_DISABLE when it is imported.
    code = (
        "import sys; sys.stderr.isatty = lambda: True\n"
        "from experiments.jobs import progress\n"
        "with progress.progress(2, 'work', 'unit', compiles=True) as advance:\n"
        "    advance(1)\n"
    )
    environment = os.environ | {"TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_jax_reports_compilation_by_that_name():
    heard = []

    def listen(event, seconds, **_):
        heard.append(event.startswith(progress._COMPILATION) and seconds > 0)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + 1)(0)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert sum(heard) >= 2
