"""Fusions that compute wrong numbers are off in programs, and nowhere else."""

import os
import subprocess
import sys

import jax
import pytest

from experiments.training import runs
from experiments.training.runs import provenance
from experiments.xla_flags import NO_YNNPACK_FUSIONS, without_ynnpack_fusions

# Runs a module as a program that prints its help, and then prints the flags.
PROGRAM = """
import os, runpy, sys
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__")
except SystemExit:
    pass
print("flags:", os.environ.get("XLA_FLAGS"))
"""


def _python(*arguments, **flags):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | flags
    return subprocess.run(
        [sys.executable, "-c", *arguments],
        env=environment, text=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("version", ["0.10.0", "0.10.2", "0.11.1", "0.12.0.1"])
def test_the_flag_is_added_where_jaxlib_has_it(version):
    assert without_ynnpack_fusions("", version) == NO_YNNPACK_FUSIONS
    both = f"--xla_dump_to=x {NO_YNNPACK_FUSIONS}"
    assert without_ynnpack_fusions("--xla_dump_to=x", version) == both
    assert without_ynnpack_fusions(both, version) == both


@pytest.mark.parametrize("version", ["0.9.2", "0.13.0", "1.0.0"])
def test_versions_that_may_lack_it_are_left_alone(version):
    assert without_ynnpack_fusions("--xla_dump_to=x", version) == "--xla_dump_to=x"


def test_what_the_user_says_of_the_fusions_stays():
    own = f"{NO_YNNPACK_FUSIONS}LIBRARY_FUSION_TYPE_DOT"
    assert without_ynnpack_fusions(own) == own
    assert without_ynnpack_fusions("flags.txt") == "flags.txt"


def test_the_installed_jaxlib_knows_the_flag():
    ours, unknown = (
        _python("import jax; jax.devices()", XLA_FLAGS=flags)
        for flags in (without_ynnpack_fusions(""), "--xla_no_such_flag=")
    )
    assert ours.returncode == 0, ours.stderr
    # Which is why the version decides.
    assert unknown.returncode != 0
    assert "xla_no_such_flag" in unknown.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", ["experiments", "benchmarks", "benchmarks.scaling"])
def test_programs_turn_the_fusions_off(module):
    told = _python(PROGRAM, module, "--help")
    assert told.stdout.splitlines()[-1] == f"flags: {NO_YNNPACK_FUSIONS}", told.stderr


def test_importing_a_package_changes_nothing():
    code = "import absum_jax, experiments, os; print('XLA_FLAGS' in os.environ)"
    assert _python(code).stdout == "False\n"


def test_these_tests_run_without_the_fusions():
    assert NO_YNNPACK_FUSIONS in os.environ["XLA_FLAGS"]


def test_provenance_has_the_commit_that_the_process_began_with(monkeypatch):
    before = provenance()["commit"]
    monkeypatch.setattr(runs, "_git", lambda *_: "a later commit")
    assert provenance()["commit"] == before


def test_provenance_tells_of_the_numerics(monkeypatch):
    told = provenance()
    assert told["xla_flags"] == os.environ["XLA_FLAGS"]
    assert (told["matmul_precision"], told["x64"]) == (None, False)
    with jax.default_matmul_precision("highest"), jax.enable_x64(True):
        told = provenance()
    assert (told["matmul_precision"], told["x64"]) == ("highest", True)
