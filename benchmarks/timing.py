"""Timing that compares: candidates take turns, and the median counts."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


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
        jax.block_until_ready(function())
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, function in candidates.items():
            started = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in seconds.items()}
