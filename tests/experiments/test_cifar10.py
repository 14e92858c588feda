"""Real CIFAR-10 end to end: a few hundred images, one epoch of ResNet-18."""

import numpy as np
import pytest

from experiments import cli
from experiments.jobs import files

pytestmark = pytest.mark.slow


def test_table1_of_real_images(prepared_cifar10, tmp_path, capsys):
    arguments = [
        "table1", "--dataset=cifar10", f"--data-dir={prepared_cifar10}", "--epochs=1",
        "--train-examples=128", "--test-examples=20", "--frequency-stride=16",
        "--methods=absum", "--select-on=paper", f"--runs-dir={tmp_path}/runs",
        f"--results-dir={tmp_path}/results", f"--cache-dir={tmp_path}/cache",
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    said = capsys.readouterr()
    assert "Table 1, CIFAR-10 (ResNet-18) (scaled down: 1 of 350 epochs" in said.out
    assert "eps = 10/255, on 20 test images" in said.out
    assert "over 4 frequencies" in said.out

    [run] = (tmp_path / "runs/cifar10/resnet18/absum/0.1").iterdir()
    recipe = files.read_json(run / "config.json")["recipe"]
    assert recipe["augmented"] is True
    assert recipe["milestones"] == [1, 1]
    [metrics] = files.read_json_lines(run / "metrics.jsonl")
    # Ten classes, a step from initialisation: near ln 10 = 2.30.
    assert 1.5 < metrics["train_loss"] < 6
    layers = files.read_json_lines(run / "diagnostics.jsonl")[0]["zero_share"]
    assert len(layers) == 20
    # A threshold of 0.1 * 0.1 is above most sums of nine coefficients.
    assert np.mean(list(layers.values())) > 0.5
    # Running statistics are kept with the parameters, and used.
    document = files.read_json(tmp_path / "results/scaled/table1/cifar10-paper.json")
    [model] = document["models"]
    assert document["eps"] == pytest.approx(10 / 255)
    assert all(0 <= model[name] <= 1 for name in ("avg", "min", "max", "clean"))
    assert model["worst"][0] in (0, 16)
    assert model["worst"][1] in (0, 16)

    assert cli.main(arguments) == 0
    again = capsys.readouterr()
    assert "1 of 1 models are trained already" in again.out
    assert again.err == ""
