"""Verdicts on claims, against SciPy's paired t-test."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from experiments.tables import claims
from experiments.tables.claims import Claim


@pytest.mark.parametrize("shift", [-0.02, -0.004, 0.0, 0.001, 0.004, 0.02])
@pytest.mark.parametrize("seeds", [3, 5])
def test_verdicts_are_those_of_a_paired_t_test(shift, seeds):
    rng = np.random.default_rng(seeds)
    theirs = 0.9 + 0.01 * rng.normal(size=seeds)
    ours = theirs + shift + 0.004 * rng.normal(size=seeds)
    test = ttest_rel(ours, theirs)
    expected = "undecided"
    if test.pvalue < 0.05:
        expected = "reproduced" if test.statistic > 0 else "not reproduced"
    claim = Claim("A above B", tuple(ours), tuple(theirs))
    assert claim.verdict == expected
    interval = test.confidence_interval(0.95)
    assert claim.margin == pytest.approx((interval.high - interval.low) / 2)


def test_all_verdicts_occur():
    def verdict(*differences):
        return Claim("", differences, (0.0,) * len(differences)).verdict

    assert verdict(0.1, 0.11, 0.12) == "reproduced"
    assert verdict(-0.1, -0.11, -0.12) == "not reproduced"
    assert verdict(0.1, -0.1, 0.05) == "undecided"


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_decide_nothing(seeds):
    claim = Claim("A above B", (0.9,) * seeds, (0.1,) * seeds)
    assert claim.verdict == "undecided"
    plural = "1 seed" if seeds == 1 else "2 seeds"
    assert str(claim) == f"A above B: undecided (+80.00 points, {plural})"


def test_claims_as_text():
    many = Claim("A above B", (0.9, 0.8, 0.85), (0.1, 0.2, 0.1))
    intro, blank, line = claims.section([many])
    assert "95 % interval" in intro
    assert blank == ""
    assert line == f"- {many}"
    few = Claim("A above B", (0.9, 0.8), (0.1, 0.2))
    assert claims.section([few]) == [
        "The paper's claims are undecided: give 3 seeds or more."
    ]
    assert claims.section([]) == []


def test_pairs_of_methods_that_are_there():
    accuracies = {"absum": [0.9, 0.8], "l1": [0.5, 0.6], "none": [0.1, 0.2]}
    found = claims.above(accuracies, ["absum", "snc"], ["weight_decay", "l1"], "Avg.")
    assert [claim.text for claim in found] == ["Absum above L1, Avg."]
    assert found[0].as_dict()["differences"] == pytest.approx([0.4, 0.2])
