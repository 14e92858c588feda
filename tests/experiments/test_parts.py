"""One sweep in parts, on several machines or side by side on one."""

import dataclasses
import itertools
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stopping import start_held, wait_until_held

from experiments import cli, workspace
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.jobs.parts import Part

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_network")]

SMALL = (
    "--train-examples=128", "--test-examples=10", "--frequency-stride=14", "--epochs=2",
)  # fmt: skip
MODELS = ("--methods", "none", "absum", "--strengths=0.1", "--seeds", "0", "1")


@given(seeds=st.integers(1, 4), settings=st.integers(1, 9), data=st.data())
@pytest.mark.parametrize("together", [True, False])
def test_each_model_is_in_one_part(together, seeds, settings, data):
    models = seeds * settings
    parts = data.draw(st.integers(1, models))
    divided = [
        Part(k, parts).members(seeds, settings, together=together)
        for k in range(1, parts + 1)
    ]
    assert all(divided)
    assert sorted(itertools.chain(*divided)) == list(range(models))
    if not together:
        # Dealt out one by one.
        assert [members[0] for members in divided] == list(range(parts))
        assert {models // parts, -(-models // parts)} >= set(map(len, divided))


@given(seeds=st.integers(1, 4), settings=st.integers(1, 9), data=st.data())
def test_small_networks_have_one_rectangle_a_part(seeds, settings, data):
    parts = data.draw(st.integers(1, settings))
    for k in range(1, parts + 1):
        members = Part(k, parts).members(seeds, settings, together=True)
        rows = [divmod(i, settings) for i in members]
        own = [setting for seed, setting in rows if seed == 0]
        assert rows == [(seed, setting) for seed in range(seeds) for setting in own]


def test_more_parts_than_models_are_refused():
    with pytest.raises(UsageError, match="--part 1/7: 6 models are too few for 7"):
        Part(1, 7).members(2, 3, together=True)


def test_a_part_is_written_as_it_is_read():
    assert str(Part.parse("2/4")) == "2/4"


def _table1(folder, capsys, *arguments):
    """Runs Table 1 of four models; returns its json and what was said."""
    code = cli.main(
        ["table1", *SMALL, *MODELS, *arguments, f"--runs-dir={folder}/runs",
         f"--results-dir={folder}/results"]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    path = folder / "results" / "scaled" / "table1" / "mnist5k.json"
    return files.read_json(path) if path.exists() else None, said


@pytest.mark.parametrize("together", [True, False], ids=["small", "large"])
def test_merged_by_a_copy_they_make_the_same_table(
    together, tmp_path, capsys, monkeypatch
):
    if not together:
        # As large networks are, the small one is trained by itself.
        build = workspace.build
        monkeypatch.setattr(
            workspace, "build",
            lambda *arguments: dataclasses.replace(build(*arguments), is_small=False),
        )  # fmt: skip
    whole, _ = _table1(tmp_path / "whole", capsys)
    names = {"1/2": "no regularization", "2/2": "Absum 0.1"}
    for i, (part, name) in enumerate(names.items()):
        written, said = _table1(tmp_path / f"machine-{i}", capsys, f"--part={part}")
        assert written is None
        assert "wrote" not in said.out
        assert f"Part {part}, 2 of 4 models, is trained and attacked: " in said.out
        assert f"{name} (seed 0), {name} (seed 1)" in said.out
        shutil.copytree(
            tmp_path / f"machine-{i}" / "runs", tmp_path / "merged" / "runs",
            dirs_exist_ok=True,
        )  # fmt: skip
    merged, said = _table1(tmp_path / "merged", capsys)
    assert "4 of 4 models are trained already" in said.out
    assert said.err == ""
    assert len({model["lowest_train_loss"] for model in merged["models"]}) == 4
    if together:
        # In another program, rounding is another, and the first of equals too.
        for ours, theirs in zip(merged["models"], whole["models"], strict=True):
            del ours["worst"], theirs["worst"]
            assert ours == pytest.approx(theirs, abs=1e-4)
    else:
        assert merged["models"] == whole["models"]


def test_a_part_that_is_missing_is_made_up_for(tmp_path, capsys):
    _table1(tmp_path, capsys, "--part=1/2")
    _, said = _table1(tmp_path, capsys)
    assert "2 of 4 models are trained already" in said.out
    assert "training 2 models" in said.err
    assert "single-fourier: 2 models" in said.err


@pytest.fixture
def begin():
    """Starts a part as a process of its own, which is held once it trains."""
    processes = []

    def start(command, part):
        processes.append(start_held(*command, f"--part={part}"))
        wait_until_held(processes[-1])
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_side_by_side_in_one_folder(begin, tmp_path, capsys):
    command = [
        "train", *MODELS, "--train-examples=128", "--epochs=2",
        "--checkpoint-seconds=0", f"--runs-dir={tmp_path}",
    ]  # fmt: skip

    def refused(*arguments):
        assert cli.main([*command, *arguments]) == 2
        return capsys.readouterr().err

    processes = {part: begin(command, part) for part in ("1/2", "2/2")}
    assert "another process trains or attacks such models" in refused()
    assert "part 2-of-2 of this command runs already" in refused("--part=2/2")
    # As many parts of other models, and others of the same.
    for arguments in (["--part=1/2", "--seeds", "1", "2"], ["--part=1/3"]):
        assert "a part of another command trains" in refused(*arguments)
    for part, process in processes.items():
        output, _ = process.communicate()
        assert process.returncode == 0, output
        assert f"part {part}: 2 of 4 models" in output
    models = tmp_path / "mnist5k" / "small_cnn"
    assert not list((models / "in-progress").iterdir())
    assert cli.main(command) == 0
    assert "4 of 4 models are trained already" in capsys.readouterr().out
    provenances = [files.read_json(p) for p in models.rglob("provenance.json")]
    programs = [p["settings_in_one_program"] for p in provenances]
    assert sorted(programs) == [[["absum", 0.1]]] * 2 + [[["none", 0.0]]] * 2
