"""Runs commands: with a mistake, and in a process that finds something else."""

import pathlib
import subprocess
import sys

from experiments import cli

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a command after a program that changes what it finds."""
    program += "\nimport runpy; runpy.run_module('experiments', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def mistake(capsys, *arguments: str) -> str:
    """Runs a command that must end with code 2; returns why, without the command."""
    assert cli.main(arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    command = [name for name in arguments[:1] if name in cli._COMMANDS]
    start = " ".join(["experiments", *command]) + ": "
    assert last.startswith(start)
    assert len(last) < 500
    return last.removeprefix(start)
