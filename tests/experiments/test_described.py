"""What one run shows of the paper's claims about runtimes."""

import json

import pytest
from fabricated import Numbers, write

from experiments import cli
from experiments.claims import described
from experiments.jobs.errors import UsageError


def _figure6a(results_dir, folder="scaled/figure6a", **datasets):
    """Writes what the command would: seconds of each method, by data set."""
    rows = [
        {"dataset": dataset, "method": method, "epoch_s": epoch_s}
        for dataset, seconds in datasets.items()
        for method, epoch_s in seconds.items()
    ]
    path = results_dir / folder / "epochs.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"rows": rows}))
    return path


def _seconds(snc=20, snc_numpy=100, weight_decay=10, l1=10):
    return {
        "none": 9, "absum": 10, "snc": snc, "snc_numpy": snc_numpy, "l1": l1,
        "weight_decay": weight_decay,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "holds"), [(50, True), (49, False), (200, True), (201, False)]
)
def test_an_epoch_of_absum_takes_about_a_tenth_of_one_of_snc(seconds, holds, tmp_path):
    _figure6a(tmp_path, mnist=_seconds(), cifar10=_seconds(snc_numpy=seconds))
    s22, _ = described.of_runtimes(tmp_path)
    assert (s22.claim, s22.holds) == ("S22", holds)
    ratios = f"{seconds / 10:.2f} times as long in NumPy, 2.00 times with this"
    assert ratios in s22.found


@pytest.mark.parametrize(
    ("changed", "factor", "holds"),
    [
        ({}, "1.00", True),
        ({"weight_decay": 12.5}, "1.25", True),
        ({"weight_decay": 8}, "1.25", True),
        ({"l1": 12.6}, "1.26", False),
        ({"l1": 7.9, "weight_decay": 12}, "1.27", False),
    ],
)
def test_absum_takes_as_long_as_weight_decay_and_l1(changed, factor, holds, tmp_path):
    _figure6a(tmp_path, mnist=_seconds(), cifar100=_seconds(**changed))
    [s23] = described.of_runtimes(tmp_path)  # S22 is about CIFAR-10
    assert (s23.claim, s23.holds) == ("S23", holds)
    assert s23.found.endswith(f"1.00 (MNIST), {factor} (CIFAR-100)")


def test_claims_whose_methods_were_not_timed_are_left_out(tmp_path):
    assert described.of_runtimes(tmp_path) == []
    _figure6a(tmp_path, cifar10={"none": 1, "absum": 1, "l1": 1, "snc_numpy": 9})
    assert described.of_runtimes(tmp_path) == []


def test_whole_epochs_come_before_timed_steps(tmp_path):
    _figure6a(tmp_path, cifar10=_seconds(snc_numpy=30))
    assert not described.of_runtimes(tmp_path)[0].holds
    _figure6a(tmp_path, "figure6a", cifar10=_seconds())
    assert described.of_runtimes(tmp_path)[0].holds


def test_the_command_tells_them(tmp_path):
    records = tmp_path / "records"
    write(records, "mnist", lambda *_: Numbers(), seeds=(11, 12))

    def claims():
        folders = f"--runs-dir={records}", f"--results-dir={tmp_path}"
        assert cli.main(["claims", *folders]) == 0
        content = json.loads((tmp_path / "claims.json").read_text())
        return content["described"], (tmp_path / "claims.md").read_text()

    found, text = claims()
    assert found == []
    assert f"\n- S22. {described.TEXTS['S22']}.\n- S23. " in text
    _figure6a(tmp_path, cifar10=_seconds(weight_decay=20))
    found, text = claims()
    assert [(one["claim"], one["holds"]) for one in found] == [
        ("S22", True), ("S23", False),
    ]  # fmt: skip
    table = " ".join(text.split("## Claims that one run describes")[1].split())
    assert (
        "S23. The runtime of Absum is similar to that of weight decay and L1" in table
    )
    assert "| does not hold |" in table
    assert "- S22." not in text


@pytest.mark.parametrize("text", ["", "{}", '{"rows": [{"dataset": "mnist"}]}'])
def test_a_damaged_figure_is_named(text, tmp_path):
    path = _figure6a(tmp_path)
    path.write_text(text)
    with pytest.raises(UsageError, match=r"epochs\.json.*command figure6a"):
        described.of_runtimes(tmp_path)
