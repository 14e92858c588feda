"""The report is what the committed results make, and says what is missing."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from experiments import cli, report
from experiments.claims.statements import SAMPLES
from experiments.jobs.errors import UsageError
from experiments.reporting import naming
from experiments.reporting.comparisons import compare, section
from experiments.reproduce.items import items

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


def _claims(change):
    """Returns a folder-making function that changes claims.json."""

    def make(folder):
        shutil.copytree(
            RESULTS, folder, ignore=shutil.ignore_patterns("records", "weights", "*.p*")
        )
        path = folder / "claims.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return folder

    return make


def test_the_report_comes_from_the_results():
    expected = report.written(RESULTS)
    assert (ROOT / "docs" / "report.md").read_text() == expected
    assert "{{" not in expected


def test_verdicts_are_those_of_the_claims(tmp_path):
    def decide(content):
        for one in content["primary"]:
            one["verdict"] = "reproduced"
        one, other, *_ = content["secondary"]["mnist"]
        one["verdict"], other["verdict"] = "undecided", "equivalent"

    folder = _claims(decide)(tmp_path / "results")
    lines = report._verdicts(folder)
    assert lines[0].split("|")[2].strip() == "MNIST"
    [p1] = [line for line in lines if "P1." in line]
    measured = json.loads((folder / "claims.json").read_text())["primary"][0]
    parts = [measured["differences"][name]["parts"] for name in SAMPLES]
    assert [cell.strip() for cell in p1.split("|")][2:5] == [
        *(f"{np.mean(of_set) / 100:+.1f} points" for of_set in parts), "reproduced",
    ]  # fmt: skip
    [s1] = [line for line in lines if "| S1." in line]
    assert "undecided (1 of 2), equivalent (1 of 2)" in s1


def test_what_was_run_is_what_there_are_results_of(tmp_path):
    folder = _claims(lambda _: None)(tmp_path / "results")
    path = folder / "figure8" / "mnist.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"seeds": [0, 1]}))  # others than those planned
    before = report._runs(folder)
    path.write_text(json.dumps({"seeds": [61, 62, 63]}))
    changed = set(map(_squeezed, report._runs(folder))) - set(map(_squeezed, before))
    assert changed == {"|4|Figure 8|run|"}
    path.unlink()
    assert report._runs(folder) == before


def test_all_that_is_planned_counts_once_its_commands_have_run(tmp_path):
    (tmp_path / "claims.json").write_text(json.dumps({"samples": {}}))

    def states():
        return [line.strip("| ").split("|")[-1] for line in report._runs(tmp_path)[2:]]

    def write(name, **content):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    nothing = states()
    for item in items("full"):
        if item.command == "table1":
            options = cli.parse(item.command, item.arguments[1:])
            name = naming.path("table1", options.sweep)
            write(name, options={"seeds": item.seeds})
    for name in ("mnist", "fashion_mnist"):
        write(f"snc-readings/{name}", seeds=[31, 32, 33])
        write(f"snc-readings/{name}-max-norm-0.01-0.1-0.5-1", seeds=[0])
    write("figure8/mnist", seeds=[61, 62, 63])
    write("scaled/figure6a/cpu", options={})
    write("figure6b/resnet18", options={})
    write("scaled/table4/mnist-paper", options={"seeds": [51, 52]})
    everything = states()
    assert {state.strip() for state in everything} == {"run"}
    for name in (
        "snc-readings/fashion_mnist", "snc-readings/mnist-max-norm-0.01-0.1-0.5-1",
        "table1/mnist-validation", "figure8/mnist", "figure6b/resnet18",
        "scaled/table4/mnist-paper", "table1/cifar10-paper",
        "table1/imagenet2012-paper", None,
    ):  # fmt: skip
        if name is None:
            [path] = tmp_path.glob("scaled/table1/cifar10*.json")
        else:
            path = tmp_path / f"{name}.json"
        text = path.read_text()
        path.unlink()
        changed = [n for n, state in enumerate(states()) if "not run" in state]
        assert len(changed) == 1
        assert states()[changed[0]].strip() == nothing[changed[0]].strip()
        path.write_text(text)


def _squeezed(line):
    return re.sub(r" *\| *", "|", line)


def test_models_of_another_program_are_compared_one_by_one(tmp_path):
    folder = _claims(lambda _: None)(tmp_path / "results")
    table = json.loads((folder / "table1" / "fashion_mnist-paper.json").read_text())
    values = [100 * m["min"] for m in table["models"] if m["method"] == "absum"]
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 + 1 / n)
    ends = np.mean(values) - half, np.mean(values) + half
    rows = [
        {"method": "absum", "seed": seed, "avg": 83.0, "min": value, "clean": 88.4}
        for seed, value in enumerate((ends[0] - 0.01, ends[0] + 0.01, ends[1] + 0.01))
    ]
    path = folder / "independent" / "fashion_mnist.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [line] = [line for line in report._independent(folder) if "Min." in line]
    assert line.endswith("1 of 3 |")


def test_comparisons_are_left_out_of_tables(tmp_path):
    for beyond in (False, True):
        for seeds in (2, 3):
            [comparison] = compare(
                {"absum": [0.9] * seeds, "l1": [0.8] * seeds}, ["absum"], ["l1"],
                is_beyond=beyond,
            )  # fmt: skip
            lines = ["## A table", "", "| a |", "", *section([comparison])]
            (tmp_path / "table.md").write_text("\n".join(lines) + "\n")
            shown = report._table("table.md")(tmp_path)
            assert shown == ["### A table", "", "| a |"]


def test_what_snc_changes_is_that_of_the_models_of_the_same_seed(tmp_path):
    # From a method and a seed to norms of two layers and (avg, min, clean).
    models = {
        ("none", 11): ((9.0, 8.0), (0.9, 0.5, 0.99)),
        ("none", 12): ((9.5, 11.0), (0.8, 0.7, 0.98)),
        ("snc", 12): ((9.4, 10.0), (0.81, 0.67, 0.98)),
        ("snc", 11): ((9.0, 8.0), (0.9, 0.5, 0.99)),
        ("absum", 11): ((1.0, 30.0), (0.1, 0.1, 0.1)),
    }
    for name in SAMPLES:
        listed = []
        for (method, seed), (norms, accuracies) in models.items():
            run = f"{name}/{method}/seed-{seed}"
            folder = tmp_path / "records" / run
            folder.mkdir(parents=True)
            of_epochs = [
                {"epoch": epoch, "spectral_norm": {"a": of[0], "b": of[1]}}
                for epoch, of in ((1, (99.0, 99.0)), (2, norms))
            ]
            lines = (json.dumps(line) + "\n" for line in of_epochs)
            (folder / "diagnostics.jsonl").write_text("".join(lines))
            values = dict(zip(("avg", "min", "clean"), accuracies, strict=True))
            listed.append({"method": method, "seed": seed, "run": run, **values})
        path = tmp_path / "table1" / f"{name}-paper.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"models": listed}))
    _, _, *rows = map(_squeezed, report._norms(tmp_path))
    numbers = "|9.0 to 9.5|8.0 to 11.0|1 of 2|1.00|3.00|0.00|"
    assert rows == [f"|MNIST{numbers}", f"|Fashion-MNIST{numbers}"]
    (tmp_path / "records" / "mnist" / "none" / "seed-12" / "diagnostics.jsonl").unlink()
    with pytest.raises(UsageError, match=r"none/seed-12/diagnostics.jsonl is missing"):
        report._norms(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"claims.json is missing; make it with the"):
        report.written(tmp_path)


def test_missing_records_and_sections_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"records/mnist has no records"):
        report._compute(tmp_path)
    (tmp_path / "claims.md").write_text("# Claims")
    with pytest.raises(UsageError, match=r"claims.md has no section Primary: run"):
        report._section("Primary")(tmp_path)


def test_the_command_writes_the_file(tmp_path):
    path = tmp_path / "report.md"
    cli.main(["report", f"--report={path}"])
    assert path.read_text() == report.written(RESULTS)
