"""The results in the repository are what its records make."""

import csv
import importlib
import json
import pathlib

import pytest

from experiments import cli
from experiments.jobs import files

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "results"
RECORDS = RESULTS / "records"
FOLDERS = (
    "table1", "table2", "table3", "scaled/frequencies", "scaled/table4-clean-auto",
)  # fmt: skip
TABLES = [path for name in FOLDERS for path in sorted((RESULTS / name).glob("*.json"))]

needs_records = pytest.mark.skipif(
    not TABLES, reason="no results of the published schedule are there yet"
)


def _alike(ours, theirs):
    """Whether two documents are the same, but for rounding of float32."""
    if isinstance(ours, float) and isinstance(theirs, float):
        return ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(
            _alike(ours[name], theirs[name]) for name in ours
        )
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    return ours == theirs


def _cells(path):
    """The cells of a CSV file, as numbers where they are numbers."""

    def cell(text):
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="") as stream:
        return [[cell(text) for text in row] for row in csv.reader(stream)]


@needs_records
@pytest.mark.parametrize(
    "path", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_tables_come_from_the_records(path, tmp_path):
    document = files.read_json(path)
    name = path.parent.name.partition("-")[0]
    module = importlib.import_module(f"experiments.tables.{name}")
    arguments = [f"--runs-dir={RECORDS}", f"--results-dir={tmp_path}"]
    for field, value in document["options"].items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            arguments += ["--" + field.replace("_", "-"), *map(str, values)]
    module.run(cli.parse(name, arguments))
    again = tmp_path / path.relative_to(RESULTS)
    ours, theirs = (one.with_suffix(".md").read_text() for one in (again, path))
    assert ours == theirs
    assert _alike(*(_cells(one.with_suffix(".csv")) for one in (again, path)))
    found = json.loads(again.read_text())
    del found["provenance"], document["provenance"]
    assert _alike(found, document)


@pytest.mark.skipif(
    not (RESULTS / "figure8").exists(), reason="there are no results of Figure 8 yet"
)
def test_figure8_comes_from_the_records(tmp_path):
    path = RESULTS / "figure8" / "mnist.json"
    document = files.read_json(path)
    seeds = map(str, document["seeds"])
    command = ["figure8", "--dataset=mnist", f"--runs-dir={RECORDS}"]
    assert cli.main([*command, f"--results-dir={tmp_path}", "--seeds", *seeds]) == 0
    again = tmp_path / path.relative_to(RESULTS)
    ours, theirs = (one.with_suffix(".md").read_text() for one in (again, path))
    assert ours == theirs
    found = files.read_json(again)
    del found["provenance"], document["provenance"]
    assert _alike(found, document)


@needs_records
def test_claims_come_from_the_records(tmp_path):
    for name in ("snc-readings", "figure8", "scaled"):
        if (RESULTS / name).exists():
            (tmp_path / name).symlink_to(RESULTS / name)
    assert (
        cli.main(["claims", f"--runs-dir={RECORDS}", f"--results-dir={tmp_path}"]) == 0
    )
    assert (tmp_path / "claims.md").read_text() == (RESULTS / "claims.md").read_text()
    found, theirs = (files.read_json(f / "claims.json") for f in (tmp_path, RESULTS))
    del found["provenance"], theirs["provenance"]
    assert _alike(found, theirs)
