"""Training that is killed, or runs out of room, ends as if it had not been.

`KILLS=10 python -m pytest tests/experiments/test_interruption.py` kills ten times.
"""

import os
import random
import resource
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from stopping import let_go_on, start_held, wait_until_held

from experiments.config import RunConfig
from experiments.jobs import files
from experiments.training import checkpoints, loop, plan
from experiments.training.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_network")]

KILLS = int(os.environ.get("KILLS", "2"))
EPOCHS = 8 + 5 * KILLS


def _train(folder, errors=subprocess.STDOUT):
    """Starts to train two models, saved as often as can be, and held meanwhile."""
    # A kill may tear an entry of the compilation cache, hence one of its own.
    own = {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "jax")}
    return start_held(
        "train", "--train-examples=128", f"--epochs={EPOCHS}", "--methods", "none",
        "absum", "--strengths=0.1", "--checkpoint-seconds=0", "--runs-dir", str(folder),
        env=own, stderr=errors,
    )  # fmt: skip


def _end(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output


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
    for _ in range(KILLS):
        process = _train(folder)
        # Twice an epoch. In the third, the checkpoint of the first is written.
        wait_until_held(process, rng.randint(5, 8))
        let_go_on(process)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert _assert_whole(folder, classifier) >= 1

    if hasattr(resource, "prlimit"):
        process = _train(folder, errors=subprocess.PIPE)
        wait_until_held(process)
        # As on a full disk, nothing larger is written any more; a checkpoint is.
        resource.prlimit(
            process.pid, resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY)
        )
        _, said = process.communicate()
        assert process.returncode == 1, said
        assert f"File too large: '{folder}/" in said.splitlines()[-1]
        assert "Traceback" not in said
        assert _assert_whole(folder, classifier) >= 1

    _end(_train(folder))
    _assert_equal(_trained(folder, classifier), _trained(whole, classifier))
    assert not list(folder.rglob("*tmp*"))
    assert not list((folder / "mnist5k" / "small_cnn" / "in-progress").iterdir())
