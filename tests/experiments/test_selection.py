"""Strengths that are tried with fewer seeds than the chosen one is trained with."""

import dataclasses
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from tiny_network import in_place_of_small_cnn

from experiments import cli
from experiments.config import NONE, Setting
from experiments.evaluate import EvaluateOptions
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS
from experiments.options import SweepOptions
from experiments.reporting import document
from experiments.reporting.selection import select, train_and_evaluate

LOW, HIGH = Setting("l1", 0.01), Setting("l1", 0.1)


class Model(NamedTuple):
    """A model with the score that chooses its strength."""

    run: SimpleNamespace
    selection_score: float
    is_degenerate: bool


@pytest.fixture
def model(make_config):
    def make(setting, seed, score, *, is_degenerate=False):
        run = SimpleNamespace(config=make_config(setting, seed))
        return Model(run, score, is_degenerate)

    return make


def _selected(models):
    selected, degenerate = select(models, METHODS)
    return list(selected), degenerate


def test_strengths_are_compared_on_the_seeds_that_all_have(model):
    models = [
        model(LOW, 0, 0.5),
        model(HIGH, 0, 0.6),
        # Seeds that the other strength has no models of decide nothing.
        model(HIGH, 1, 0.1),
        model(HIGH, 2, 0.2),
        # Nor do those of another method.
        model(NONE, 7, 0.3),
    ]
    assert _selected(models) == ([NONE, HIGH], [])
    selected, _ = select(models, METHODS)
    assert selected[HIGH] == models[1:4]
    # Of several common seeds the mean.
    assert _selected([*models, model(LOW, 1, 0.3)])[0] == [NONE, LOW]


def test_no_seed_in_common_is_an_error(model):
    models = [model(LOW, 0, 0.5), model(HIGH, 1, 0.6), model(NONE, 0, 0.1)]
    with pytest.raises(UsageError, match="strengths of l1 have no seed in common"):
        _selected(models)
    # Unless only one of them says something.
    models[0] = models[0]._replace(is_degenerate=True)
    assert _selected(models) == ([NONE, HIGH], models[:1])


@pytest.fixture
def workspace(make_config):
    """Remembers what it is asked to train."""
    asked = []

    def train(settings, seeds, adversary=None):
        asked.append((tuple(settings), tuple(seeds)))
        return [make_config(s, seed) for seed in seeds for s in settings]

    return SimpleNamespace(train=train, part=None, asked=asked)


def _tried(options, workspace, scores, silent=()):
    def evaluate(configs):
        return [
            Model(
                SimpleNamespace(config=c), scores[c.setting],
                (c.setting, c.seed) in silent,
            )
            for c in configs
        ]  # fmt: skip

    models = train_and_evaluate(options, workspace, evaluate)
    return [(m.run.config.setting, m.run.config.seed) for m in models]


OPTIONS = SweepOptions(
    methods=("none", "l1"), strengths=(0.01, 0.1), seeds=(2, 0, 1),
    selection_seeds=(0,),
)  # fmt: skip
SCORES = {NONE: 0.1, LOW: 0.5, HIGH: 0.6}


def test_the_chosen_strength_is_trained_with_all_seeds(workspace):
    found = _tried(OPTIONS, workspace, SCORES)
    assert workspace.asked == [((NONE, LOW, HIGH), (0,)), ((NONE, HIGH), (2, 1))]
    assert found == [
        (NONE, 2), (HIGH, 2), (NONE, 0), (LOW, 0), (HIGH, 0), (NONE, 1), (HIGH, 1),
    ]  # fmt: skip


def test_the_next_best_strength_follows_one_that_says_nothing(workspace):
    found = _tried(OPTIONS, workspace, SCORES, silent={(HIGH, 1)})
    assert workspace.asked[1:] == [((NONE, HIGH), (2, 1)), ((LOW,), (2, 1))]
    assert [seed for setting, seed in found if setting == LOW] == [2, 0, 1]
    assert len(found) == len(set(found)) == 9


def test_all_seeds_try_all_strengths_by_default_and_in_parts(workspace):
    whole = dataclasses.replace(OPTIONS, selection_seeds=None)
    assert len(_tried(whole, workspace, SCORES)) == 9
    assert workspace.asked == [((NONE, LOW, HIGH), (2, 0, 1))]
    workspace.part = "1/2"
    assert len(_tried(OPTIONS, workspace, SCORES)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection_seeds": (3,)}, r"must be among --seeds 2 0 1, got 3"),
        ({"selection_seeds": ()}, "--selection-seeds must name at least one"),
        ({"selection_seeds": (0, 0)}, "--selection-seeds names one twice"),
        ({"select_on": "paper"}, "does not go with --select-on paper"),
    ],
)
def test_seeds_that_cannot_choose_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(OPTIONS, **changes)


def test_evaluate_takes_every_strength_with_every_seed():
    with pytest.raises(UsageError, match="--selection-seeds is for tables and figures"):
        EvaluateOptions(SweepOptions(seeds=(0, 1), selection_seeds=(0,)))


def test_the_note_names_the_seeds():
    note = document.selection_note(OPTIONS, "Avg.")
    assert note == "strength selected by the best Avg. on the test images, with seeds 0"
    whole = dataclasses.replace(OPTIONS, selection_seeds=None)
    assert document.selection_note(whole, "Avg.") == note.removesuffix(", with seeds 0")


@pytest.mark.slow
@in_place_of_small_cnn()
def test_from_the_command_line(tmp_path, capsys):
    def run(command, *arguments):
        code = cli.main(
            [command, "--epochs=1", "--train-examples=640", "--test-examples=20",
             "--methods=l1", "--strengths", "1e-5", "1e-3", "--seeds", "0", "1", "2",
             "--selection-seeds=0", *arguments, f"--runs-dir={tmp_path}/runs",
             f"--results-dir={tmp_path}"]
        )  # fmt: skip
        assert code == 0
        return capsys.readouterr()

    said = run("table1", "--frequency-stride=7")
    assert said.err.count("training 2 models on mnist5k: compiling") == 2
    table = files.read_json(tmp_path / "scaled/table1/mnist5k.json")
    [row] = table["rows"]
    own = [m["avg"] for m in table["models"] if m["strength"] == row["strength"]]
    assert (len(table["models"]), len(own)) == (4, 3)
    assert row["avg_mean"] == pytest.approx(np.mean(own))
    assert "images, with seeds 0" in table["selection"]
    said = run("table3", "--frequency-stride=7")
    assert "training" not in said.err
    [low] = files.read_json(tmp_path / "scaled/table3/mnist5k.json")["low_pass"]
    assert len(low) == 3
    said = run("table4", "--training=clean", "--test-steps=1")
    assert "training" not in said.err or "training 2 models" in said.err
    table = files.read_json(tmp_path / "scaled/table4-clean/mnist5k.json")
    assert [m["seed"] for m in table["models"]] == [0, 0, 1, 2]
