"""Timing that compares: functions take turns, so that load falls on all alike."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax


def seconds_of(function: Callable[[], Any]) -> float:
    """Seconds from the call of a function until the arrays it returns are computed."""
    started = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - started


def in_turns(
    functions: Mapping[str, Callable[[], Any]], wanted: Callable[[str], bool]
) -> Iterator[tuple[str, float]]:
    """Times functions one after the other, round by round.

    Args:
      functions: the functions, by name, compiled already.
      wanted: whether a function is to be timed again; asked before each round.

    Yields:
      The name and the seconds of each call, as it comes.
    """
    while names := [name for name in functions if wanted(name)]:
        for name in names:
            yield name, seconds_of(functions[name])
