"""The command that trains."""

import dataclasses
import sys
import types
from typing import ClassVar

import pytest
from markdown_tables import cells
from stopping import stopped

from experiments import cli
from experiments.config import NONE, Setting
from experiments.evaluation.clean import Clean
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.options import ComputeOptions, ModelOptions
from experiments.published import TABLE4
from experiments.train import TrainOptions, table
from experiments.training import sweep
from experiments.training.runs import Run

pytestmark = pytest.mark.usefixtures("tiny_network")

SMALL = ("--dataset=mnist5k", "--train-examples=128", "--epochs=2")


def _rows(text):
    header, _, *rows = cells(text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


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
    assert files.read_json(run / "config.json")["max_pool_ties"] == "first"
    last = files.read_json_lines(run / "metrics.jsonl")[-1]
    assert float(good["training loss"]) == pytest.approx(last["train_loss"], rel=1e-3)
    assert diverged["lambda / sigma"] == "1e+12"
    assert diverged["training loss"].startswith("diverged at step ")

    assert cli.main(command) == 0
    again = capsys.readouterr()
    assert "2 of 2 models are trained already" in again.out
    assert _rows(again.out) == [good, diverged]


def test_the_table_tells_top_1_from_top_5(runs):
    for run in runs:
        run.log(1, 2.5, 0.1)
    for top5, column in (
        (None, "clean accuracy (%)"),
        (0.5, "clean Top-1 accuracy (%)"),
    ):
        answers = [Clean(0.25, 10, 0.0, top5)] * len(runs)
        for row in _rows("\n".join(table(runs, answers))):
            assert row[column] == "25.00"


def test_one_model_is_the_default_and_strengths_are_the_papers():
    assert TrainOptions().settings == (NONE,)
    methods = ("absum", "snc")
    options = TrainOptions(ModelOptions("cifar10"), methods=methods)
    assert options.settings == (Setting("absum", 0.1), Setting("snc", 0.5))
    given = TrainOptions(methods=methods, strengths=(1.0, 2.0), max_norms=(3.0,))
    assert given.settings == (
        Setting("absum", 1.0),
        Setting("absum", 2.0),
        Setting("snc", 3.0),
    )
    attacked = TrainOptions(ModelOptions("cifar10"), methods=("absum",), training="pgd")
    # P, Table 4.
    assert attacked.settings == (Setting("absum", 1e-5),)
    assert attacked.models.published_strengths(TABLE4)["snc"] == 10
    googlenet = ModelOptions("cifar10", network="googlenet")
    assert googlenet.published_strengths(TABLE4) == {}
    other = dataclasses.replace(attacked, models=googlenet)
    with pytest.raises(UsageError, match="no absum of googlenet"):
        _ = other.settings


def test_a_strength_that_the_paper_lacks_is_asked_for(monkeypatch):
    monkeypatch.setattr("experiments.train.TABLE1", {})
    for method, option in (("l1", "--strengths"), ("snc", "--max-norms")):
        with pytest.raises(
            UsageError, match=f"no {method} of small_cnn on mnist5k: give {option}"
        ):
            _ = TrainOptions(methods=(method,)).settings


class _FakeWriter:
    """Keeps what is written to each folder, as TensorBoard would show it."""

    shown: ClassVar[dict[str, dict[tuple[str, int], float]]] = {}
    opened = 0

    def __init__(self, logdir, purge_step):
        _FakeWriter.opened += 1
        points = self.shown.get(logdir, {})
        kept = {key: value for key, value in points.items() if key[1] < purge_step}
        self.points = self.shown[logdir] = kept
        self.pending = {}

    def add_scalar(self, name, value, step):
        assert (name, step) not in self.points
        self.pending[name, step] = value

    def flush(self):
        self.points.update(self.pending)

    def close(self):
        _FakeWriter.opened -= 1


@pytest.fixture
def tensorboard(monkeypatch):
    monkeypatch.setattr(_FakeWriter, "shown", {})
    module = types.SimpleNamespace(SummaryWriter=_FakeWriter)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    return _FakeWriter


def test_tensorboard_shows_the_metrics(
    tensorboard, classifier, noise, make_config, tmp_path
):
    configs = [make_config(NONE), make_config(Setting("absum", 0.1))]

    def train():
        return sweep.train_missing(
            classifier, noise, configs, tmp_path, tensorboard=True,
            seconds_between_checkpoints=0,
        )  # fmt: skip

    with stopped(2):
        train()
    assert tensorboard.opened == 0
    runs = train()
    assert tensorboard.opened == 0
    for run in runs:
        shown = tensorboard.shown[str(run.folder / "tensorboard")]
        assert shown == {
            (name, line["epoch"]): pytest.approx(line[name])
            for line in run.metrics()
            for name in ("train_loss", "train_accuracy")
        }
        assert len(shown) == 6


def test_tensorboard_leaves_out_what_is_not_finite(tensorboard, make_config, tmp_path):
    run = Run(tmp_path, make_config(NONE))
    run.begin(0, tensorboard=True)
    run.log(1, 2.0, 0.1)
    run.log(2, float("nan"), 0.2, diverged_at=4)
    run.close()
    [shown] = tensorboard.shown.values()
    assert shown == {
        ("train_loss", 1): 2.0,
        ("train_accuracy", 1): 0.1,
        ("train_accuracy", 2): 0.2,
    }


def test_tensorboard_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match="--tensorboard needs tensorboardX"):
        ComputeOptions(tensorboard=True)
