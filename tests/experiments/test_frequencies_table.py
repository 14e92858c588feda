"""The table of band filters, corruptions and Fourier noise, from given accuracies."""

import numpy as np
import pytest

from experiments.config import NONE, Setting
from experiments.options import ModelOptions, SweepOptions
from experiments.reporting.selection import Selected
from experiments.tables.frequencies import Frequencies, frequencies
from experiments.training.runs import Run

SETTINGS = (NONE, Setting("l1", 1e-4), Setting("absum", 0.01))
SEEDS = (3, 4, 5)
RNG = np.random.default_rng(0)
SIZES = len(SETTINGS), len(SEEDS)


def _fractions(*shape):
    return RNG.integers(0, 101, (*SIZES, *shape)) / 100


@pytest.fixture
def found():
    return Frequencies(
        bands=((0.0, 3.5), (3.5, 20.0)),
        passed=_fractions(2),
        stopped=_fractions(2),
        benchmark="mnist-c",
        corrupted=_fractions(7, 5),
        norm=2.5,
        noise=_fractions(6),
        clean=_fractions(),
    )


@pytest.fixture
def table(found, make_config, tmp_path):
    runs = {
        setting.method: [Run(tmp_path, make_config(setting, seed)) for seed in SEEDS]
        for setting in SETTINGS
    }
    methods = tuple(runs)
    options = SweepOptions(ModelOptions("mnist"), methods=methods, seeds=SEEDS)
    return frequencies(options, Selected(runs, []), found, 100)


def test_rows_are_means_over_seeds(table, found):
    expected = {
        "band_stop": found.stopped.mean(axis=2),
        "band_pass": found.passed.mean(axis=2),
        "corrupted": found.corrupted.mean(axis=(2, 3)),
        "noise_avg": found.noise.mean(axis=2),
        "noise_min": found.noise.min(axis=2),
        "clean": found.clean,
    }
    rows = table.content["rows"]
    assert [row["method"] for row in rows] == ["none", "l1", "absum"]
    for i, row in enumerate(rows):
        for name, values in expected.items():
            assert row[f"{name}_mean"] == pytest.approx(values[i].mean())
            assert row[f"{name}_std"] == pytest.approx(values[i].std(ddof=1))
    assert list(rows[0])[:2] == ["method", "strength"]
    parts = [f"{name}_{part}" for name in expected for part in ("mean", "std")]
    assert set(parts) < set(rows[0])


def test_markdown_has_each_band_and_kind(table, found):
    lines = table.markdown.splitlines()
    [bands] = [line for line in lines if "without 0 to 3.5" in line]
    assert [cell.strip() for cell in bands.strip("|").split("|")] == [
        "method", "without 0 to 3.5", "without 3.5 to 20", "only 0 to 3.5",
        "only 3.5 to 20",
    ]  # fmt: skip
    absum = lines[lines.index(bands) + 4]
    cells = [cell.strip() for cell in absum.strip("|").split("|")]
    assert cells[0] == "Absum"
    assert cells[3].startswith(f"{100 * found.passed[2, :, 0].mean():.2f} ±")
    [kinds] = [line for line in lines if "speckle noise" in line]
    plain = lines[lines.index(kinds) + 2]
    cells = [cell.strip() for cell in plain.strip("|").split("|")]
    assert cells[1].startswith(f"{100 * found.corrupted[0, :, 0].mean():.2f} ±")
    assert "severities of MNIST-C, but are not its published arrays" in table.markdown
    assert "noise of norm 2.5" in table.markdown


def test_claims_compare_methods_by_seed(table, found):
    claims = {claim["claim"]: claim for claim in table.content["claims"]}
    assert list(claims) == [
        "Absum above L1, Fourier noise",
        "Absum above L1, corrupted",
        "Absum above no regularization, corrupted",
    ]
    noise, corrupted = found.noise.mean(axis=2), found.corrupted.mean(axis=(2, 3))
    assert claims["Absum above L1, Fourier noise"]["differences"] == pytest.approx(
        noise[2] - noise[1]
    )
    assert "The paper's claims" not in table.markdown
    assert "Comparisons that the paper does not make" in table.markdown
    found_differences = claims["Absum above no regularization, corrupted"]
    assert found_differences["differences"] == pytest.approx(
        corrupted[2] - corrupted[0]
    )


def test_keys_of_the_document(table):
    """As in the files, which later versions read."""
    assert list(table.content) == [
        "title", "network", "dtype", "options", "test_images", "benchmark", "rows",
        "claims", "methods", "bands", "band_stop", "band_pass", "kinds", "corrupted",
        "noise_avg", "noise_min",
    ]  # fmt: skip
    assert table.content["options"]["norm"] == 2.5
    assert str(table.path) == "scaled/frequencies/mnist"
    assert table.title.startswith("Frequencies and corruptions, MNIST (scaled down: ")
