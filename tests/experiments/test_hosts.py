"""Several real processes that work together end as one by itself does.

They are two, with two devices each, connected by gloo. `hosts_program.py` is what they
run, once for most of what is tested here.
"""

import json

import jax
import numpy as np
import pytest
from hosts_work import (
    ATTACKED,
    CONFIGS,
    EPOCHS,
    evaluations,
    stopped_in_the_last_model,
    train,
    variables,
)
from processes import ROOT, end_well, start

from experiments import files

# Sums over devices are added in another order.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process trains, and a folder in which it was stopped."""
    folder = tmp_path_factory.mktemp("alone")
    whole = train(CONFIGS, folder / "whole")
    with stopped_in_the_last_model():
        train(CONFIGS, folder / "shared" / "one-then-two")
    return whole, train(ATTACKED, folder / "whole"), folder / "shared"


@pytest.fixture(scope="module")
def told(alone):
    """What each of the two processes tells."""
    folder = alone[-1]
    program = str(ROOT / "tests" / "experiments" / "hosts_program.py")
    end_well(start([program, "--folder", str(folder)]))
    return [json.loads((folder / f"told-{i}.json").read_text()) for i in range(2)]


def _assert_same(runs, others):
    for run, other in zip(runs, others, strict=True):
        assert [line["epoch"] for line in run.metrics()] == list(range(1, EPOCHS + 1))
        for one, two in zip(run.metrics(), other.metrics(), strict=True):
            assert one == pytest.approx(two, abs=TOLERANCE)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE, rtol=0),
            variables(run),
            variables(other),
        )


def test_what_they_agree_on(told):
    first, second = told
    assert first["devices"] == second["devices"] == 4
    assert first["agreed"] == second["agreed"] == {"from": 0, "text": "-" * 3000}
    assert [one["everywhere"] for one in told] == [0, 1]
    for one in told:
        assert one["agreed_error"] == "UsageError: no"
        assert one["everywhere_error"] == "UsageError: process 1: out of luck"
        assert one["system_error"] == "OSError: process 1: out of luck"
        # Written by the first, and read by it for both.
        assert one["read"] == 0


def test_two_go_on_from_one(alone, told):
    whole, _, folder = alone
    runs = train(CONFIGS, folder / "one-then-two")
    _assert_same(runs, whole)
    assert {run.folder.joinpath("provenance.json").exists() for run in runs} == {True}
    processes = [
        files.read_json(run.folder / "provenance.json")["processes"] for run in runs
    ]
    # The last model was trained to its end by two.
    assert processes == [1, 1, 2]


def test_one_goes_on_from_two(alone, told):
    whole, _, folder = alone
    _assert_same(train(CONFIGS, folder / "two-then-one"), whole)


def test_adversarial_training(alone, told):
    _, attacked, folder = alone
    _assert_same(train(ATTACKED, folder / "attacked"), attacked)


def test_evaluations_are_those_of_one(alone, told):
    whole, _, _ = alone
    expected = evaluations(whole)
    assert told[0]["evaluations"] == told[1]["evaluations"]
    assert told[0]["evaluations"].keys() == expected.keys()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        told[0]["evaluations"],
        expected,
    )
