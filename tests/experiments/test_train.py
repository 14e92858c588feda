"""The command that trains."""

import pytest

from experiments import adversaries, cli, files
from experiments.errors import UsageError
from experiments.train import TrainOptions
from experiments.training.config import NONE, Setting

SMALL = ("--dataset=mnist5k", "--train-examples=128", "--epochs=2")


def _rows(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_train_tells_what_came_out_and_where_it_is(tmp_path, capsys):
    # Weight decay of 1e12 multiplies a kernel by 1e10 a step.
    command = ["train", *SMALL, "--methods", "none", "weight_decay",
               "--strengths", "1e12", "--runs-dir", str(tmp_path)]  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "training 2 models on mnist5k" in said.err
    good, diverged = _rows(said.out)
    assert (good["method"], good["seed"], good["epochs"]) == (
        "no regularization",
        "0",
        "2",
    )
    assert 0 < float(good["clean accuracy (%)"]) < 100
    folder = tmp_path / "mnist5k" / "small_cnn" / "none" / "0"
    [run] = folder.iterdir()
    assert good["folder"] == str(run)
    last = files.read_json_lines(run / "metrics.jsonl")[-1]
    assert float(good["training loss"]) == pytest.approx(last["train_loss"], rel=1e-3)
    assert diverged["lambda / sigma"] == "1e+12"
    assert diverged["training loss"].startswith("diverged at step ")

    assert cli.main(command) == 0
    again = capsys.readouterr()
    assert "2 of 2 models are trained already" in again.out
    assert _rows(again.out) == [good, diverged]


def test_one_model_is_the_default_and_strengths_are_the_papers():
    assert TrainOptions().settings == (NONE,)
    methods = ("absum", "snc")
    options = TrainOptions(dataset="cifar10", methods=methods)
    assert options.settings == (Setting("absum", 0.1), Setting("snc", 0.5))
    given = TrainOptions(methods=methods, strengths=(1.0, 2.0), max_norms=(3.0,))
    assert given.settings == (
        Setting("absum", 1.0),
        Setting("absum", 2.0),
        Setting("snc", 3.0),
    )
    attacked = TrainOptions(dataset="cifar10", methods=("absum",), training="pgd")
    theirs = adversaries.published_strengths("cifar10")["absum"]
    assert attacked.settings == (Setting("absum", theirs),)


def test_a_strength_that_the_paper_lacks_is_asked_for(monkeypatch):
    monkeypatch.setattr("experiments.options.TABLE1", {})
    for method, option in (("l1", "--strengths"), ("snc", "--max-norms")):
        with pytest.raises(
            UsageError, match=f"no {method} of small_cnn on mnist5k: give {option}"
        ):
            _ = TrainOptions(methods=(method,)).settings
