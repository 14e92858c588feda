"""Runs commands: with a mistake, and in a process that finds something else."""

import pathlib
import re
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
    """Runs a command that must end with code 2; returns its output without boxes."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    assert code == 2
    text = " ".join(re.sub("[│|]", " ", said.err + said.out).split())
    assert "Traceback" not in text
    assert len(text) < 1500
    return text
