"""Runs the command line in a process that finds something else around it."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a command after a program that changes what it finds."""
    program += "\nimport runpy; runpy.run_module('experiments', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
