"""Training that is killed, or runs out of room, ends as if it had not been.

`KILLS=10 python -m pytest tests/experiments/test_interruption.py` kills ten times.
"""

import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.config import RunConfig
from experiments.jobs import files
from experiments.training import checkpoints, loop, plan
from experiments.training.runs import Run
from experiments.xla_flags import without_ynnpack_fusions

ROOT = pathlib.Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("KILLS", "3"))
EPOCHS = 8 + 4 * KILLS


def _train(folder, errors=subprocess.STDOUT):
    """Starts to train two models, saved as often as can be."""
    command = [
        sys.executable, "-m", "experiments", "train", "--train-examples=128",
        f"--epochs={EPOCHS}", "--methods", "none", "absum", "--strengths=0.1",
        "--checkpoint-seconds=0", "--runs-dir", str(folder),
    ]  # fmt: skip
    environment = {
        # A kill may tear an entry of the compilation cache, hence one of its own.
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "jax"),
        "XLA_FLAGS": without_ynnpack_fusions("--xla_backend_optimization_level=0"),
    }
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def _end(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output


def _metrics(folder):
    """A model's metrics; the folders of checkpoints, which come and go, are passed."""
    models = folder / "mnist5k" / "small_cnn" / "absum"
    return next(models.glob("*/seed-*/metrics.jsonl"), None)


def _wait_for_epochs(process, folder, epochs):
    """Waits until a process has added so many epochs to what it found."""
    before = path.stat().st_ino if (path := _metrics(folder)) else None
    first = None
    deadline = time.monotonic() + 240
    while process.poll() is None:
        assert time.monotonic() < deadline
        path = _metrics(folder)
        # What was there is written anew.
        if path is not None and path.stat().st_ino != before:
            lines = len(files.read_json_lines(path))
            first = lines if first is None else first
            if lines >= first + epochs:
                return
        time.sleep(0.005)


def _trained(folder, classifier):
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    trained = {}
    for path in sorted(folder.rglob("config.json")):
        run = Run(folder, RunConfig.from_dict(files.read_json(path)))
        told = run.metrics(), run.diagnostics()
        trained[run.config.path] = told, run.variables(shapes)
    return trained


def _assert_equal(one, two):
    assert one.keys() == two.keys()
    for path, (told, variables) in one.items():
        assert told == two[path][0]
        leaves = jax.tree.leaves(two[path][1])
        for a, b in zip(jax.tree.leaves(variables), leaves, strict=True):
            np.testing.assert_array_equal(a, b)


def _assert_whole(folder, classifier):
    """That every step that is there loads; returns how many there are."""
    steps = 0
    for place in (folder / "mnist5k" / "small_cnn" / "in-progress").iterdir():
        abstract = jax.eval_shape(
            lambda place=place: loop.initial(classifier, plan.load_members(place))
        )
        known = checkpoints.saved_steps(place / loop.CHECKPOINTS)
        for step in known:
            checkpoints.load_step(place / loop.CHECKPOINTS, step, abstract)
        steps += len(known)
    return steps


@pytest.fixture(scope="module")
def whole(classifier, tmp_path_factory):
    """What a run that nothing interrupts leaves, beside a compilation cache."""
    folder = tmp_path_factory.mktemp("whole") / "runs"
    _end(_train(folder))
    return folder


def test_killed_and_out_of_room_ends_with_the_same_numbers(whole, classifier):
    folder = whole.parent / "interrupted"
    rng = random.Random(0)
    kills = 0
    for _ in range(KILLS):
        process = _train(folder)
        _wait_for_epochs(process, folder, rng.randint(1, 2))
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert _assert_whole(folder, classifier) >= 1
    assert kills

    if hasattr(resource, "prlimit"):
        process = _train(folder, errors=subprocess.PIPE)
        _wait_for_epochs(process, folder, 1)
        # As on a full disk, nothing larger is written any more; a checkpoint is.
        resource.prlimit(
            process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)
        )
        _, said = process.communicate(timeout=240)
        assert process.returncode == 1, said
        assert f"File too large: '{folder}/" in said.splitlines()[-1]
        assert "Traceback" not in said
        assert _assert_whole(folder, classifier) >= 1

    _end(_train(folder))
    _assert_equal(_trained(folder, classifier), _trained(whole, classifier))
    assert not list(folder.rglob("*tmp*"))
    assert not list((folder / "mnist5k" / "small_cnn" / "in-progress").iterdir())
