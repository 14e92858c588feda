"""Records: what commands need of finished models, without parameters or images."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from experiments import cli, load_model, record
from experiments.claims import measurements
from experiments.claims.statements import QUANTITIES
from experiments.config import RunConfig
from experiments.data import loading
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.models import build
from experiments.options import ModelOptions, SweepOptions
from experiments.reproduce import plan
from experiments.training import runs as runs_module
from experiments.training import weights
from experiments.training.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_network")]

OPTIONS = [
    "--epochs=1", "--train-examples=128", "--test-examples=20",
    "--methods", "none", "absum", "--frequency-stride=14", "--select-on=paper",
    "--seeds", "0", "1",
]  # fmt: skip
COMMANDS = ("table1", "table2", "table3", "figure7")


def _make(command, runs_dir, results_dir):
    return cli.main(
        [command, *OPTIONS, f"--runs-dir={runs_dir}", f"--results-dir={results_dir}"]
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two methods with two seeds, all evaluated, and the records of them."""
    folder = tmp_path_factory.mktemp("made")
    assert cli.main(["evaluate", *OPTIONS, f"--runs-dir={folder}/runs"]) == 0
    for command in COMMANDS:
        assert _make(command, folder / "runs", folder / "results") == 0
    assert _record(folder, folder / "runs") == 0
    return folder


@pytest.fixture
def records(made, tmp_path, monkeypatch):
    """A copy of the records, unknown to this process."""
    monkeypatch.setattr(runs_module, "_CHECKED", {})
    shutil.copytree(made / "records", tmp_path / "records")
    return tmp_path / "records"


def _record(folder, runs_dir, *options):
    return cli.main(
        ["record", f"--runs-dir={runs_dir}", f"--records-dir={folder}/records",
         *options]
    )  # fmt: skip


def test_tables_and_figures_from_records_alone(
    made, records, tmp_path, monkeypatch, capsys
):
    """The same files, without the data set, and without anything written there."""

    def no_data(*_):
        raise AssertionError("records need no images")

    monkeypatch.setattr(loading, "_cached", no_data)
    before = {p: p.read_bytes() for p in records.rglob("*") if p.is_file()}
    for path in records.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for command in COMMANDS:
        assert _make(command, records, tmp_path / "results") == 0
    assert capsys.readouterr().err == ""
    assert {p: p.read_bytes() for p in records.rglob("*") if p.is_file()} == before
    names = [p.relative_to(made / "results") for p in made.glob("results/**/*.*")]
    assert len(names) > 12
    for name in names:
        ours, theirs = (tmp_path / "results" / name, made / "results" / name)
        if name.suffix == ".json":
            ours, theirs = files.read_json(ours), files.read_json(theirs)
            for document in (ours, theirs):
                del document["provenance"]
            assert ours == theirs
        elif name.suffix in (".md", ".csv"):
            assert ours.read_text() == theirs.read_text()
        else:
            assert ours.exists()


def test_numbers_of_images_are_those_of_tables(made, records):
    """What claims are judged by, of models that were trained and evaluated."""
    options = SweepOptions(
        ModelOptions(epochs=1, train_examples=128, runs_dir=records),
        methods=("none", "absum"), seeds=(0, 1), test_examples=20, frequency_stride=14,
        select_on="paper",
    )  # fmt: skip
    sample = measurements.read(options, QUANTITIES)
    assert (sample.seeds, sample.lacking, sample.is_complete) == ((0, 1), {}, True)
    assert sample.pairs == [(0, 1)]
    assert len(sample.devices) == 1

    def table(name):
        [path] = made.glob(f"results/**/{name}/*.json")
        return files.read_json(path)

    def is_close(quantity, fractions):
        parts, whole = sample.measured[quantity]
        np.testing.assert_allclose(parts / whole, fractions, rtol=1e-6)

    # Of seeds and methods.
    of_model = {(m["seed"], m["method"]): m for m in table("table1")["models"]}
    ours = [[of_model[seed, m] for m in options.methods] for seed in options.seeds]
    for quantity, name in (("minimum", "min"), ("mean", "avg"), ("clean", "clean")):
        is_close(quantity, [[model[name] for model in row] for row in ours])
    # Four frequencies.
    assert sample.measured["mean"].whole == 4 * 20
    matrix = np.array(table("table2")["matrix"])
    is_close("transferred", [np.diagonal(matrix, axis1=1, axis2=2).mean(axis=0)])
    table3 = table("table3")
    at = table3["radii"].index(7.0)
    is_close("low-pass", np.array(table3["low_pass"])[:, :, at].T)
    is_close("high-pass", np.array(table3["high_pass"])[:, :, : at + 1].mean(axis=2).T)
    name = "share_of_power_beyond_a_quarter_of_the_width"
    is_close("high share", np.transpose([m[name] for m in table("figure7")["methods"]]))
    assert sample.measured["pgd"].whole == 6 * 20


def test_what_records_lack_is_neither_trained_nor_evaluated(records, tmp_path, capsys):
    def refused(command, *options):
        code = cli.main(
            [command, *OPTIONS, *options, f"--runs-dir={records}",
             f"--results-dir={tmp_path}"]
        )  # fmt: skip
        assert code == 2
        return capsys.readouterr().err

    said = refused("table1", "--seeds", "0", "5")
    assert "has records, and none of 2 of these models, such as mnist5k/" in said
    assert "seed-5" in said
    said = refused("table1", "--frequency-stride=7")
    assert "lacks lines that are needed, and records have no parameters" in said
    assert "no models or evaluations on 19 images, but on 20" in refused(
        "table1", "--test-examples=19"
    )
    assert "must lie in 1..1000" in refused("table1", "--test-examples=1001")
    assert "on 64 images, but on 128" in refused("table1", "--train-examples=64")
    assert "3,600 images" in refused("table1", "--select-on=validation", "--strengths",
                                     "0.01", "--train-examples=3600")  # fmt: skip


def test_damaged_records_are_refused(records, tmp_path, capsys):
    [path] = records.glob("mnist5k/small_cnn/none/0/seed-0-*/single-fourier-*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"point": 14', b'"point": 13'))
    assert _make("table1", records, tmp_path / "results") == 2
    assert f"{path} is damaged in line 4" in capsys.readouterr().err
    path.write_bytes(whole[:-5])
    assert _make("table1", records, tmp_path / "results") == 2
    assert f"{path} lacks lines" in capsys.readouterr().err
    path.write_bytes(whole)
    (path.parent / "metrics.jsonl").write_text("{}\n")
    runs_module._CHECKED.clear()  # files are checked once a process
    assert _make("table1", records, tmp_path / "results") == 2
    assert "metrics.jsonl is not as training left it" in capsys.readouterr().err
    (records / "mnist5k" / "data.json").write_text("{}")
    assert _make("table1", records, tmp_path / "results") == 2
    assert "data.json is damaged" in capsys.readouterr().err


def test_records_grow_and_are_small(made, tmp_path, capsys):
    first = tmp_path / "records"
    assert _record(tmp_path, made / "runs", "--seeds", "1") == 0
    assert "2 models are recorded" in capsys.readouterr().out
    assert _record(tmp_path, made / "runs") == 0
    ours = {
        p.relative_to(first): p.read_bytes() for p in first.rglob("*.*") if p.is_file()
    }
    theirs = {
        p.relative_to(made / "records"): p.read_bytes()
        for p in made.glob("records/**/*.*")
        if p.is_file()
    }
    assert ours == theirs
    assert not [path for path in first.rglob("checkpoint")]
    assert _record(tmp_path, made / "runs", "--seeds", "7") == 2
    assert "no finished models of these seeds" in capsys.readouterr().err


def test_a_run_with_fewer_points_does_not_replace_its_record(made, tmp_path, capsys):
    shutil.copytree(made / "runs", tmp_path / "runs")
    assert _record(tmp_path, tmp_path / "runs") == 0
    name = "mnist5k/small_cnn/absum/*/seed-1-*/single-fourier-*.jsonl"
    [path], [recorded] = tmp_path.glob(f"runs/{name}"), tmp_path.glob(f"records/{name}")
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    capsys.readouterr()
    assert _record(tmp_path, tmp_path / "runs") == 2
    said = capsys.readouterr().err
    assert (
        f"{recorded} has points that {path.parent} lacks, such as 14: restore" in said
    )
    assert recorded.read_text() == whole
    # A damaged record, or one of other parameters, keeps nothing that can be read.
    for damaged in (whole.replace("point", "pint"), whole.replace('rameters": "', "0")):
        recorded.write_text(damaged)
        assert _record(tmp_path, tmp_path / "runs") == 0
        assert recorded.read_text() == path.read_text()


def test_damaged_runs_are_not_recorded(made, tmp_path, capsys):
    shutil.copytree(made / "runs", tmp_path / "runs")
    [path] = tmp_path.glob("runs/mnist5k/small_cnn/none/0/seed-0-*/clean-*.jsonl")
    whole = path.read_text()
    path.write_text(whole.replace('"accuracy": ', '"accuracy": 1'))
    assert _record(tmp_path, tmp_path / "runs") == 2
    assert f"{path} is damaged" in capsys.readouterr().err
    path.unlink()
    path.mkdir()
    assert _record(tmp_path, tmp_path / "runs") == 2
    assert f"{path} is damaged: " in capsys.readouterr().err
    path.rmdir()
    path.write_text("[" * 100_000)
    assert _record(tmp_path, tmp_path / "runs") == 2
    assert f"{path} is damaged: " in capsys.readouterr().err
    [other] = path.parent.glob("single-fourier-*.jsonl")
    shutil.copy(other, path)
    assert _record(tmp_path, tmp_path / "runs") == 2
    said = capsys.readouterr().err
    assert f"{path} is damaged: it is that of another evaluation; give the" in said
    path.write_text(whole)
    config = path.parent / "config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    assert _record(tmp_path, tmp_path / "runs") == 2
    assert "config.json is that of mnist5k/small_cnn/none" in capsys.readouterr().err
    config.write_text("null")
    assert _record(tmp_path, tmp_path / "runs") == 2
    said = capsys.readouterr().err
    assert f"{config} is damaged: " in said
    assert f"; remove or move the folder {config.parent}" in said
    assert not (tmp_path / "records").exists()


def test_the_plan_measures_the_last_program_that_trained_on_clean_images(tmp_path):
    def trained(number, adversary, seconds):
        folder = tmp_path / f"mnist/small_cnn/absum/1/seed-{number}-0"
        config = {"model": "small_cnn", "recipe": {"adversary": adversary}}
        files.write_json(folder / "config.json", config)
        path = files.write_json(
            folder / "provenance.json",
            {
                "device": jax.devices()[0].device_kind, "steps_in_these_seconds": 2000,
                "seconds": seconds, "seeds_in_one_program": [1, 2],
                "settings_in_one_program": ["absum"],
            },
        )  # fmt: skip
        os.utime(path, (number, number))

    trained(1, None, 10.0)
    trained(2, None, 20.0)
    trained(0, None, 40.0)
    trained(3, {"eps": 0.3}, 400.0)
    assert plan.measured(tmp_path) == {"small_cnn": 2 * 2000 / 20.0}


def test_the_plan_counts_what_is_there(made, tmp_path):
    """What `reproduce` says is left to do, before and after some of it is lost."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    options = cli.parse("evaluate", [*OPTIONS, f"--runs-dir={tmp_path}/runs"])
    found = plan.Planner(tmp_path / "runs").estimate("evaluate", options)
    assert (found.models, found.to_train) == (4, 0)
    assert (found.evaluations, found.to_evaluate) == (28, 0)
    assert found.seconds == 0
    [path] = tmp_path.glob("runs/mnist5k/small_cnn/none/0/seed-0-*/low-pass-*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-10]))
    less = plan.Planner(tmp_path / "runs").estimate("evaluate", options)
    assert less.to_evaluate == 1
    assert less.seconds == pytest.approx(20 * 10 / 130_000)
    # What is measured here is of programs long enough; these have two steps.
    assert plan.measured(tmp_path / "runs") == {}
    [path] = tmp_path.glob("runs/mnist5k/small_cnn/none/0/seed-1-*/provenance.json")
    provenance = files.read_json(path)
    assert len(provenance["settings_in_one_program"]) == 2
    provenance |= {"steps_in_these_seconds": 5000, "seconds": 20.0}
    files.write_json(path, provenance)
    assert plan.measured(tmp_path / "runs") == {"small_cnn": 4 * 5000 / 20.0}
    for damaged in ({"seconds": 0}, {"seconds": "20"}, {"steps_in_these_seconds": []}):
        files.write_json(path, provenance | damaged)
        assert plan.measured(tmp_path / "runs") == {}


@pytest.fixture
def weights_dir(made, tmp_path, monkeypatch):
    """The parameters of the models, though their schedule is not the published one."""
    monkeypatch.setattr(record, "_is_published", lambda config, dataset: True)
    folder = tmp_path / "weights"
    assert _record(tmp_path, made / "runs", f"--weights-dir={folder}") == 0
    return folder


def _restore(records, weights_dir, runs_dir, *options):
    runs_module._CHECKED.clear()  # files are checked once a process
    return cli.main(
        ["restore", "--dataset=mnist5k", f"--records-dir={records}",
         f"--weights-dir={weights_dir}", f"--runs-dir={runs_dir}", *options]
    )  # fmt: skip


def test_restored_models_are_evaluated_anew(made, weights_dir, tmp_path, capsys):
    runs, results = tmp_path / "runs", tmp_path / "results"
    assert _restore(tmp_path / "records", weights_dir, runs, "--seeds", "0") == 0
    assert "2 models are restored" in capsys.readouterr().out
    assert _restore(tmp_path / "records", weights_dir, runs) == 0
    assert "2 models are restored in " in (said := capsys.readouterr().out)
    assert "2 were there already" in said
    assert not [*runs.rglob("checkpoint")]
    # What was evaluated is there, and what is not is evaluated with the parameters.
    for command in COMMANDS:
        assert _make(command, runs, results) == 0
    assert capsys.readouterr().err == ""
    evaluations = [*runs.rglob("seed-*/*-*.jsonl")]
    before = {path: path.read_bytes() for path in evaluations}
    for path in evaluations:
        if not path.name.startswith("single-fourier"):
            path.unlink()
    for command in ("table2", "table3"):
        assert _make(command, runs, results) == 0
    said = capsys.readouterr().err
    assert "transfer: 2 models" in said
    assert "training" not in said
    for path in runs.rglob("seed-*/*-*.jsonl"):
        assert path.read_bytes() == before[path]
    [ours] = results.glob("**/table2/*.csv")
    [theirs] = made.glob("results/**/table2/*.csv")
    assert ours.read_text() == theirs.read_text()
    # A program of one's own loads them, and new records have their evaluations.
    [folder] = runs.glob("mnist5k/small_cnn/absum/*/seed-1-*")
    model = load_model(folder)
    [whole] = made.glob("runs/mnist5k/small_cnn/absum/*/seed-1-*")
    jax.tree.map(
        np.testing.assert_array_equal, model.variables, load_model(whole).variables
    )
    assert _record(tmp_path / "again", runs) == 0
    assert [*(tmp_path / "again").rglob("transfer-*.jsonl")]
    assert not [*(tmp_path / "again").rglob(weights.OF_A_RUN)]


def test_what_cannot_be_restored(made, weights_dir, tmp_path, capsys):
    def refused(*arguments):
        assert _restore(*arguments) == 2
        return capsys.readouterr().err

    records, runs = tmp_path / "records", tmp_path / "runs"
    said = refused(records, weights_dir, runs, "--seeds", "7")
    assert "has no parameters of models of these seeds in " in said
    assert "no parameters" in refused(records, tmp_path / "nowhere", runs)
    assert "is a folder of records" in refused(records, weights_dir, records)
    # Parameters of another model, under the name of this one.
    path = weights_dir / "mnist5k" / "absum-0.01.safetensors"
    abstract = jax.eval_shape(
        build("small_cnn", (0.1,), (0.3,)).init, jax.random.key(0)
    )
    first, second = weights.read(path, abstract)
    weights.write(path, [second._replace(seed=0, run=first.run), second])
    assert "has other parameters than the run" in refused(records, weights_dir, runs)
    weights.write(path, [first, second])
    assert _restore(records, weights_dir, runs) == 0
    [own] = runs.glob("mnist5k/small_cnn/absum/*/seed-0-*")
    weights.write(own / weights.OF_A_RUN, [second])
    for evaluated in own.glob("low-pass-*"):
        evaluated.unlink()
    capsys.readouterr()
    assert _make("table3", runs, tmp_path / "results") == 2
    said = capsys.readouterr().err
    assert f"{own / weights.OF_A_RUN} has other parameters: the run is damaged" in said
    assert _record(tmp_path / "x", runs, f"--records-dir={runs}") == 2


@pytest.fixture
def trained(classifier, make_config, tmp_path):
    """Runs of two seeds."""
    models = []
    for seed in (3, 1):
        run = Run(tmp_path / "runs", make_config(seed=seed))
        run.begin(0)
        run.finish(classifier.init(jax.random.key(seed)), {})
        models.append(run)
    return models


def _models(runs, abstract):
    return [
        weights.Model(
            run.config.seed, str(run.config.path), run.parameters_digest,
            run.variables(abstract),
        )
        for run in runs
    ]  # fmt: skip


def test_weights_of_several_seeds_in_one_file(classifier, trained, tmp_path):
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    models = _models(trained, abstract)
    path = weights.write(tmp_path / "absum-0.1.safetensors", models)
    again = weights.read(path, abstract)
    assert [model[:3] for model in again] == [model[:3] for model in models]
    for ours, theirs in zip(again, models, strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)
    # As others read it.
    arrays = load_file(path)
    kernel = models[1].variables.params["conv1"]["kernel"]
    np.testing.assert_array_equal(arrays["params/conv1/kernel"][1], kernel)
    with safe_open(path, framework="numpy") as stream:
        assert json.loads(stream.metadata()["seeds"]) == [3, 1]


def test_damaged_weights_are_refused(classifier, trained, tmp_path):
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    path = weights.write(tmp_path / "a.safetensors", _models(trained, abstract))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", bytes([whole[0] ^ 1]) + whole[1:]):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"a.safetensors is damaged: .*restore it"):
            weights.read(path, abstract)
    data = bytearray(whole)
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match="damaged: seed 1 is not as it was written"):
        weights.read(path, abstract)
    with safe_open(path, framework="numpy") as stream:
        metadata = stream.metadata()
    fewer = {name: array[:1] for name, array in load_file(path).items()}
    save_file(fewer, path, metadata)
    with pytest.raises(UsageError, match=r"a.safetensors is damaged: .*restore it"):
        weights.read(path, abstract)
    path.write_bytes(whole)
    other = jax.eval_shape(build("resnet18", (0.0,), (1.0,)).init, jax.random.key(0))
    with pytest.raises(UsageError, match="is damaged"):
        weights.read(path, other)


def test_weights_are_written_of_the_published_schedule_alone(
    made, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "weights"
    assert _record(tmp_path, made / "runs", f"--weights-dir={folder}") == 0
    assert not folder.exists()
    monkeypatch.setattr(record, "_is_published", lambda config, dataset: True)
    for seeds in (["1"], ["0"]):
        options = ["--seeds", *seeds, f"--weights-dir={folder}"]
        assert _record(tmp_path, made / "runs", *options) == 0
    said = capsys.readouterr().out
    assert f"wrote {folder}/mnist5k/absum-0.01.safetensors" in said
    path = folder / "mnist5k" / "absum-0.01.safetensors"
    network = build("small_cnn", (0.1,), (0.3,))
    abstract = jax.eval_shape(network.init, jax.random.key(0))
    models = weights.read(path, abstract)
    assert [model.seed for model in models] == [0, 1]
    for model in models:
        config = files.read_json(made / "runs" / model.run / "config.json")
        run = Run(made / "runs", RunConfig.from_dict(config))
        assert model.digest == run.parameters_digest
