"""The measurements for an accelerator resume, and need no package it may lack."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import accelerator
from experiments.data import DATASETS, load
from experiments.jobs.errors import UsageError

_ABSENT = "tyro", "tensorflow_datasets", "grain", "array_record", "mlxtend"


@pytest.mark.slow
def test_it_is_imported_without_packages_that_may_be_missing():
    hidden = "".join(f"sys.modules[{name!r}] = None\n" for name in _ABSENT)
    code = f"import sys\n{hidden}from benchmarks import accelerator\n"
    code += "print(accelerator.evaluate.EvaluateOptions().sweep.models.dataset)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "mnist5k\n", done.stderr


def test_what_is_measured_is_not_measured_again(tmp_path, monkeypatch):
    called = []

    def measures():
        called.append("measures")
        return [{"benchmark": "b", "case": "c", "ms": 1.5}]

    def fails():
        called.append("fails")
        raise RuntimeError("no such device")

    monkeypatch.setattr(
        accelerator, "SPEEDS", {"first": fails, "second": measures}
    )  # a failure does not keep the others from running
    folders = [f"--runs-dir={tmp_path}", f"--results-dir={tmp_path}/results"]
    for _ in range(2):
        assert accelerator.main(folders) == 1
    assert called == ["fails", "measures", "fails"]
    [path] = (tmp_path / "results" / "speed").iterdir()
    written = json.loads(path.read_text())
    assert path.name == "second.json"
    assert written["rows"] == [{"benchmark": "b", "case": "c", "ms": 1.5}]
    assert written["provenance"]["packages"]["jax"]


def _arrays(path, train=50_000, test=10_000):
    parts = {"train": train, "test": test}
    images = {
        f"x_{part}": np.zeros((n, 32, 32, 3), np.uint8) for part, n in parts.items()
    }
    images["x_train"][1, 2, 3] = 4, 5, 6
    labels = {f"y_{part}": np.arange(n) % 10 for part, n in parts.items()}
    np.savez(path, **images, **labels)
    return images


def test_cifar10_comes_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "cifar10", DATASETS["cifar10"])
    images = _arrays(tmp_path / "all.npz")
    accelerator.use_cifar10(tmp_path / "all.npz")
    loaded = load("cifar10")
    np.testing.assert_array_equal(loaded.train.images, images["x_train"])
    np.testing.assert_array_equal(loaded.test.images, images["x_test"])


def test_a_part_of_cifar10_is_refused(tmp_path):
    _arrays(tmp_path / "part.npz", train=100, test=10)
    with pytest.raises(UsageError, match=r"part.npz is damaged: .* give a file of"):
        accelerator.use_cifar10(tmp_path / "part.npz")
