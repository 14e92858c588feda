"""The reproduction: its commands, its plan, and what becomes of failures."""

import os
import pathlib
import re
import subprocess
import tarfile
import typing

import pytest
from command_line import mistake

from experiments import cli
from experiments.composed import flat
from experiments.jobs.errors import UsageError
from experiments.reproduce import command, plan
from experiments.reproduce.command import ReproduceOptions
from experiments.reproduce.items import Item, Number, items

NUMBERS = typing.get_args(Number)


@pytest.mark.parametrize("profile", ["smoke", "full"])
def test_profiles_make_every_table_and_figure(profile):
    every = items(profile)
    assert set(NUMBERS) <= {number for item in every for number in item.numbers}
    for number in NUMBERS:
        own = items(profile, only=[number])
        assert own
        assert all(number in item.numbers for item in own)
    assert len({str(item.arguments) for item in every}) == len(every)


@pytest.mark.parametrize("profile", ["smoke", "full"])
def test_every_command_line_is_valid(profile):
    for item in items(profile):
        options = cli.parse(item.command, item.arguments[1:])
        given = flat(options)
        if item.dataset is not None:
            assert given["dataset"] == item.dataset
        if item.seeds:
            assert given["seeds"] == item.seeds


def test_the_primary_claims_come_first_and_in_pairs_of_their_seeds():
    first = items("full")[:10]
    assert {item.command for item in first} == {"evaluate"}
    assert [item.seeds for item in first[::2]] == [
        (11, 12), (13, 14), (15, 16), (17, 18), (19, 20),
    ]  # fmt: skip
    assert [item.seeds[0] for item in first[1::2]] == [21, 23, 25, 27, 29]
    assert {item.dataset for item in first[1::2]} == {"fashion_mnist"}


def test_seeds_and_data_sets_are_selected():
    chosen = items("full", only=["table2"], seeds=[5, 6, 7], datasets=["mnist"])
    assert [(item.command, item.seeds) for item in chosen] == [("table2", (5, 6, 7))]
    every = items("full", seeds=[5, 6, 7], datasets=["mnist"])
    assert [item.seeds for item in every[:2]] == [(5, 6), (7,)]
    assert {item.dataset for item in every} == {"mnist", None}
    assert not items("smoke", datasets=["cifar10"], only=["table1"])
    with pytest.raises(
        UsageError, match="--profile full makes none of figure8 figure2 on cifar10"
    ):
        command.run(ReproduceOptions("full", ("figure8", "figure2"), ("cifar10",)))


def test_the_plan_counts_what_is_to_do(tmp_path):
    options = cli.parse(
        "evaluate",
        ["--epochs=1", "--train-examples=128", "--test-examples=20", "--methods=none",
         "--frequency-stride=14", "--select-on=paper", "--seeds", "0", "1",
         f"--runs-dir={tmp_path}"],
    )  # fmt: skip
    planner = plan.Planner(tmp_path)
    planner.measured = {"small_cnn": 702 / 7}
    found = planner.estimate("evaluate", options)
    assert (found.models, found.to_train) == (2, 2)
    # The grid, two filters, transfer in two parts, PGD and its spectrum.
    assert (found.evaluations, found.to_evaluate) == (14, 14)
    # By hand, of one model: 2 steps of 64 images; 4 frequencies, 2 x 21 radii, the
    # substitute's images, and 40 steps on 1 + 6 + 1 sets of images.
    rates = plan.rates_of("small_cnn", {"small_cnn": 702 / 7})
    assert rates.forward == pytest.approx(130_000 / 7)
    forward = 20 * (4 + 2 * 21 + 1)
    expected = 2 * (
        2 / rates.steps + forward / rates.forward + 20 * 40 * 8 / rates.gradient
    )
    assert found.seconds == pytest.approx(expected)
    # What an earlier command does is not done again.
    again = planner.estimate("evaluate", options)
    assert (again.to_train, again.to_evaluate, again.seconds) == (0, 0, 0)


def test_the_plan_of_adversarial_training_counts_its_steps(tmp_path):
    options = cli.parse(
        "table4",
        ["--select-on=paper", "--methods=none", "--training=pgd", "--epochs=1",
         f"--runs-dir={tmp_path}"],
    )  # fmt: skip
    found = plan.Planner(tmp_path).estimate("table4", options)
    rates = plan.rates_of("small_cnn", {})
    steps = 4000 // 64
    training = steps * (1 / rates.steps + 40 * 64 / rates.gradient)
    evaluation = 6 * 40 * 1000 / rates.gradient
    assert found.seconds == pytest.approx(training + evaluation)


@pytest.mark.slow
def test_every_command_of_a_profile_is_planned(tmp_path):
    planner = plan.Planner(tmp_path)
    counted = {}
    for item in items("smoke"):
        name, *options = item.arguments
        if item.seeds:
            options.append(f"--runs-dir={tmp_path}")
        counted[name] = planner.estimate(name, cli.parse(name, options))
    models = {name: estimate.models for name, estimate in counted.items()}
    assert models == {
        "table1": 12, "table2": 12, "table3": 12, "table4": 24, "figure7": 12,
        "figure8": 2, "snc-readings": 4,
        "figure1": 0, "figure3": 0, "figure6a": 0, "figure6b": 0,
    }  # fmt: skip


@pytest.mark.slow
def test_the_time_is_unknown_without_data_sets(tmp_path, capsys):
    data, runs = f"--data-dir={tmp_path}", f"--runs-dir={tmp_path}"
    plan = ["reproduce", "--dry-run", "--only", "table1", "--datasets", "mnist"]
    assert cli.main([*plan, data, runs]) == 0
    printed = capsys.readouterr().out
    assert "Estimated time: unknown" in printed
    assert f"data set mnist is not prepared in {tmp_path}" in printed


@pytest.mark.slow
def test_the_plan_names_what_it_cannot_tell(tmp_path, capsys):
    options = cli.parse(
        "table1",
        ["--dataset=mnist", f"--data-dir={tmp_path}", f"--runs-dir={tmp_path}"],
    )
    assert (
        "mnist is not prepared"
        in plan.Planner(tmp_path).estimate("table1", options).note
    )
    assert plan.rates_of("densenet121", {}) is None
    code = cli.main(
        ["reproduce", "--dry-run", "--only", "figure6", "table3", "--profile=smoke",
         f"--runs-dir={tmp_path}/runs", f"--results-dir={tmp_path}/results"]
    )  # fmt: skip
    assert code == 0
    said = capsys.readouterr().out
    assert "| table3, mnist5k, the paper's strengths, seeds 0 1 |" in said
    assert "12 of 12" in said
    assert "| figure6a" in said
    assert "timings" in said
    assert "without compilation" in said
    assert "those of two cores of an AMD EPYC" in said
    assert not list((tmp_path / "runs").iterdir())


def _fake_items(monkeypatch, *fakes):
    monkeypatch.setattr(command, "items", lambda *_: list(fakes))


@pytest.mark.slow
def test_a_failure_stops_nothing_and_is_reported(tmp_path, monkeypatch, capfd):
    bad = f"--data-dir {tmp_path / 'nowhere'}"
    _fake_items(
        monkeypatch,
        Item("figure1", "mnist", bad),
        *items("smoke", only=["figure3"]),
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce", f"--results-dir={tmp_path}", f"--runs-dir={tmp_path}"])
    assert stop.value.code == 1
    said = capfd.readouterr()
    assert "[2 of 2] figure3" in said.out
    assert f"wrote {tmp_path}/figure3/" in said.out
    assert "all 2 commands have run" in said.out
    assert said.err.endswith("failed:\nfigure1, mnist: exit code 2\n")


def test_pieces_go_on_from_each_other(tmp_path):
    """By the script, with a program in place of Python that notes its arguments."""
    script = pathlib.Path(command.__file__).with_name("piece.sh")
    python = tmp_path / "python"
    # The seventh argument is the runs folder.
    python.write_text('#!/bin/sh\necho "$@" >> "$7/calls"\nexit "$FAILS"\n')
    python.chmod(0o755)

    def piece(state, out, fails):
        done = subprocess.run(
            [script, "9", tmp_path / state, tmp_path / out, "--only", "table1"],
            env=os.environ | {"PYTHON": str(python), "FAILS": str(fails)},
        )
        assert done.returncode == fails
        [archive] = (tmp_path / out).glob("runs.tar.gz.*")
        with tarfile.open(archive) as content:
            return content.extractfile("./calls").read().decode().splitlines()

    (tmp_path / "none").mkdir()
    [call] = piece("none", "first", 0)
    assert re.fullmatch(
        r"-m experiments reproduce --minutes 9 --runs-dir (\S+) "
        r"--results-dir \1/results --only table1",
        call,
    )
    assert sorted(tmp_path.glob("first/*")) == [tmp_path / "first/runs.tar.gz.aa"]
    # What there is comes back also if something failed.
    assert len(piece("first", "second", 1)) == 2
    assert len(piece("second", "second", 0)) == 3
    # A piece that was killed while it replaced the files left these.
    (tmp_path / "second/new").mkdir()
    (tmp_path / "second/new/runs.tar.gz.aa").write_text("an earlier one")
    assert len(piece("second", "second", 0)) == 4


@pytest.mark.slow
def test_a_command_is_stopped_in_time(tmp_path, monkeypatch, capfd):
    long = "--epochs=3000 --methods=none --checkpoint-seconds=0"
    _fake_items(monkeypatch, Item("train", "mnist5k", long), Item("figure3"))
    with pytest.raises(SystemExit) as stop:
        cli.main(
            ["reproduce", "--minutes=0.1", f"--runs-dir={tmp_path}/runs",
             f"--results-dir={tmp_path}/results"]
        )  # fmt: skip
    assert stop.value.code == 75
    said = capfd.readouterr()
    assert "stopped after 0.1 minutes: rerun to resume" in said.out
    assert "figure3" not in said.out.split("[1 of 2]")[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--seeds", "3", "3"], "--seeds names one twice"),
        (["--only", "table1", "table1"], "--only names one twice"),
        (["--minutes=0"], "--minutes must be positive"),
        (["--only=table9"], "table9"),
        (["--datasets=own.npz"], "--datasets must be among mnist5k, mnist, fashion"),
        (
            ["--profile=smoke", "--datasets", "mnist5k", "mnist"],
            "--datasets with --profile smoke must be among mnist5k, got 'mnist'",
        ),
    ],
)
def test_bad_options(options, text, capsys):
    assert text in mistake(capsys, "reproduce", *options)
