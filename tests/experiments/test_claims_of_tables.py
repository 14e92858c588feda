"""The claims below tables, against SciPy's paired t-test and by hand."""

import dataclasses

import numpy as np
import pytest
from markdown_tables import cells
from scipy.stats import ttest_rel

from experiments.config import Setting
from experiments.jobs import files
from experiments.options import ModelOptions, SweepOptions
from experiments.published import TABLE1
from experiments.reporting import comparisons
from experiments.reporting.comparisons import Comparison, Measured
from experiments.reporting.selection import Selected
from experiments.statistics.verdicts import Verdict
from experiments.tables.table2 import Transfer, table2
from experiments.tables.table3 import Filtered, table3
from experiments.training.runs import Run


def _claim(*differences, **changes):
    measured = {"": Measured(np.array(differences), 1)}
    fields = {"larger": "absum", "smaller": "l1", "differences": measured} | changes
    return Comparison(**fields)


@pytest.mark.parametrize("shift", [-0.02, -0.004, 0.0, 0.001, 0.004, 0.02])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_are_those_of_a_paired_t_test(shift, seeds):
    rng = np.random.default_rng(seeds)
    theirs = 0.9 + 0.01 * rng.normal(size=seeds)
    ours = theirs + shift + 0.004 * rng.normal(size=seeds)
    test = ttest_rel(ours, theirs)
    # With no difference of interest, the sign alone decides.
    claim = _claim(*(ours - theirs), of_interest=0)
    expected = Verdict.UNDECIDED
    if test.pvalue < 0.05:
        expected = Verdict.REPRODUCED if test.statistic > 0 else Verdict.CONTRADICTED
    assert claim.verdict == expected
    interval = test.confidence_interval(0.95)
    assert claim.interval() == pytest.approx(tuple(interval))
    assert claim.margin == pytest.approx((interval.high - interval.low) / 2)
    assert claim.interval(0.90) == pytest.approx(tuple(test.confidence_interval(0.90)))


def test_all_verdicts_occur():
    assert _claim(0.1, 0.11, 0.12).verdict == Verdict.REPRODUCED
    assert _claim(0.004, 0.005, 0.006).verdict == Verdict.REPRODUCED_SMALL
    assert _claim(-0.1, -0.11, -0.12).verdict == Verdict.CONTRADICTED
    assert _claim(0.001, -0.001, 0.002).verdict == Verdict.EQUIVALENT
    assert _claim(0.1, -0.1, 0.05).verdict == Verdict.UNDECIDED
    assert _claim(0.02, 0.021, 0.022, of_interest=0.03).verdict == (
        Verdict.REPRODUCED_SMALL
    )


def test_claims_of_no_improvement():
    assert _claim(-0.1, -0.11, -0.12, denies=True).verdict == Verdict.REPRODUCED
    assert _claim(0.1, 0.11, 0.12, denies=True).verdict == Verdict.CONTRADICTED
    assert _claim(0.1, -0.1, 0.05, denies=True).verdict == Verdict.UNDECIDED


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_give_no_verdict(seeds):
    claim = _claim(*(0.8,) * seeds)
    assert claim.verdict is None
    assert claim.margin is None
    plural = "1 seed" if seeds == 1 else "2 seeds"
    assert str(claim) == f"Absum above L1: no verdict (+80.00 points, d = 1, {plural})"
    assert claim.as_dict()["interval"] is None


def test_claims_as_text():
    many = _claim(0.1, 0.11, 0.12)
    intro, blank, line = comparisons.section([many])
    assert "95 % interval, unadjusted" in intro
    assert "mean difference over seeds" in intro
    assert blank == ""
    # t of 97.5 % with 2 degrees of freedom is 4.303; s = 1 point.
    assert line == "- Absum above L1: reproduced (+11.00 ± 2.48 points, d = 1, 3 seeds)"
    few = dataclasses.replace(_claim(0.1, 0.2), unit="pair of seeds")
    assert comparisons.section([few]) == [
        "No verdict on the paper's claims: give 3 pairs of seeds or more."
    ]
    assert str(few).endswith("2 pairs of seeds)")
    assert comparisons.section([]) == []


def test_comparisons_beyond_the_paper_are_not_called_its_claims():
    own, beyond = _claim(0.1, 0.11, 0.12), _claim(0.1, 0.11, 0.12, is_beyond=True)
    lines = comparisons.section([beyond])
    assert lines[0].startswith("Comparisons that the paper does not make, each by the")
    assert "paper's claims" not in "".join(lines)
    assert lines[2] == (
        "- Absum above L1: confirmed (+11.00 ± 2.48 points, d = 1, 3 seeds)"
    )
    assert comparisons.section([beyond, own]) == [
        *comparisons.section([own]), "", *lines,
    ]  # fmt: skip
    assert comparisons.section([_claim(0.1, is_beyond=True)]) == [
        "No verdict on other comparisons: give 3 seeds or more."
    ]
    # Files have the same keys and verdicts.
    assert beyond.as_dict() == own.as_dict()


def test_claims_as_plain_values(tmp_path):
    claim = _claim(0.02, 0.02, 0.02, of_interest=0.03, published=0.079)
    path = files.write_json(tmp_path / "claim.json", claim.as_dict())
    assert files.read_json(path) == {
        "claim": "Absum above L1",
        "verdict": "reproduced, but by less than is of interest",
        "differences": [0.02, 0.02, 0.02],
        "margin": 0.0,
        "interval": [0.02, 0.02],
        "interval_90": [0.02, 0.02],
        "smallest_difference_of_interest": 0.03,
        "unit": "seed",
        "published_difference": 0.079,
        "published_difference_is_small": False,
    }


def test_pairs_of_methods_that_are_there():
    accuracies = {"absum": [0.9, 0.8], "l1": [0.5, 0.6], "none": [0.1, 0.2]}
    found = comparisons.compare(
        accuracies, ["absum", "snc"], ["weight_decay", "l1"], "Avg."
    )
    assert [claim.text for claim in found] == ["Absum above L1, Avg."]
    assert found[0].as_dict()["differences"] == pytest.approx([0.4, 0.2])
    assert found[0].published is None
    [claim] = comparisons.compare(accuracies, ["absum"], ["none"], denies=True)
    assert claim.text == "Absum does not improve on no regularization"
    assert claim.parts[0] == pytest.approx([0.8, 0.6])


def test_published_differences_below_what_is_of_interest():
    # P, Table 1, Fashion-MNIST, Min.: 60.12, 47.57, 58.38, 55.36.
    published = {
        m: cells.min for m, cells in TABLE1["fashion_mnist", "small_cnn"].items()
    }
    accuracies = dict.fromkeys(published, (0.5, 0.5, 0.5))
    found = comparisons.compare(
        accuracies,
        comparisons.ROBUST,
        comparisons.STANDARD,
        of_interest=0.03,
        published=published,
    )
    assert [claim.published for claim in found] == [0.1255, 0.0174, 0.0779, -0.0302]
    assert [claim.published_is_small for claim in found] == [False, True, False, True]
    assert str(found[1]).endswith(
        "3 seeds; published difference below what is of interest: +1.74)"
    )
    assert "published" not in str(found[0])
    # At d exactly; in floating point 64.1 - 61.1 is below 3.
    [edge] = comparisons.compare(
        {"absum": (0.5,), "l1": (0.5,)}, ["absum"], ["l1"], of_interest=0.03,
        published={"absum": 64.1, "l1": 61.1},
    )  # fmt: skip
    assert not edge.published_is_small
    assert not dataclasses.replace(
        edge, of_interest=0.04, denies=True
    ).published_is_small


def test_smallest_differences_of_tables_2_and_3(make_config, tmp_path):
    runs = {
        method: [Run(tmp_path, make_config(Setting(method, 0.1), 0))]
        for method in ("l1", "snc")
    }
    options, selected = SweepOptions(ModelOptions("mnist")), Selected(runs, [])
    transfer = Transfer({"pgd": np.full((2, 2, 2), 0.5)}, np.full((2, 2), 0.9))
    filtered = Filtered((7.0,), *[np.full((2, 1, 1), 0.5)] * 2, np.full((2, 1), 0.9))
    found = [
        claim
        for table in (
            table2(options, selected, transfer, 100),
            table3(options, selected, filtered, 28, 100),
        )
        for claim in table.content["claims"]
    ]
    assert [claim["claim"] for claim in found] == [
        "SNC above L1",
        "SNC above L1, low-pass",
    ]
    assert [c["smallest_difference_of_interest"] for c in found] == [0.03, 0.01]
    # P, Table 2: 71.30 - 66.48; Table 3: 98.97 - 99.10.
    assert [claim["published_difference"] for claim in found] == [0.0482, -0.0013]
    assert [claim["published_difference_is_small"] for claim in found] == [False, True]


@pytest.fixture
def l1_and_snc(make_config, tmp_path):
    """Both methods with a seed each, as if they had been selected."""
    runs = {
        method: [Run(tmp_path, make_config(Setting(method, 0.1), 0))]
        for method in ("l1", "snc")
    }
    return Selected(runs, [])


def test_attacked_methods_are_rows_and_attacking_ones_columns(l1_and_snc):
    matrix = np.array([[0.1, 0.2], [0.3, 0.4]])  # (targets, substitutes)
    transfer = Transfer({"pgd": np.stack([matrix] * 2)}, np.full((2, 2), 0.9))
    options = SweepOptions(ModelOptions("mnist"))
    header, _, *rows = cells(table2(options, l1_and_snc, transfer, 100).appendix)
    assert header == ["attacked \\ attack made on", "L1", "SNC"]
    assert rows == [["L1", "10.00", "20.00"], ["SNC", "30.00", "40.00"]]


@pytest.mark.parametrize("pairs", [1, 2])
def test_the_note_says_whose_spread_each_column_has(l1_and_snc, pairs):
    seeds = 2 * pairs
    transfer = Transfer({"pgd": np.full((seeds, 2, 2), 0.5)}, np.full((seeds, 2), 0.9))
    note, *_ = table2(
        SweepOptions(ModelOptions("mnist")), l1_and_snc, transfer, 100
    ).notes
    # A single pair has no spread, but its two seeds do.
    assert ("over pairs" in note) == (pairs == 2)
    assert "over seeds" in note


def test_low_pass_claims_are_of_images_without_high_frequencies(l1_and_snc):
    low, high = (np.array(v).reshape(2, 1, 1) for v in ((0.5, 0.75), (0.2, 0.1)))
    filtered = Filtered((7.0,), low, high, np.full((2, 1), 0.9))
    options = SweepOptions(ModelOptions("mnist"))
    [claim] = table3(options, l1_and_snc, filtered, 28, 100).content["claims"]
    assert claim["differences"] == [0.25]
