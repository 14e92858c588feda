"""Times functions in turns, so that varying load affects all of them equally."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax

_Name = TypeVar("_Name")


def seconds_of(function: Callable[[], Any]) -> float:
    """Measures the seconds from calling a function until its results are computed."""
    started = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - started


def in_turns(
    functions: Mapping[_Name, Callable[[], Any]], wanted: Callable[[_Name], bool]
) -> Iterator[tuple[_Name, float]]:
    """Yields names and seconds of compiled functions, in rounds of those wanted."""
    while names := [name for name in functions if wanted(name)]:
        for name in names:
            yield name, seconds_of(functions[name])
