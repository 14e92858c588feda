"""Progress of long work: a bar on a terminal, plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15


@contextlib.contextmanager
def progress(
    total: int, title: str, unit: str, *, initial: int = 0
) -> Iterator[Callable[[int], None]]:
    """Shows how far a piece of work has come, on standard error.

    Args:
      total: how many units the work has.
      title: what it is.
      unit: what is counted, in the singular.
      initial: how many units are done already.

    Yields:
      A function to call with the number of units done since the last call.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=title, unit=f" {unit}s", initial=initial) as bar:

            def advance(units: int) -> None:
                bar.update(units)

            yield advance
        return

    done, started = initial, time.perf_counter()
    said = started

    def advance_in_log(units: int) -> None:
        nonlocal done, said
        done += units
        now = time.perf_counter()
        if done == total or now - said >= _SECONDS_BETWEEN_LINES:
            said = now
            _line(f"{title}: {done} of {total} {unit}s, {now - started:.0f} s")

    yield advance_in_log


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
