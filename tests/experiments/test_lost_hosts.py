"""What becomes of a command when one of its processes is lost, or never comes."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from command_line import mistake
from processes import ROOT, free_port, outputs, start

from experiments import cli, supervision
from experiments.config import RunConfig
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.jobs.joining import HostOptions
from experiments.training.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_network")]

EPOCHS = 16


def _command(folder, *more):
    return [
        "train", "--train-examples=128", f"--epochs={EPOCHS}", "--methods", "none",
        "absum", "--strengths=0.1", "--checkpoint-seconds=0", "--runs-dir",
        str(folder / "runs"), *more,
    ]  # fmt: skip


def _start(folder):
    more = ("--heartbeat-seconds", "20")
    return start(["-m", "experiments", *_command(folder, *more)], devices=1, tiny=True)


def _wait_for_an_epoch(processes, folder):
    before = len(_metrics(folder))
    while len(_metrics(folder)) <= before:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


def _metrics(folder):
    paths = folder.glob("runs/mnist5k/small_cnn/absum/*/seed-*/metrics.jsonl")
    return [line for path in paths for line in files.read_json_lines(path)]


def _child(process):
    """The process that the one that was started watches."""
    pid = process.pid
    [child] = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def _lose_second(folder, how):
    """Starts two processes, loses the second one, and waits for the first.

    Returns:
      What the first has said, and its exit code.
    """
    first, second = processes = _start(folder)
    try:
        _wait_for_an_epoch(processes, folder)
        child = _child(second)
        os.kill(child, how)
        _, errors = first.communicate()
    finally:
        for process in processes:
            process.kill()
        # One that is stopped does not notice.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        second.communicate()
    return errors, first.returncode


@pytest.fixture
def trained(classifier):
    def load(folder):
        shapes = jax.eval_shape(classifier.init, jax.random.key(0))
        found = {}
        for path in sorted(folder.rglob("config.json")):
            run = Run(folder / "runs", RunConfig.from_dict(files.read_json(path)))
            found[run.config.path] = run.metrics(), run.variables(shapes)
        return found

    return load


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_lost_process_ends_the_run_which_goes_on_as_if_nothing_had_been(
    tmp_path, trained
):
    lost = tmp_path / "lost"
    # Killed, its connections break; stopped, nothing tells but its silence.
    for how in (signal.SIGKILL, signal.SIGSTOP):
        errors, code = _lose_second(lost, how)
        assert code == 1, errors
        assert errors.rstrip().endswith(supervision.MESSAGE)
        assert len(_metrics(lost)) < EPOCHS
    # On one process now.
    assert cli.main(_command(lost)) == 0
    assert cli.main(_command(tmp_path / "whole")) == 0
    one, two = trained(lost), trained(tmp_path / "whole")
    assert one.keys() == two.keys()
    assert len(one) == 2
    for path, (metrics, variables) in one.items():
        assert len(metrics) == EPOCHS
        for line, other in zip(metrics, two[path][0], strict=True):
            assert line == pytest.approx(other, abs=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            variables,
            two[path][1],
        )


def test_a_mistake_of_all_is_told_by_each(tmp_path):
    """In one process that of the other may come to be told as its loss."""
    command = _command(tmp_path, "--train-examples=20")
    (code, _, errors), (second, _, _) = outputs(
        start(["-m", "experiments", *command], devices=1)
    )
    assert (code, ": --train-examples must be at least" in errors) == (2, True)
    assert second in (1, 2)


def test_a_process_that_finds_no_other(tmp_path, capsys):
    where = f"127.0.0.1:{free_port()}"
    said = mistake(
        capsys, *_command(tmp_path), "--distributed", "--join-seconds=1",
        "--coordinator", where, "--num-processes=2", "--process-id=1",
    )  # fmt: skip
    assert said.startswith(f"--coordinator {where} cannot be reached within 1 s")


def test_a_process_that_finds_no_cluster(tmp_path):
    ended = subprocess.run(
        [
            sys.executable, "-m", "experiments", *_command(tmp_path), "--distributed",
            "--join-seconds=1",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert ": --distributed found no cluster that it knows; give --coordinator" in last


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        options = HostOptions(True, f"127.0.0.1:{port}", 2, 0)
        with pytest.raises(UsageError, match=f"cannot listen on port {port}"):
            options.join()


def test_how_soon_a_silent_process_is_lost(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *_, **options: asked.update(options)
    )
    HostOptions(True, f"127.0.0.1:{free_port()}", 1, 0, heartbeat_seconds=7).join()
    assert asked["heartbeat_timeout_seconds"] == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((False, "a:1"), "go with --distributed"),
        ((True, None, None, 0), "go together"),
        ((True, "a", 2, 0), "must be HOST:PORT, got 'a'"),
        ((True, "a:0", 2, 0), "must be HOST:PORT, got 'a:0'"),
        ((True, "a:1", 2, 2), "--process-id must lie in 0..1, got 2"),
        ((True, "a:1", 0, 0), "--num-processes must be at least 1, got 0"),
        ((False, None, None, None, 0), "--join-seconds must be at least 1, got 0"),
        (
            (False, None, None, None, 1, 0),
            "--heartbeat-seconds must be at least 1, got 0",
        ),
    ],
    ids=str,
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        HostOptions(*options)
