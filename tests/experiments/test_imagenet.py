"""ImageNet end to end: from JPEG files to the table, by a narrow network."""

import functools

import fake_tfds
import pytest
import upstream
from tiny_network import changed_architecture

from experiments import cli
from experiments.jobs import files
from experiments.models import resnet
from experiments.models.resnet import ImageNetResNet18


def _prepared(folder):
    fake_tfds.write_prepared(folder / "tfds", "imagenet2012")
    return ["--data-dir", str(folder / "tfds")]


def _archives(folder):
    pytest.importorskip("tensorflow", reason="preparing a set needs tensorflow-cpu")
    upstream.write_imagenet(folder / "manual")
    return [
        "--data-dir", str(folder / "tfds"), "--manual-dir", str(folder / "manual"),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("data", [_prepared, _archives])
@changed_architecture(
    "resnet18_224", create=functools.partial(ImageNetResNet18, divisor=8)
)
def test_from_files_to_the_table(data, tmp_path, capsys, monkeypatch):
    """Two steps of training, and two images under four frequencies."""
    # Two of four stages, which have all kinds of layers.
    monkeypatch.setattr(resnet, "_STAGES", resnet._STAGES[:2])
    command = [
        "table1", "--dataset=imagenet2012", *data(tmp_path), "--workers=0",
        "--epochs=1", "--batch-size=2", "--learning-rate=1e-3", "--train-examples=4",
        "--test-examples=2", "--methods=absum", "--strengths=0.1",
        "--frequency-stride=16", "--runs-dir", str(tmp_path / "runs"),
        "--results-dir", str(tmp_path / "results"),
    ]  # fmt: skip
    assert cli.main(command) == 0
    told = files.read_json(tmp_path / "results/scaled/table1/imagenet2012.json")
    [model] = told["models"]
    assert model["method"] == "absum"
    # Two images, and labels that nobody learns in two steps.
    assert {model["clean"], model["top5"]["clean"]} <= {0.0, 0.5, 1.0}
    assert model["lowest_train_loss"] > 1
    [metrics] = (tmp_path / "runs").rglob("metrics.jsonl")
    assert [line["epoch"] for line in files.read_json_lines(metrics)] == [1]
    said = capsys.readouterr().out
    assert "1 of 240 epochs, batches of 2, learning rate 0.001" in said
    assert "Top-1" in said
    assert "Top-5" in said

    # Nothing is trained or attacked again.
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json*")}
    assert cli.main(command) == 0
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json*")}
    assert after == before
