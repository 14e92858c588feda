"""Damage to finished runs is noticed, and never trained over or counted."""

import itertools
import json
import pathlib
import shutil
import zlib

import jax
import numpy as np
import pytest

from experiments import cli
from experiments.config import RunConfig
from experiments.evaluation import clean, single_fourier
from experiments.evaluation.points import Points
from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError
from experiments.training import plan, runs
from experiments.training.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_network")]

OPTIONS = [
    "--epochs=1", "--train-examples=128", "--test-examples=20", "--methods=none",
    "--frequency-stride=14", "--select-on=paper",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """A folder of runs with one finished model, attacked."""
    folder = tmp_path_factory.mktemp("finished")
    assert _table1(folder) == 0
    return folder


@pytest.fixture
def folder(finished, tmp_path, monkeypatch) -> pathlib.Path:
    """A copy of it, unknown to this process."""
    monkeypatch.setattr(runs, "_CHECKED", {})
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path


def _table1(folder):
    return cli.main(
        ["table1", *OPTIONS, f"--runs-dir={folder}/runs",
         f"--results-dir={folder}/results"]
    )  # fmt: skip


def _run_folder(folder):
    [provenance] = folder.glob("runs/mnist5k/small_cnn/none/0/*/provenance.json")
    return provenance.parent


def _damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "a bit":
        data[len(data) // 2] ^= 1
    elif how == "cut":
        del data[len(data) // 2 :]
    path.write_bytes(data)


damages = pytest.mark.parametrize("how", ["a bit", "cut", "missing"])


@damages
@pytest.mark.parametrize(
    "name", ["config.json", "metrics.jsonl", "diagnostics.jsonl", "provenance.json"]
)
def test_a_damaged_file_is_named_with_the_folder_to_remove(folder, name, how, capsys):
    path = _run_folder(folder) / name
    _damage(path, how)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert _table1(folder) == 2
    said = capsys.readouterr().err
    assert said.startswith("experiments table1: ")
    assert name in said
    assert f"Remove the folder {path.parent}" in said
    assert "Traceback" not in said
    after = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    after.pop(folder / "runs/mnist5k/small_cnn/lock", None)
    before.pop(folder / "runs/mnist5k/small_cnn/lock", None)
    assert after == before


def test_a_checkpoint_of_an_earlier_version_is_still_checked_by_its_content(
    runs, images, monkeypatch
):
    """Those from before there was a digest of its files, and any that is unreadable."""
    abstract = jax.eval_shape(images.classifier.init, jax.random.key(0))
    run, other = runs
    provenance = files.read_json(run.folder / "provenance.json")
    del provenance["digests"]["checkpoint"], provenance["checksum"]
    files.write_json(run.folder / "provenance.json", provenance)
    run.variables(abstract)
    shutil.rmtree(run.folder / "checkpoint")
    with pytest.raises(UsageError, match="checkpoint cannot be read"):
        run.variables(abstract)
    shutil.copytree(other.folder / "checkpoint", run.folder / "checkpoint")
    with pytest.raises(UsageError, match="checkpoint is not as training left it"):
        run.variables(abstract)


def test_the_folder_of_another_model_is_refused(runs):
    """Its digests are right, and its checksum, if it is of an earlier version."""
    run, other = runs
    for file in ("provenance", "config"):
        shutil.rmtree(run.folder)
        shutil.copytree(other.folder, run.folder)
        with pytest.raises(UsageError, match=rf"{run.folder}/{file}\.json is "):
            _ = run.is_complete
        assert other.is_complete
        path = other.folder / "provenance.json"
        provenance = files.read_json(path)
        del provenance["checksum"]
        files.write_json(path, digests.with_checksum(provenance))


def test_logs_of_another_model_are_refused(make_config, tmp_path):
    """Of runs in progress, which no digests tell apart yet."""
    run, other = (Run(tmp_path, make_config(seed=seed)) for seed in (0, 1))
    for own in (run, other):
        own.begin(0)
        own.log(1, 0.5, 0.5)
        own.log_diagnostics({"epoch": 1})
    whole = [own.logged(1) for own in (run, other)]
    assert [len(lines) for own in whole for lines in own.values()] == [1, 1, 1, 1]
    for path, another in itertools.pairwise([*whole[0], *whole[1], *whole[0]]):
        kept = path.read_bytes()
        shutil.copy(another, path)
        with pytest.raises(UsageError, match=f"{path} is not as training left it"):
            (run if path in whole[0] else other).logged(1)
        path.write_bytes(kept)
    # Checksums of earlier versions do not tell whose they are.
    for path, lines in whole[0].items():
        files.write_json_lines(path, map(digests.with_checksum, lines))
    assert run.logged(1) == whole[0]


def test_runs_of_earlier_versions_are_unverified(folder, capsys):
    path = _run_folder(folder) / "provenance.json"
    provenance = files.read_json(path)
    del provenance["digests"], provenance["checksum"]
    files.write_json(path, provenance)
    with (path.parent / "metrics.jsonl").open("a") as stream:
        stream.write("\n")
    for evaluation in path.parent.glob("*-*.jsonl"):
        lines = [json.loads(line) for line in evaluation.read_text().splitlines()]
        for line in lines:
            line.pop("checksum")
            line.pop("parameters", None)
        files.write_json_lines(evaluation, lines)
    capsys.readouterr()
    assert _table1(folder) == 2  # an empty line is no JSON
    (path.parent / "metrics.jsonl").write_text(
        (path.parent / "metrics.jsonl").read_text().rstrip("\n") + "\n"
    )
    capsys.readouterr()
    assert _table1(folder) == 0
    said = capsys.readouterr()
    assert "1 of 1 models are trained already; 1 of them unverified" in said.out
    assert said.err == ""
    # Not even of these does one evaluation count as another.
    [one], [other] = (path.parent.glob(f"{k}-*") for k in ("clean", "single-fourier"))
    shutil.copy(other, one)
    assert _table1(folder) == 0
    said = capsys.readouterr()
    assert f"{one}: damaged lines are computed again" in said.out
    assert "1 of 1 evaluations" in said.err


@pytest.mark.parametrize("how", ["a bit", "another value", "another model", "header"])
def test_damaged_evaluations_are_computed_again(folder, how, capsys):
    [path] = _run_folder(folder).glob("single-fourier-*.jsonl")
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    if how == "a bit":
        lines[3] = lines[3].replace("[", "{", 1)
    elif how == "another value":
        line = json.loads(lines[3])
        line["value"][0] = 0.5
        lines[3] = json.dumps(line) + "\n"
    else:
        line = json.loads(lines[0])
        del line["checksum"]
        line["parameters"] = "0" * 64
        if how == "another model":
            line["checksum"] = f"{zlib.crc32(json.dumps(line).encode()):08x}"
        lines[0] = json.dumps(line) + "\n"
    path.write_text("".join(lines))
    capsys.readouterr()
    assert _table1(folder) == 0
    said = capsys.readouterr()
    rows = 1 if how in ("a bit", "another value") else 2
    assert f"{rows} of {rows} rows" in said.err
    assert f"{path}: damaged lines are computed again" in said.out
    header, made_by, *points = whole.splitlines()
    found = path.read_text().splitlines()
    assert sorted(line for line in found[2:] if "point" in json.loads(line)) == points
    # What followed a damaged line may have been computed elsewhere.
    unknown = rows == 1
    assert found[:2] == [header, made_by]
    assert ['"provenance": null' in line for line in found[3:]] == (
        [True, False, False] if unknown else [False]
    )


def test_models_whose_training_was_cut_short_are_not_damaged(
    folder, capsys, monkeypatch
):
    """Between its checkpoint and its provenance, of which the sweep knows."""
    path = _run_folder(folder) / "provenance.json"
    config = files.read_json(path.parent / "config.json")
    path.unlink()
    sweep = plan.Sweep(((RunConfig.from_dict(config),),))
    plan.save_members(
        folder / "runs/mnist5k/small_cnn/in-progress" / sweep.path.name, sweep
    )
    capsys.readouterr()
    assert _table1(folder) == 0
    assert "training 1 model" in capsys.readouterr().err


def test_transferred_attacks_are_of_a_substitutes_parameters(runs, images):
    from experiments.evaluation import gradient

    steps = gradient.Steps(step_size=0.1, steps=1, init_radius=0.0)
    gradient.transferred(images, runs[:1], runs[1:], 0.1, steps)
    [path] = runs[0].folder.glob("transfer-*.jsonl")
    point = files.read_json_lines(path)[2]["point"]
    assert point == f"{runs[1].config.path}@{runs[1].parameters_digest[:12]}"
    runs[1].finish(images.classifier.init(jax.random.key(5)), {})
    gradient.transferred(images, runs[:1], runs[1:], 0.1, steps)
    assert len(files.read_json_lines(path)) == 4


def test_digests_are_of_content():
    tree = {"b": np.arange(6.0, dtype=np.float32), "a": [np.ones((2, 3), np.int32)]}
    digest = digests.of_arrays(tree)
    assert digests.of_arrays(jax.tree.map(jax.numpy.asarray, tree)) == digest
    assert digests.of_arrays(dict(reversed(tree.items()))) == digest
    others = [
        tree | {"b": tree["b"][::-1]},
        tree | {"b": tree["b"].astype(np.float64)},
        tree | {"b": tree["b"].reshape(2, 3)},
        tree | {"a": [np.ones((3, 2), np.int32)]},
        {"b": tree["b"], "c": tree["a"]},
    ]
    assert len({digest, *map(digests.of_arrays, others)}) == 6


def test_points_of_clean_images_carry_the_parameters(runs, images):
    clean.evaluate(images, runs)
    single_fourier.evaluate(images, runs, 0.1, stride=14)
    for run in runs:
        for path in run.folder.glob("*-*.jsonl"):
            header, *lines = files.read_json_lines(path)
            assert header["parameters"] == run.parameters_digest
            assert all(len(line["checksum"]) == 8 for line in [header, *lines])
        evaluation = images.evaluation("clean")
        assert len(Points(run, evaluation).read()) == 1
