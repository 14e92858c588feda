"""Compares every array function under jit with eager execution and with NumPy.

XLA compiles some programs for CPUs to fusions of YNNPACK, by default, and some of these
silently return wrong numbers. The arrays are large enough for such fusions, and XLA
chooses them as it does for users in the process that has them; another one, without
them, has what its results are compared with.
"""

import collections
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from calls import calls
from jit_program import PATTERNS, SLOW

pytestmark = pytest.mark.slow

# Flags by mode. Eager execution compiles a thousand tiny programs, as quickly as the
# other tests do; jit is XLA's as users have it, but for LLVM, which comes after all
# fusions are chosen. JIT=all includes it.
IS_ALL = os.environ.get("JIT") == "all"
PROCESSES = {
    "reference": os.environ["XLA_FLAGS"],
    "jit": "" if IS_ALL else "--xla_backend_optimization_level=0",
}
PROGRAM = pathlib.Path(__file__).with_name("jit_program.py")
ROOT = PROGRAM.parents[2]
CALLS = {call.label: call for call in calls("small") if call.kind == "array"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Runs both processes and returns their leaves, by mode and (label, computed)."""
    folder = tmp_path_factory.mktemp("jit")
    processes = {
        mode: subprocess.Popen(
            [sys.executable, str(PROGRAM), mode, str(folder / f"{mode}.npz")],
            cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for mode, flags in PROCESSES.items()
    }  # fmt: skip
    found = {}
    try:
        for mode, process in processes.items():
            output, errors = process.communicate()
            last = output.splitlines()[-1:]
            assert process.returncode == 0, f"{mode} failed at {last}: {errors}"
            leaves = found[mode] = collections.defaultdict(list)
            with np.load(folder / f"{mode}.npz") as saved:
                for key, leaf in saved.items():
                    label, computed, _ = key.split("|")
                    leaves[label, computed].append(leaf)
    finally:
        for process in processes.values():
            process.kill()
    return found


def error(found, expected):
    """Returns the largest error of a leaf, relative to its largest entry."""
    errors = []
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        largest = np.abs(theirs).max()
        wrong = ours != theirs if theirs.dtype == bool else np.abs(ours - theirs)
        errors.append(wrong.max() / (largest if largest else 1))
    return max(errors) if np.isfinite(errors).all() else np.inf


@pytest.mark.parametrize("pattern", [pattern.__name__ for pattern in PATTERNS])
def test_known_patterns_are_right_without_fusions(results, pattern):
    without, fused = (
        error(leaves[pattern, "jit"], leaves[pattern, "eager"])
        for leaves in (results["reference"], results["jit"])
    )
    assert without < 1e-5
    verdict = "still wrong" if fused > 1e-5 else "right now: is the flag needed?"
    print(f"{pattern} with fusions: {verdict} (relative error {fused:.1e})")


@pytest.mark.parametrize(
    ("mode", "computed", "label"),
    [
        (mode, computed, label)
        for mode, computed in (("reference", "eager"), ("jit", "jit"))
        for label in CALLS
        if computed != "eager" or label not in SLOW
    ],
)
def test_values_are_those_of_numpy(results, mode, computed, label):
    found = results[mode][label, computed]
    assert found
    difference = error(found, results["reference"][label, "NumPy"])
    assert difference < CALLS[label].tolerance


@pytest.mark.parametrize(
    ("computed", "label"),
    [
        (computed, label)
        for computed in ("vmap", "gradients")
        for label, call in CALLS.items()
        if label not in SLOW and (computed == "vmap" or call.differentiable)
    ],
)
def test_jit_with_fusions_agrees_with_eager_execution(results, computed, label):
    found, expected = (results[mode][label, computed] for mode in ("jit", "reference"))
    assert expected
    assert error(found, expected) < CALLS[label].tolerance
