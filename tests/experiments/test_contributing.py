"""The example in CONTRIBUTING: one of each that can be added, and Table 1 with them."""

import csv
import json
import pathlib
import re

import numpy as np
import pytest

from experiments import cli, workspace
from experiments.data import DATASETS
from experiments.evaluation import clean, evaluator
from experiments.evaluation.attack import ATTACKS
from experiments.methods import METHODS
from experiments.models import ARCHITECTURES
from experiments.tables import table1
from experiments.training.runs import Run

ROOT = pathlib.Path(__file__).resolve().parents[2]
ARGUMENTS = (
    "--dataset=negatives", "--network=strided", "--methods", "none", "shrink",
    "--strengths=0.1", "--epochs=1", "--train-examples=256", "--test-examples=40",
    "--frequency-stride=14",
)  # fmt: skip


def _example():
    """The longest block of Python in the document."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return max(re.findall(r"```python\n(.*?)```", text, re.DOTALL), key=len)


@pytest.fixture(scope="module")
def _registered():
    """Runs the example as a module, and takes what it adds back in the end."""
    tables = (METHODS, DATASETS, ARCHITECTURES, ATTACKS)
    before = [dict(table) for table in tables]
    columns = list(table1.COLUMNS)
    exec(compile(_example(), "CONTRIBUTING.md", "exec"), {"__name__": "example"})
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table |= entries
    table1.COLUMNS[:] = columns


@pytest.fixture(scope="module")
def made(_registered, tmp_path_factory):
    """The folder of runs and results, and the figures and titles, of Table 1."""
    folder = tmp_path_factory.mktemp("own")
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table1, "save", lambda *drawn: figures.append(drawn[:2]) or [])
        folders = f"--runs-dir={folder}", f"--results-dir={folder}/results"
        assert cli.main(["table1", *ARGUMENTS, *folders]) == 0
    return folder, figures


def _results(folder, suffix):
    return folder / f"results/scaled/table1/negatives-strided{suffix}"


def test_table1_has_the_method_and_the_column(made):
    folder, _ = made
    details = json.loads(_results(folder, ".json").read_text())
    assert [row["method"] for row in details["rows"]] == ["none", "shrink"]
    for row, model in zip(details["rows"], details["models"], strict=True):
        assert row["range_mean"] == pytest.approx(model["max"] - model["min"], abs=1e-7)
    with _results(folder, ".csv").open() as file:
        assert [line["range_mean"] for line in csv.DictReader(file)] == [
            str(row["range_mean"]) for row in details["rows"]
        ]
    lines = _results(folder, ".md").read_text().splitlines()
    assert any(line.startswith("| method ") and " range |" in line for line in lines)
    assert any(line.startswith("| shrinking ") for line in lines)
    assert any("negatives of digits (strided CNN)" in line for line in lines)


def test_figures_have_the_colour_of_the_method_and_a_marker(made):
    _, figures = made
    drawn = {
        line.get_color(): line.get_marker()
        for figure, _ in figures
        for ax in figure.axes
        for line in ax.lines
    }
    assert drawn["#17becf"] not in {None, "None", *(m.marker for m in METHODS.values())}


def test_figures_have_the_data_set_and_the_network_in_their_titles(made):
    _, figures = made
    assert [title.split(",")[0] for _, title in figures] == ["Figure 4", "Figure 5"]
    for _, title in figures:
        assert (
            "negatives of digits (strided CNN)\nscaled down: 1 of 100 epochs" in title
        )


@pytest.mark.usefixtures("_registered")
def test_help_names_them(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["table1", "--help"])
    text = re.sub(r"[\s│]+", "", capsys.readouterr().out)
    for name in ("negatives", "strided", "shrink"):
        assert re.search(rf"[{{,]{name}[,}}]", text), name


def test_the_method_acts_on_kernels_alone(made):
    """A kernel of a step is divided by 1 + rate * strength; others are as without."""
    folder, _ = made
    sweep = cli.parse("table1", [*ARGUMENTS, f"--runs-dir={folder}"]).sweep
    with workspace.opened(sweep.models, test_examples=40) as opened:
        plain, shrunk = opened.train(sweep.settings(), (0,))
        variables = opened.test.variables([plain, shrunk])
        kernels = np.asarray(variables.params["conv"]["kernel"])
        biases = np.asarray(variables.params["conv"]["bias"])
    norms = np.linalg.norm(kernels.reshape(2, -1), axis=1)
    # Four steps at a rate of 0.01.
    assert norms[1] / norms[0] == pytest.approx((1 + 0.01 * 0.1) ** -4, rel=1e-4)
    np.testing.assert_allclose(biases[1], biases[0], atol=1e-4)


def test_the_attack_is_evaluated(made):
    folder, _ = made
    sweep = cli.parse("table1", [*ARGUMENTS, f"--runs-dir={folder}"]).sweep
    with workspace.opened(sweep.models, test_examples=40) as opened:
        runs: list[Run] = opened.train(sweep.settings(), (0,))
        found = evaluator.run("darkened", opened.test, runs)
        accuracies = [each.accuracy for each in clean.evaluate(opened.test, runs)]
    assert [full for full, _ in found] == accuracies  # at full brightness
    for run in runs:
        [path] = run.folder.glob("darkened-*.jsonl")
        points = [
            json.loads(line).get("point") for line in path.read_text().splitlines()
        ]
        assert points[2:] == [1.0, 0.5]
