"""Progress of long work: a bar on a terminal, plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

_LINES = 10


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
        with tqdm(total=total, desc=title, unit=unit, initial=initial) as bar:
            yield lambda units: bar.update(units) and None
        return
    done, started = initial, time.perf_counter()
    _line(f"{title}: {total - initial} {unit}s")

    def advance(units: int) -> None:
        nonlocal done
        before, done = done, done + units
        if before * _LINES // total != done * _LINES // total:
            seconds = time.perf_counter() - started
            _line(f"{title}: {done} of {total} {unit}s, {seconds:.0f} s")

    yield advance


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
