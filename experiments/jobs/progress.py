"""Progress of long work: a bar on a terminal, plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from experiments.jobs import processes

_SECONDS_BETWEEN_LINES = 15
# What jax's names of the durations of compilation begin with: to trace a program, to
# lower it, and to compile it or to read it from the cache.
_COMPILATION = "/jax/core/compile/"


@contextlib.contextmanager
def progress(
    total: int, title: str, unit: str, *, initial: int = 0, rate_of: str | None = None,
    compiles: bool = False,
) -> Iterator[Callable[..., None]]:  # fmt: skip
    """Reports the progress and remaining time of some work, on standard error.

    Of several processes only process 0 reports. Yields a function to call with the
    number of units done since the last call, and, to report the speed, with the number
    of `rate_of` in them; both are nouns in the singular.

    With `compiles` it reports first that programs are compiled. What that takes counts
    neither for the remaining time nor for the speed.
    """
    if not processes.is_first():
        yield lambda *_: None
        return
    started = time.perf_counter()
    done, reported, counted = initial, started, 0
    # Spans of time in which programs were compiled, apart from each other.
    spans: list[tuple[float, float]] = []
    compiling_reported = 0.0

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        if not compiles or not event.startswith(_COMPILATION):
            return
        # jax reports what has just ended: what a trace compiles before the trace, and
        # what other threads compile at the same time.
        end = time.perf_counter()
        begin = max(end - duration_secs, started)
        while spans and spans[-1][1] >= begin:
            begin = min(begin, spans.pop()[0])
        spans.append((begin, end))

    def rate(seconds: float) -> str:
        per_second = counted / max(seconds, 1e-9)
        # Two digits for slow rates.
        number = f"{per_second:.2g}" if per_second < 10 else f"{per_second:,.0f}"
        return f"{number} {rate_of}s/s"

    bar = None
    if sys.stderr.isatty():
        bar = tqdm(total=total, desc=title, unit=f" {unit}s", initial=initial)
    if compiles and bar is not None:
        bar.set_postfix_str("compiling")
    elif compiles:
        print(f"{title}: compiling", file=sys.stderr, flush=True)

    def advance(units: int, of_rate: int = 0) -> None:
        nonlocal done, reported, counted, compiling_reported
        done += units
        counted += of_rate
        now = time.perf_counter()
        compiling = sum(end - begin for begin, end in spans)
        working = now - started - compiling
        if bar is not None:
            if not bar.disable:  # as by TQDM_DISABLE, without these times
                bar.start_t += compiling - compiling_reported
                bar.last_print_t += compiling - compiling_reported
            compiling_reported = compiling
            bar.set_postfix_str(rate(working) if rate_of else "", refresh=False)
            bar.update(units)
        elif done >= total or now - reported >= _SECONDS_BETWEEN_LINES:
            reported = now
            parts = [f"{title}: {done} of {total} {unit}s", f"{now - started:.0f} s"]
            if rate_of is not None:
                parts.append(rate(working))
            if initial < done < total:
                left = working * (total - done) / (done - initial)
                parts.append(f"{left:.0f} s left")
            print(", ".join(parts), file=sys.stderr, flush=True)

    # Imported late, as `--help` works without jax.
    from jax import monitoring

    with bar if bar is not None else contextlib.nullcontext():
        monitoring.register_event_duration_secs_listener(heard)
        try:
            yield advance
        finally:
            monitoring.unregister_event_duration_listener(heard)
