"""Progress: what a log is told."""

from experiments import progress


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
