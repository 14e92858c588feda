"""Several real processes that work together end as one by itself does.

They are two, with two devices each, connected by gloo. `hosts_program.py` is what they
run, once for most of what is tested here.
"""

import dataclasses

import jax
import numpy as np
import pytest
from fake_tfds import write_prepared
from hosts_work import (
    ATTACKED,
    CONFIGS,
    LARGE,
    OF_PICTURES,
    evaluations,
    evaluations_on_pictures,
    stopped_among_pictures,
    stopped_in_the_last_model,
    train,
    train_on_pictures,
)
from processes import ROOT, end_well, start

from experiments.jobs import files
from experiments.training.runs import Run

pytestmark = pytest.mark.slow

# On other devices sums over a batch are added in another order, and training amplifies
# the difference: up to 9e-5 without YNNPACK's fusions, and 9e-7 with them.
TOLERANCE = 2e-4


@dataclasses.dataclass
class Alone:
    """What one process trains."""

    models: list[Run]
    attacked: list[Run]
    on_pictures: list[Run]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("tfds"), "imagenet2012")


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return Alone(
        train(CONFIGS, folder),
        train(ATTACKED, folder),
        train_on_pictures(prepared, folder),
    )


@pytest.fixture(scope="module")
def shared(prepared, tmp_path_factory):
    """The folder in which one process was stopped, and then two worked."""
    folder = tmp_path_factory.mktemp("shared")
    with stopped_in_the_last_model():
        train(CONFIGS, folder / "one-then-two")
    with stopped_among_pictures():
        train_on_pictures(prepared, folder / "one-then-two")
    program = str(ROOT / "tests" / "experiments" / "hosts_program.py")
    end_well(start([program, "--folder", str(folder), "--prepared", str(prepared)]))
    return folder


@pytest.fixture(scope="module")
def told(shared):
    """What each of the two processes tells."""
    return [files.read_json(shared / f"told-{i}.json") for i in range(2)]


def _assert_same(runs, others, classifier=LARGE):
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    for run, other in zip(runs, others, strict=True):
        epochs = run.config.recipe.epochs
        assert [line["epoch"] for line in run.metrics()] == list(range(1, epochs + 1))
        for one, two in zip(run.metrics(), other.metrics(), strict=True):
            assert one == pytest.approx(two, abs=TOLERANCE)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE, rtol=0),
            run.variables(shapes),
            other.variables(shapes),
        )


def test_what_they_agree_on(told):
    first, second = told
    assert first["devices"] == second["devices"] == 4
    assert first["broadcast"] == second["broadcast"] == {"from": 0, "text": "-" * 3000}
    assert [one["on_all"] for one in told] == [0, 1]
    for one in told:
        assert one["broadcast_error"] == "UsageError: no"
        assert one["on_all_error"] == "UsageError: process 1: out of luck"
        assert one["system_error"] == "OSError: process 1: out of luck"
        assert one["alike"] == "none"
        assert one["unlike"] == (
            "UsageError: process 1: epochs is 5, but 4 in process 0."
        )
        # Written by the first, and read by it for both.
        assert one["read"] == 0


def test_two_go_on_from_one(alone, shared):
    runs = train(CONFIGS, shared / "one-then-two")
    _assert_same(runs, alone.models)
    processes = [
        files.read_json(run.folder / "provenance.json")["processes"] for run in runs
    ]
    # The last model was trained to its end by two.
    assert processes == [1, 2]


def test_one_goes_on_from_two(alone, shared):
    _assert_same(train(CONFIGS, shared / "two-then-one"), alone.models)


def test_adversarial_training(alone, shared):
    _assert_same(train(ATTACKED, shared / "attacked"), alone.attacked)


@pytest.mark.parametrize("folder", ["one-then-two", "two-then-one"])
def test_pictures_go_on_within_an_epoch(alone, shared, prepared, folder):
    runs = train_on_pictures(prepared, shared / folder)
    _assert_same(runs, alone.on_pictures, OF_PICTURES)


def _assert_close(told, name, expected):
    assert told[0][name] == told[1][name]
    assert told[0][name].keys() == expected.keys()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        told[0][name],
        expected,
    )


def test_evaluations_are_those_of_one(alone, told):
    _assert_close(told, "evaluations", evaluations(alone.models))


def test_evaluations_on_pictures_are_those_of_one(alone, told, prepared):
    expected = evaluations_on_pictures(prepared, alone.on_pictures)
    _assert_close(told, "evaluations_on_pictures", expected)
