"""Progress of long work: a bar on a terminal, plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from experiments.jobs import processes

_SECONDS_BETWEEN_LINES = 15


@contextlib.contextmanager
def progress(
    total: int, title: str, unit: str, *, initial: int = 0, rate_of: str | None = None
) -> Iterator[Callable[..., None]]:
    """Reports the progress and remaining time of some work, on standard error.

    Of several processes only process 0 reports. Yields a function to call with the
    number of units done since the last call, and, to report the speed, with the number
    of `rate_of` in them; both are nouns in the singular.
    """
    if not processes.is_first():
        yield lambda *_: None
        return
    started = time.perf_counter()
    done, reported, counted = initial, started, 0

    def rate(now: float) -> str:
        per_second = counted / max(now - started, 1e-9)
        # Two digits for slow rates.
        number = f"{per_second:.2g}" if per_second < 10 else f"{per_second:,.0f}"
        return f"{number} {rate_of}s/s"

    bar = None
    if sys.stderr.isatty():
        bar = tqdm(total=total, desc=title, unit=f" {unit}s", initial=initial)

    def advance(units: int, of_rate: int = 0) -> None:
        nonlocal done, reported, counted
        done += units
        counted += of_rate
        now = time.perf_counter()
        if bar is not None:
            if rate_of is not None:
                bar.set_postfix_str(rate(now), refresh=False)
            bar.update(units)
        elif done >= total or now - reported >= _SECONDS_BETWEEN_LINES:
            reported = now
            parts = [f"{title}: {done} of {total} {unit}s", f"{now - started:.0f} s"]
            if rate_of is not None:
                parts.append(rate(now))
            if initial < done < total:
                left = (now - started) * (total - done) / (done - initial)
                parts.append(f"{left:.0f} s left")
            print(", ".join(parts), file=sys.stderr, flush=True)

    with bar if bar is not None else contextlib.nullcontext():
        yield advance
