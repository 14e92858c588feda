"""Stops training midway, as Ctrl-C does, or holds it in a process to be killed."""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from command_line import ROOT

from experiments.training import programs

_TWO_DEVICES = "--xla_force_host_platform_device_count=2"

# Prints a line after each epoch of each model, and waits for one.
_HELD = """
import runpy, sys
from tiny_network import in_place_of_small_cnn
from experiments.training.runs import Run

logged = Run.log_diagnostics

def log_diagnostics(*arguments):
    logged(*arguments)
    print("held", flush=True)
    sys.stdin.readline()

Run.log_diagnostics = log_diagnostics
with in_place_of_small_cnn():
    runpy.run_module("experiments", run_name="__main__")
"""


class Stopped(KeyboardInterrupt):
    """Stops training; its arguments are those of the call that was not made."""


@contextlib.contextmanager
def interrupted(
    calls: int, function: str = "train_steps", of: Any = programs
) -> Iterator[None]:
    """Allows so many calls of a function, and interrupts the next.

    Args:
      calls: how many. On a CPU a network of these tests takes an epoch a call.
      function: its name.
      of: its module or class.
    """
    real, left = getattr(of, function), iter(range(calls))

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is None:
            raise Stopped(*args)
        return real(*args, **kwargs)

    with mock.patch.object(of, function, stopping):
        yield


@contextlib.contextmanager
def stopped(*args: Any, **kwargs: Any) -> Iterator[pytest.ExceptionInfo[Stopped]]:
    """Expects to be interrupted as by `interrupted`."""
    with pytest.raises(Stopped) as info, interrupted(*args, **kwargs):
        yield info


@contextlib.contextmanager
def at_most(calls: int) -> Iterator[None]:
    """Fails if training takes more calls."""
    try:
        with interrupted(calls):
            yield
    except Stopped as stop:
        raise AssertionError(f"training takes more than {calls} calls") from stop


def start_held(*arguments: str, **options: Any) -> subprocess.Popen:
    """Starts a command that is held after each epoch of each model, a tiny network.

    Args:
      *arguments: of the command.
      **options: of `subprocess.Popen`, such as more of the environment.
    """
    environment = {
        # The last one of a flag counts.
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {_TWO_DEVICES}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{pathlib.Path(__file__).parent}",
    } | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-c", _HELD, *arguments],
        cwd=ROOT, env=os.environ | environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, **{"stderr": subprocess.STDOUT} | options,
    )  # fmt: skip


def let_go_on(process: subprocess.Popen) -> None:
    """Lets a held process go on until it is held again."""
    process.stdin.write("\n")
    process.stdin.flush()


def wait_until_held(process: subprocess.Popen, times: int = 1) -> None:
    """Waits until a process is held for the so many-th time."""
    output = ""
    for line in process.stdout:
        output += line
        if line == "held\n":
            times -= 1
            if times == 0:
                return
            let_go_on(process)
    raise AssertionError(output)
