"""Progress: what a log is told."""

import itertools

import pytest

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
