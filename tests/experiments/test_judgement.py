"""Verdicts by whole numbers of images, and the claims that they are about."""

import pathlib
import re

import numpy as np
import pytest
from fabricated import NOISE, exact_p

from experiments.claims import judgement
from experiments.claims.measurements import Measured, Sample
from experiments.claims.statements import PRIMARY, QUANTITIES, SAMPLES, SECONDARY
from experiments.options import ModelOptions, SweepOptions
from experiments.statistics.verdicts import Verdict

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _sample(name, quantity, whole, ours, theirs, larger, smaller, **changes):
    """A sample in which methods differ in one quantity."""
    options = SweepOptions(ModelOptions(name), **SAMPLES[name])
    measured = {
        other: Measured(np.zeros((10, len(options.methods)), int), whole)
        for other in QUANTITIES
    }
    parts, _ = measured[quantity]
    parts[:, options.methods.index(larger)] = ours
    parts[:, options.methods.index(smaller)] = theirs
    fields = {"seeds": options.seeds, "devices": frozenset({"cpu (cpu)"})} | changes
    return Sample(options, measured=measured, **fields)


def _verdict_of(sample, name, quantity, larger, smaller):
    [one] = [
        one
        for one in judgement.secondary(sample, "mnist")
        if (one.claim.name, one.quantity, one.larger, one.smaller)
        == (name, quantity, larger, smaller)
    ]
    return one.verdict


def test_verdicts_do_not_depend_on_rounding():
    # One to three images at 784 frequencies are 0.00 points, but more than none.
    own = [1, 2, 3, 2, 1, 2, 3, 2, 1, 2]
    sample = _sample("mnist", "mean", 7_840_000, own, [0] * 10, "absum", "l1")
    assert _verdict_of(sample, "S1", "mean", "absum", "l1") == Verdict.REPRODUCED_SMALL
    # 599 of 60,000 images are 1.00 points, but fewer than d, 600.
    sample = _sample("mnist", "pgd", 60_000, [599] * 10, [0] * 10, "absum", "none")
    assert _verdict_of(sample, "S16", "pgd", "absum", "none") == Verdict.REPRODUCED
    sample = _sample("mnist", "pgd", 60_000, [600] * 10, [0] * 10, "absum", "none")
    assert _verdict_of(sample, "S16", "pgd", "absum", "none") == Verdict.UNDECIDED
    # In floating point 0.9123 - 0.8823 is more than 0.03.
    sample = _sample(
        "mnist", "minimum", 10_000, [9123] * 10, [8823] * 10, "absum", "l1"
    )
    assert _verdict_of(sample, "S8", "minimum", "absum", "l1") == Verdict.REPRODUCED
    sample = _sample(
        "mnist", "minimum", 10_000, [9123] * 10, [8824] * 10, "absum", "l1"
    )
    assert (
        _verdict_of(sample, "S8", "minimum", "absum", "l1") == Verdict.REPRODUCED_SMALL
    )


@pytest.mark.parametrize("whole", [10_000, 20_000, 60_000, 80_000, 7_840_000])
@pytest.mark.parametrize("points", [1, 3])
def test_smallest_differences_are_whole_numbers_of_images(whole, points):
    of_interest = {
        100 * own.of_interest: own.of_interest for own in QUANTITIES.values()
    }
    assert of_interest[points] * whole == points * whole // 100


def test_primary_claims_need_one_kind_of_device():
    def samples(**changes):
        return {
            name: _sample(
                name, "minimum", 10_000, [9000 + n for n in NOISE], [8000] * 10,
                "absum", "l1", **own,
            )
            for name, own in zip(SAMPLES, ({}, changes), strict=True)
        }  # fmt: skip

    def p2(samples):
        [one] = [
            one for one in judgement.primary(samples, "snc") if one.claim.name == "P2"
        ]
        return one

    assert p2(samples()).verdict == Verdict.REPRODUCED
    mixed = p2(samples(devices=frozenset({"gpu (H100)"})))
    assert mixed.verdict is mixed.p_value is mixed.interval() is None
    assert mixed.reason == "there are several kinds of device: cpu (cpu), gpu (H100)"
    few = p2(samples(seeds=tuple(range(21, 30))))
    assert few.verdict is few.p_value is None
    assert few.reason == "9 of 10 seeds on Fashion-MNIST are complete"


def test_what_is_not_significant_is_not_reproduced():
    """One of six claims with p above 0.05 / 6, whose interval lies above 0."""
    ours = [10, 10, 10, 10, 10, 10, 10, 10, 10, -9]
    samples = {
        name: _sample(name, "minimum", 10_000, own, [0] * 10, "absum", "l1")
        for name, own in zip(SAMPLES, (ours, [-9, -9, 9, 0, 0, 0, 0, 0, 0, 0]),
                             strict=True)
    }  # fmt: skip
    [one] = [one for one in judgement.primary(samples, "snc") if one.claim.name == "P2"]
    first, second = (samples[name].difference("minimum", "absum", "l1").parts
                     for name in SAMPLES)  # fmt: skip
    assert one.p_value == exact_p([*first, *second])
    assert one.interval().low > 0
    assert one.adjusted_p_value == 6 * one.p_value > 0.05
    assert one.verdict == Verdict.EQUIVALENT


def test_claims_are_those_of_the_criteria():
    text = (ROOT / "results" / "CRITERIA.md").read_text()
    rows = re.findall(r"^\| (S\d+)\. (.*) \| [^|]* \| ([\d, ]+) \|$", text, re.M)
    assert [name for name, *_ in rows] == [claim.name for claim in SECONDARY]
    for claim, (_, said, d) in zip(SECONDARY, rows, strict=True):
        assert said.startswith(claim.text)
        points = [
            f"{100 * QUANTITIES[name].of_interest:g}" for name in claim.quantities
        ]
        assert ", ".join(points) == d
    rows = re.findall(r"^\| (P\d) \| (.*) \| (.*) \| (.*) \|$", text, re.M)
    assert len(rows) == 6
    short = {"Absum": "absum", "weight decay": "weight_decay", "L1": "l1",
             "no regularization": "none"}  # fmt: skip
    for claim, (name, quantity, larger, smaller) in zip(PRIMARY, rows, strict=True):
        assert claim.name == name
        assert quantity.replace("all ", "") == QUANTITIES[claim.quantities[0]].text
        forms = ("snc", "snc-numpy-axes")
        assert claim.larger == ((short[larger],) if larger in short else forms)
        assert claim.smaller == (short[smaller],)
    assert "MNIST with seeds 11 to 20, Fashion-MNIST with seeds 21 to 30" in (
        " ".join(text.split())
    )
