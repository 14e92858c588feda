"""Table 1: selection, statistics, and what is printed and written."""

import csv
import dataclasses

import numpy as np
import pytest
from scipy.stats import binomtest

import absum_jax
from absum_jax.markdown import aligned
from experiments.config import NONE, Setting
from experiments.evaluation.single_fourier import Robustness
from experiments.jobs import files
from experiments.methods import METHODS
from experiments.options import ModelOptions, SweepOptions
from experiments.published import TABLE1, TABLE1_TOP5, Published
from experiments.reporting import naming
from experiments.reporting.columns import Column
from experiments.reporting.evaluated import SingleFourierModel
from experiments.reporting.plots import strength
from experiments.reporting.selection import select
from experiments.statistics.summary import Statistic
from experiments.tables import table1 as table_module
from experiments.tables.table1 import table1
from experiments.training.runs import Run


@pytest.fixture
def model(make_config, tmp_path):
    """Makes a model with a grid of given mean and minimum."""

    def make(
        method, strength, seed, avg, minimum, classes=10, selection=None, diverged_at=0
    ):
        def robustness(mean):
            grid = np.full((28, 28), (784 * mean - minimum) / 783)
            grid[1, 0] = minimum
            return Robustness(1000, 0.99, classes, grid)

        run = Run(tmp_path, make_config(Setting(method, strength), seed))
        run.begin(0)
        run.log(1, 2.0, 0.1)
        run.log(2, 0.5, 0.1)
        run.log(3, float("nan"), 0.1, diverged_at)
        score = avg if selection is None else selection
        return SingleFourierModel(run, robustness(avg), score)

    return make


def test_the_strength_with_the_best_mean_over_seeds_is_chosen(model):
    models = [
        model("l1", 0.1, 0, 0.95, 0.5),
        model("l1", 0.1, 1, 0.60, 0.5),
        model("l1", 0.01, 0, 0.80, 0.2),
        model("l1", 0.01, 1, 0.82, 0.2),
        model("none", 0.0, 0, 0.5, 0.1),
    ]
    selected, degenerate = select(models, METHODS)
    assert selected == {NONE: models[4:], Setting("l1", 0.01): models[2:4]}
    assert next(iter(selected)) == NONE
    assert degenerate == []


def test_a_strength_with_a_model_of_one_class_is_left_out(model):
    models = [
        model("l1", 10.0, 0, 0.99, 0.9, classes=1),
        model("l1", 10.0, 1, 0.99, 0.9),
        model("l1", 0.1, 0, 0.5, 0.1),
        model("absum", 10.0, 0, 0.2, 0.1, classes=1),
        model("l1", 1.0, 0, 0.99, 0.9, diverged_at=7),
    ]
    selected, degenerate = select(models, METHODS)
    assert selected == {Setting("l1", 0.1): models[2:3]}
    assert degenerate == [models[0], models[3], models[4]]
    text = table1(SweepOptions(), models).markdown
    named = "Absum 10 (seed 0), L1 1 (seed 0), L1 10 (seed 0)"
    assert f"Left out, as they answer one class or diverged: {named}." in text
    assert models[4].as_dict()["diverged"]


def test_validation_chooses_and_test_is_reported(model):
    models = [
        model("absum", 0.1, 0, 0.9, 0.5, selection=0.6),
        model("absum", 0.2, 0, 0.7, 0.4, selection=0.8),
    ]
    table = table1(SweepOptions(methods=("absum",), select_on="validation"), models)
    assert table.content["rows"][0]["strength"] == 0.2
    assert table.content["rows"][0]["avg_mean"] == pytest.approx(0.7)
    assert "best Avg. on the validation images" in table.markdown
    assert table.path.name == "mnist5k-validation"


@pytest.mark.parametrize(
    ("successes", "images"), [(0, 10), (7, 10), (10, 10), (981, 1000)]
)
def test_wilson_interval_matches_scipy(successes, images):
    expected = binomtest(successes, images).proportion_ci(0.95, method="wilson")
    # scipy's z is 1.95996...
    assert absum_jax.wilson_interval(successes / images, images) == pytest.approx(
        expected, abs=1e-4
    )


def test_statistic():
    statistic = Statistic.of([0.5, 0.7], 100)
    assert statistic.mean == pytest.approx(0.6)
    assert statistic.std == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert str(statistic) == "60.00 ± 14.14"
    assert str(Statistic.of([0.98764], 100)) == "98.76"
    assert Statistic.of([0.5], 100).std is None


def test_markdown_lines_up():
    lines = aligned(("a", "b"), [("x", "1.0"), ("long", "22.00")])
    assert lines == ["| a    |     b |", "| ---- | ----: |", "| x    |   1.0 |",
                     "| long | 22.00 |"]  # fmt: skip


def test_published_numbers_stand_beside(model, tmp_path):
    models = [
        model("none", 0.0, 0, 0.95, 0.8),
        model("absum", 0.01, 0, 0.98, 0.9),
        model("l1", 10.0, 0, 0.1, 0.1, classes=1),
    ]
    options = SweepOptions(ModelOptions("mnist"))
    table = table1(options, models)
    text = table.markdown
    assert text.startswith("## Table 1, MNIST\n")
    absum = next(line for line in text.splitlines() if line.startswith("| Absum"))
    for cell in ("98.00 (98.64)", "90.00 (94.76)", "99.00 (99.14)", "0.01 (0.01)"):
        assert cell in absum
    none = next(line for line in text.splitlines() if line.startswith("| no reg"))
    assert "(" not in none
    assert "Left out, as they answer one class or diverged: L1 10 (seed 0)." in text

    json_path, csv_path, md_path = table.print_and_write(tmp_path)
    assert json_path == tmp_path / "table1" / "mnist.json"
    document = files.read_json(json_path)
    assert document["rows"][1]["avg_mean"] == pytest.approx(0.98)
    assert document["rows"][1]["paper_avg"] == 98.64
    assert [own["answers_one_class"] for own in document["models"]] == [0, 0, 1]
    assert document["models"][0]["lowest_train_loss"] == 0.5
    assert document["models"][0]["worst"] == [1, 0]
    assert document["provenance"]["device"]
    with csv_path.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == ["none", "absum"]
    assert float(rows[1]["min_mean"]) == pytest.approx(0.9)
    assert md_path.read_text() == text + "\n"


def test_claims_have_smallest_differences_of_interest(model):
    models = [
        model(method, strength, seed, avg + seed / 1000, minimum + seed / 1000)
        for method, strength, avg, minimum in (
            ("absum", 0.01, 0.95, 0.92), ("l1", 1e-4, 0.93, 0.90)
        )
        for seed in range(3)
    ]  # fmt: skip
    options = SweepOptions(
        ModelOptions("mnist"), methods=("absum", "l1"), seeds=(0, 1, 2)
    )
    table = table1(options, models)
    keys = ("claim", "verdict", "smallest_difference_of_interest")
    assert [tuple(claim[key] for key in keys) for claim in table.content["claims"]] == [
        ("Absum above L1, Avg.", "reproduced", 0.01),
        ("Absum above L1, Min.", "reproduced, but by less than is of interest", 0.03),
    ]
    # P, Table 1: 98.64 - 98.48, and 94.76 - 78.01.
    published = [claim["published_difference"] for claim in table.content["claims"]]
    assert published == [0.0016, 0.1675]
    assert (
        "- Absum above L1, Avg.: reproduced (+2.00 ± 0.00 points, d = 1, 3 seeds; "
        "published difference below what is of interest: +0.16)\n"
    ) in table.markdown


def test_top_1_and_top_5_of_imagenet_side_by_side(make_config, tmp_path):
    def model(method, strength, avg):
        def robustness(mean, minimum, clean, top5=None):
            grid = np.full((32, 32), (1024 * mean - minimum) / 1023)
            grid[3, 1] = minimum
            return Robustness(50_000, clean, 990, grid, top5=top5)

        run = Run(tmp_path, make_config(Setting(method, strength)))
        run.begin(0)
        run.log(1, 2.0, 0.1)
        top5 = robustness(avg + 0.3, 0.2, 0.85)
        test = robustness(avg, 0.1, 0.6, top5)
        return SingleFourierModel(run, test, avg)

    models = [
        model("none", 0.0, 0.2), model("absum", 0.01, 0.25),
        model("absum", 0.1, 0.15), model("snc", 1.0, 0.5),
    ]  # fmt: skip
    options = SweepOptions(
        ModelOptions("imagenet2012"), methods=("none", "absum", "snc")
    )
    table = table1(options, models)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.markdown.splitlines()
        if line.startswith("|")
    ]
    assert rows[0] == [
        "method", "Top-1 Avg.", "Top-1 Min.", "Top-1 CLN",
        "Top-5 Avg.", "Top-5 Min.", "Top-5 CLN", "lambda / sigma",
    ]  # fmt: skip
    # P, Table 1: N/A stands for SNC, and nothing for no regularization.
    assert rows[2:] == [
        ["no regularization", "20.00", "10.00", "60.00", "50.00", "20.00", "85.00", ""],
        ["Absum", "25.00 (26.59)", "10.00 (15.06)", "60.00 (58.51)",
         "55.00 (48.51)", "20.00 (31.29)", "85.00 (81.17)", "0.01 (0.01)"],
        ["SNC", "50.00 (N/A)", "10.00 (N/A)", "60.00 (N/A)",
         "80.00 (N/A)", "20.00 (N/A)", "85.00 (N/A)", "1 (N/A)"],
    ]  # fmt: skip
    assert "best Top-1 Avg. on the test images" in table.markdown
    assert "over 1,024 frequencies, l and m below 32, and" in table.markdown
    assert "largest logit (Top-1) and of the five largest (Top-5)" in table.markdown
    absum = table.content["rows"][1]
    assert absum["top5_avg_mean"] == pytest.approx(0.55)
    assert (absum["paper_avg"], absum["paper_top5_avg"]) == (26.59, 48.51)
    assert table.content["rows"][2]["paper_top5_clean"] is None
    model = table.content["models"][1]
    assert model["top5"]["min"] == pytest.approx(0.2)
    assert model["top5"]["worst"] == [3, 1]
    (ax, *_) = strength.figure4(models).axes
    assert ax.get_ylabel() == "Top-1 accuracy under attack (%)"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"models": ModelOptions("mnist", epochs=2)}, "2 of 100 epochs"),
        (
            {"models": ModelOptions("mnist", train_examples=500)},
            "500 training images",
        ),
        ({"test_examples": 50}, "50 test images"),
        ({"frequency_stride": 2}, "one in 2 of l and m"),
        ({"models": ModelOptions("mnist5k")}, "a small data set"),
        ({"methods": ("none", "l1")}, "without weight decay, Absum"),
        ({"strengths": (0.1, 0.01)}, "2 strengths"),
        ({"max_norms": (0.1, 0.01)}, "2 bounds of SNC"),
        ({"max_norms": (0.1,)}, "1 bound of SNC"),
    ],
)
def test_a_smaller_run_says_so_and_lies_apart(model, changes, part):
    options = dataclasses.replace(SweepOptions(ModelOptions("mnist")), **changes)
    table = table1(options, [model("none", 0.0, 0, 0.95, 0.8)])
    assert f"scaled down: {part}" in table.title
    assert table.path.parts[0] == "scaled"


@pytest.mark.parametrize(
    ("models", "changes", "methods"),
    [
        # Steps of 64 images, and the first clip after 100.
        (ModelOptions("mnist5k", epochs=1), {}, "SNC"),
        (ModelOptions("mnist5k", epochs=1, batch_size=40), {}, None),
        (ModelOptions("mnist5k", epochs=1, batch_size=40), {"select_on": "validation"},
         "SNC"),
        (ModelOptions("mnist", epochs=1), {}, None),
        (ModelOptions("mnist", epochs=1, train_examples=6399), {}, "SNC"),
        (ModelOptions("mnist", epochs=1, train_examples=6400), {}, None),
        (ModelOptions("mnist5k", epochs=1), {"methods": ("none", "absum")}, None),
        (ModelOptions("mnist5k", epochs=1),
         {"methods": ("snc-numpy-axes", "snc")}, "SNC, NumPy's axes and SNC"),
        # Batch normalization: no clip in the last 50 steps, of 128 images.
        (ModelOptions("cifar10", epochs=1, train_examples=128 * 149), {}, "SNC"),
        (ModelOptions("cifar10", epochs=1, train_examples=128 * 150), {}, None),
    ],
)  # fmt: skip
def test_methods_that_are_never_applied_are_named(models, changes, methods):
    parts = naming.scale(SweepOptions(models, **changes))
    named = [part for part in parts if part.startswith("no clip of ")]
    assert named == ([] if methods is None else [f"no clip of {methods}"])


def test_imagenet_without_snc_is_the_papers():
    options = SweepOptions(
        ModelOptions("imagenet2012"), methods=("none", "absum", "weight_decay", "l1")
    )
    assert naming.scale(options) == []
    fewer = dataclasses.replace(options, methods=("absum", "l1"))
    assert naming.scale(fewer) == ["without no regularization, weight decay"]
    cifar10 = dataclasses.replace(options, models=ModelOptions("cifar10"))
    assert naming.scale(cifar10) == ["without SNC"]


def test_published_numbers_are_the_papers():
    # Read off P, Table 1, a second time, row by row: Avg., Min., CLN of Absum, WD, L1
    # and SNC, and the selected strengths.
    rows = """\
    98.64 98.59 98.48 98.55 94.76 86.84 78.01 91.79 99.14 99.10 99.18 99.10 -2 -3 -4 1
    83.11 83.09 82.49 82.60 60.12 47.57 58.38 55.36 88.46 86.99 87.05 87.50 -3 -2 -3 1
    79.05 69.09 66.44 85.57 53.90 11.44 15.64 73.99 89.69 94.73 93.41 88.37 -1 -4 -6 .5
    75.77 73.47 73.53 86.42 47.27 35.64 38.12 78.26 92.26 92.83 93.34 89.54 -3 -3 -4 -1
    70.48 64.07 65.30 83.71 15.09 18.53 16.80 70.26 92.72 94.31 94.00 85.26 -3 -5 -7 -1
    48.69 42.97 38.99 60.42 16.32 5.23 9.84 45.05 68.72 67.05 71.68 62.76 -3 -6 -7 0
    93.34 91.74 91.14 93.20 73.69 60.36 57.52 62.90 95.93 96.37 96.20 95.42 -3 -3 -7 -1
    26.59 9.92 5.18 nan 15.06 4.39 1.01 nan 58.51 70.70 64.63 nan -2 -4 -4 nan
    48.51 20.15 12.29 nan 31.29 10.64 3.08 nan 81.17 89.71 85.79 nan -2 -4 -4 nan
""".splitlines()
    tables = [*TABLE1.values(), *TABLE1_TOP5.values()]
    assert list(TABLE1)[-1:] == list(TABLE1_TOP5) == [("imagenet2012", "resnet18_224")]
    for row, published in zip(rows, tables, strict=True):
        *accuracies, absum, decay, l1, snc = map(float, row.split())
        methods = [
            published.get(m, Published(*[np.nan] * 4))
            for m in ("absum", "weight_decay", "l1", "snc")
        ]
        columns = [(cell.avg, cell.min, cell.clean) for cell in methods]
        np.testing.assert_array_equal(np.transpose(columns).ravel(), accuracies)
        bound = snc if snc == 0.5 else 10**snc
        strengths = [cell.strength for cell in methods]
        expected = [10**absum, 10**decay, 10**l1, bound]
        np.testing.assert_allclose(strengths, expected)


def test_a_column_is_added_in_one_place(model, monkeypatch, tmp_path):
    models = [
        model("none", 0.0, 0, 0.5, 0.25),
        model("absum", 0.01, 0, 0.75, 0.5),
        model("absum", 0.01, 1, 1.0, 0.5),
    ]

    def write():
        options = SweepOptions(ModelOptions("mnist"), seeds=(0, 1))
        return table_module.table1(options, models).print_and_write(tmp_path)

    def read(paths):
        document = files.read_json(paths[0])
        with paths[1].open() as stream:
            rows = list(csv.DictReader(stream))
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in paths[2].read_text().splitlines()
            if line.startswith("|")
        ]
        return document["rows"], rows, [lines[0], *lines[2:]]

    before = read(write())
    first = Column(
        "first",
        "first seed",
        lambda row: [float(test.frequencies.mean) for test in row.results][:1],
        lambda row: row.published_value(lambda cells: cells.clean),
    )
    seeds = Column("seeds", "seeds", lambda row: len(row.results), outputs=("csv",))
    monkeypatch.setattr(table_module, "COLUMNS", [*table_module.COLUMNS, first, seeds])
    json_rows, csv_rows, lines = read(write())
    place = lines[0].index("first seed")
    assert [line.pop(place) for line in lines] == [
        "first seed", "50.00", "75.00 (99.14)",
    ]  # fmt: skip
    for rows in (json_rows, csv_rows):
        found = [(float(row.pop("first_mean")), row.pop("paper_first")) for row in rows]
        assert [mean for mean, _ in found] == pytest.approx([0.5, 0.75])
        assert found[1][1] in (99.14, "99.14")
        for row in rows:
            for name in ("std", "low", "high"):
                row.pop(f"first_{name}")
    assert [row.pop("seeds") for row in csv_rows] == ["1", "2"]
    # Nothing else changes.
    assert (json_rows, csv_rows, lines) == before
