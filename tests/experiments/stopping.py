"""Stops training midway, as Ctrl-C does."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import pytest

from experiments.training import programs


class Stopped(KeyboardInterrupt):
    """What stops training; its arguments are those of the call that was not made."""


@contextlib.contextmanager
def at_most(calls: int, function: str = "train_steps") -> Iterator[None]:
    """Lets training call a program so many times, and stops it at the next call.

    Args:
      calls: how many. A small network takes an epoch a call on a CPU.
      function: which of `programs`.
    """
    real, left = getattr(programs, function), iter(range(calls))

    def stopping(*args, **kwargs):
        if next(left, None) is None:
            raise Stopped(*args)
        return real(*args, **kwargs)

    with mock.patch.object(programs, function, stopping):
        yield


@contextlib.contextmanager
def stopped(
    calls: int, function: str = "train_steps"
) -> Iterator[pytest.ExceptionInfo[Stopped]]:
    """As `at_most`, where training has to be stopped."""
    with pytest.raises(Stopped) as info, at_most(calls, function):
        yield info
