"""The median of timings taken in turns."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.runtimes.timing import in_turns, seconds_of


def median_seconds(
    candidates: Mapping[str, Callable[[], Any]], rounds: int = 9
) -> dict[str, float]:
    """Times functions that return arrays.

    Each is called once to compile, and then once a round, in turn, so that a change of
    the machine's load falls on all alike.

    Args:
      candidates: the functions, by name.
      rounds: how often each is timed.

    Returns:
      The median seconds of each.
    """
    for function in candidates.values():
        seconds_of(function)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for name, value in in_turns(candidates, lambda name: len(seconds[name]) < rounds):
        seconds[name].append(value)
    return {name: float(np.median(values)) for name, values in seconds.items()}
