"""An attack that the project does not have: registered, run in memory and streamed."""

import jax
import numpy as np
import pytest
from streaming import InMemory

import absum_jax
from experiments.config import NONE
from experiments.data import Split
from experiments.evaluation import evaluator
from experiments.evaluation.attack import (
    ATTACKS,
    Attack,
    on_stacked_models,
    register,
)
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.jobs import files
from experiments.models import Classifier, Variables
from experiments.training.runs import Run

IMAGES, SHAPE, CLASSES = 23, (2, 3, 1), 3


def _init(key):
    return Variables({"dense": jax.random.normal(key, (6, CLASSES))}, {})


def _logits(variables, x):
    return x.reshape(len(x), -1) @ variables.params["dense"]


@on_stacked_models
def _accuracies(logits_fn, x, y, *, batch):
    return absum_jax.accuracy(logits_fn, 1 - x, y, batch_size=batch)


@pytest.fixture
def _inverted():
    """Registers accuracy on inverted images."""

    @register("inverted")
    def inverted(images):
        return Attack(
            "evaluation",
            ["inverted"],
            lambda models, _: models.apply(_accuracies),
            is_streamable=True,
        )

    yield
    del ATTACKS["inverted"]


@pytest.fixture
def split():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (IMAGES, *SHAPE)).astype(np.uint8)
    return Split(images, rng.integers(0, CLASSES, IMAGES).astype(np.int32))


@pytest.fixture
def runs(make_config, tmp_path):
    runs = [Run(tmp_path, make_config(NONE, seed)) for seed in range(3)]
    for seed, run in enumerate(runs):
        run.begin(0)
        run.finish(_init(jax.random.key(seed)), {})
    return runs


@pytest.fixture
def correct(split, runs):
    """Numbers of inverted images that are classified correctly, by NumPy."""
    inverted = (1 - split.images / 255).reshape(IMAGES, -1)
    kernels = [_init(jax.random.key(seed)).params["dense"] for seed in range(3)]
    answers = [(inverted @ np.asarray(each)).argmax(axis=1) for each in kernels]
    correct = [int((each == split.labels).sum()) for each in answers]
    assert len(set(correct)) > 1
    return correct


@pytest.mark.parametrize("is_small", [False, True])
@pytest.mark.usefixtures("_inverted")
def test_in_memory(split, runs, correct, is_small):
    classifier = Classifier(_init, None, _logits, None, is_small=is_small)
    images = EvaluationSet(classifier, split, "test")
    expected = [[float(np.float32(count / IMAGES))] for count in correct]
    assert evaluator.run("inverted", images, runs) == expected
    [path] = runs[1].folder.glob("inverted-*.jsonl")
    header, _, line = files.read_json_lines(path)
    assert (header["attack"], header["conditions"]) == ("inverted", {})
    assert (line["point"], [line["value"]]) == ("inverted", expected[1])


@pytest.mark.parametrize("is_small", [False, True])
@pytest.mark.usefixtures("_inverted")
def test_streamed(split, runs, correct, is_small, monkeypatch):
    monkeypatch.setattr(EvaluationSet, "chunk_size", 8)
    classifier = Classifier(_init, None, _logits, None, is_small=is_small)
    images = EvaluationSet(classifier, InMemory(split), "test")
    values = evaluator.run("inverted", images, runs)
    assert values == [[count / IMAGES] for count in correct]
    for run, count in zip(runs, correct, strict=True):
        [path] = run.folder.glob("inverted-*.jsonl")
        _, _, *lines = files.read_json_lines(path)
        assert [line["images"] for line in lines] == [[0, 8], [8, 16], [16, 23]]
        assert sum(line["counts"] for line in lines) == count
