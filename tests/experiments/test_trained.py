"""Trained models as notebooks load them."""

import dataclasses
import doctest
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import absum_jax
import experiments
from experiments import trained
from experiments.config import Setting
from experiments.data import DataOptions, Dataset
from experiments.evaluation import clean, single_fourier
from experiments.evaluation.attack import on_stacked_models
from experiments.jobs.errors import UsageError
from experiments.models import build
from experiments.training import runs as runs_module
from experiments.training import weights
from experiments.training.runs import Run

ROOT = pathlib.Path(__file__).parents[2]
WEIGHTS = ROOT / "results" / "weights" / "mnist" / "absum-0.01.safetensors"
_compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: (
        _compiled.append(event)
        if event == "/jax/core/compile/backend_compile_duration"
        else None
    )
)


@pytest.fixture
def data(noise):
    """The noise of conftest as a data set, whose test images are the first twelve."""
    return Dataset("noise", noise, noise.take(np.arange(12)), 10, (0.13,), (0.31,))


@pytest.fixture
def evaluated(images, runs):
    """The runs of conftest, with evaluations and the metrics of an epoch."""
    clean.evaluate(images, runs)
    single_fourier.evaluate(images, runs, 0.1, stride=14)
    return runs


@on_stacked_models
def _logits(logits_fn, x, y, *, batch):
    return logits_fn(x)


def test_logits_are_those_that_attacks_evaluate(images, runs, data):
    x, y = images.arrays()
    stacked = images.variables(runs)
    expected = _logits(images.classifier, stacked, x, y, batch=12)
    for run, logits in zip(runs, expected, strict=True):
        model = trained.load_model(run.folder, data=data)
        found = jax.jit(model.logits_fn)(model.test_images()[0])
        np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1


def test_accuracy_is_that_of_the_record(evaluated, data):
    for run in evaluated:
        model = trained.load_model(run, data=data)
        x, y = model.test_images()
        [row] = [row for row in model.evaluations() if row["attack"] == "clean"]
        assert row == {
            "attack": "clean", "split": "test", "examples": 12, "point": "clean",
            "accuracy": float(absum_jax.accuracy(model.logits_fn, x, y)),
            "classes_predicted": len(np.unique(model.logits_fn(x).argmax(-1))),
            "nan_logits": 0.0,
        }  # fmt: skip
        attacked = absum_jax.single_fourier_accuracy(
            model.logits_fn, x, y, 0.1, frequencies=[(14, 0), (14, 14)]
        )
        [row] = [row for row in model.evaluations() if row["point"] == 14]
        assert row["value"] == attacked.accuracy.tolist()
        assert (row["eps"], row["scale"], row["stride"]) == (0.1, "linf", 14)


def test_another_model_of_the_network_compiles_nothing(runs, data):
    first, second = (trained.load_model(run, data=data) for run in runs)
    x, y = first.test_images()
    accuracy = float(absum_jax.accuracy(first.logits_fn, x, y))
    assert _compiled
    _compiled.clear()
    assert float(absum_jax.accuracy(second.logits_fn, x, y)) != accuracy
    assert _compiled == []


def test_weights_are_those_of_the_run(evaluated, data, tmp_path):
    network = trained.load_model(evaluated[0], data=data).classifier
    abstract = jax.eval_shape(network.init, jax.random.key(0))
    stored = [
        weights.Model(run.config.seed, str(run.config.path), run.parameters_digest,
                      run.variables(abstract))
        for run in evaluated
    ]  # fmt: skip
    path = weights.write(tmp_path / "weights" / "noise" / "a.safetensors", stored)
    for run in evaluated:
        of_run = trained.load_model(run, data=data)
        of_weights = trained.load_model(
            path, seed=run.config.seed, runs_dir=tmp_path, data=data
        )
        assert of_weights.config == run.config
        jax.tree.map(
            np.testing.assert_array_equal, of_weights.variables, of_run.variables
        )
        assert of_weights.evaluations() == of_run.evaluations()
    # The folder beside that of weights.
    shutil.copytree(tmp_path / "noise", tmp_path / "records" / "noise")
    assert trained.load_model(path, seed=1, data=data).config.seed == 1
    with pytest.raises(UsageError, match=r"`seed` must be one of \[0, 1\] in .*None"):
        trained.load_model(path, data=data)
    with pytest.raises(UsageError, match=r"`seed` must be one of \[0, 1\] in .* got 2"):
        trained.load_model(path, seed=2, data=data)
    with pytest.raises(UsageError, match=r"lacks the records of .*: give `runs_dir`"):
        trained.load_model(path, seed=0, runs_dir=tmp_path / "else", data=data)
    alone = weights.write(path.with_name("b.safetensors"), [stored[1]])
    assert trained.load_model(alone, data=data).config.seed == 1
    exchanged = stored[0]._replace(seed=1, run=stored[1].run)
    wrong = weights.write(path.with_name("c.safetensors"), [exchanged])
    with pytest.raises(UsageError, match=r"c\.safetensors has other parameters than"):
        trained.load_model(wrong, data=data)


def test_runs_are_found(runs, make_config, tmp_path):
    begun = Run(tmp_path, make_config(Setting("absum", 0.5)))
    begun.begin(0)
    other = Run(tmp_path, make_config(seed=1))
    other.begin(0)
    network = build("small_cnn", (0.13,), (0.31,))
    other.finish(network.init(jax.random.key(1)), {})

    def found(**which):
        return [run.folder for run in trained.find_runs(tmp_path, **which)]

    a, b, c = runs[0].folder, runs[1].folder, other.folder
    assert found() == [a, b, c]
    assert found(method="absum") == found(strength=0.1) == [a, b]
    assert found(seeds=[1]) == [b, c]
    assert found(dataset="noise", network="small_cnn", method="none", seeds=(1, 2)) == [
        c
    ]
    assert found(dataset="nois*") == found(seeds=()) == found(strength=0.5) == []
    assert trained.find_runs(tmp_path / "nowhere") == []


def test_damage_is_refused(evaluated, data, make_config, monkeypatch, tmp_path):
    run, other = evaluated
    monkeypatch.setattr(runs_module, "_CHECKED", {})
    model = trained.load_model(other, data=data)
    [path] = other.folder.glob("clean-*")
    path.write_text(path.read_text().replace('"accuracy": ', '"accuracy": 1'))
    with pytest.raises(UsageError, match=r"clean-.* is damaged: lines are damaged"):
        model.evaluations()
    with (run.folder / "metrics.jsonl").open("a") as stream:
        stream.write("{}\n")
    for call in (
        lambda: trained.load_model(run.folder, data=data),
        lambda: trained.find_runs(tmp_path, seeds=[0]),
    ):
        with pytest.raises(UsageError, match="is not as training left it: the run is"):
            call()
    shutil.copytree(other.folder, tmp_path / "noise/small_cnn/none/0/seed-1-copy")
    with pytest.raises(UsageError, match="a damaged file, or a copy of a folder"):
        trained.find_runs(tmp_path, method="none")
    begun = Run(tmp_path, make_config(seed=7))
    begun.begin(0)
    for folder in (begun.folder, tmp_path, pathlib.Path("/")):
        with pytest.raises(UsageError, match="is not the folder of a finished run"):
            trained.load_model(folder, data=data)


def test_wrong_arguments(runs, data, noise, tmp_path):
    with pytest.raises(UsageError, match="`seed` is for files of weights, got 0"):
        trained.load_model(runs[0], seed=0, data=data)
    with pytest.raises(UsageError, match="`runs_dir` is for files of weights"):
        trained.load_model(runs[0].folder, runs_dir=tmp_path, data=data)
    with pytest.raises(UsageError, match="unknown data set 'noise'"):
        trained.load_model(runs[0], data=DataOptions())
    fewer = Dataset("noise", noise.take(np.arange(96)[::-1]), noise, 10, (0.0,), (1.0,))
    with pytest.raises(UsageError, match="was trained on other images"):
        trained.load_model(runs[0], data=fewer)
    with pytest.raises(UsageError, match=r"`data` must be such as .* got 'folder'"):
        trained.load_model(runs[0], data="folder")
    for seeds in (0, "01"):
        with pytest.raises(UsageError, match=r"`seeds` must be several, .* got ['0]"):
            trained.find_runs(tmp_path, seeds=seeds)
    own = Run(tmp_path, dataclasses.replace(runs[0].config, model="own"))
    with pytest.raises(UsageError, match="there is no network 'own'; `register` it"):
        trained.load_model(own, data=data)
    model = trained.load_model(runs[0], data=data)
    with pytest.raises(UsageError, match=r"`examples` must lie in 1\.\.12"):
        model.test_images(13)
    assert len(model.test_images(5)[0]) == 5


def test_rows_are_those_of_a_table(evaluated, data):
    rows = trained.load_model(evaluated[0], data=data).evaluations()
    columns = ("attack", "split", "examples", "point")
    assert [[row[name] for name in columns] for row in rows] == [
        ["clean", "test", 12, "clean"],
        ["single-fourier", "test", 12, 0],
        ["single-fourier", "test", 12, 14],
    ]
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(rows).set_index("attack")
    assert frame.accuracy["clean"] == rows[0]["accuracy"]


def test_a_committed_model():
    model = experiments.load_model(WEIGHTS, seed=12)
    x = np.random.default_rng(0).random((4, 28, 28, 1), np.float32)
    assert np.isfinite(model.logits_fn(x)).all()
    assert repr(model) == (
        "TrainedModel(mnist/small_cnn/absum/0.01/seed-12-ed87a6d0, 21,840 parameters)"
    )
    assert [row["epoch"] for row in model.metrics()] == [*range(1, 101)]
    record = model.run.folder
    with pytest.raises(UsageError, match="is a record, without parameters"):
        experiments.load_model(record)
    with pytest.raises(UsageError, match="records have no images"):
        model.test_images()


@pytest.mark.slow
def test_a_committed_model_on_real_images(prepared_tfds):
    options = DataOptions(data_dir=prepared_tfds)
    model = experiments.load_model(WEIGHTS, seed=11, data=options)
    clean = [row for row in model.evaluations() if row["attack"] == "clean"]
    [row] = [row for row in clean if row["examples"] == 10000]
    found = absum_jax.accuracy(model.logits_fn, *model.test_images())
    assert found == pytest.approx(row["accuracy"], abs=1e-4)


def test_importing_is_light():
    code = (
        "import sys, experiments; assert not {'jax', 'numpy'} & {*sys.modules}; "
        "assert experiments.find_runs('nowhere') == []; assert 'jax' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = experiments.nothing


def test_examples(monkeypatch):
    monkeypatch.chdir(ROOT)
    failed, attempted = doctest.testmod(trained)
    assert (failed, attempted > 5) == (0, True)
