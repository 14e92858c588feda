"""The statistics of claims, against SciPy and brute force, and the claims of tables."""

import doctest
import itertools
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.statistics import intervals, significance, verdicts
from experiments.statistics.intervals import (
    Interval,
    mean_interval,
    pooled_interval,
    prediction_interval,
)
from experiments.statistics.significance import holm, sign_flip_p_value
from experiments.statistics.verdicts import (
    Verdict,
    improvement_verdict,
    no_improvement_verdict,
)

units = st.lists(st.integers(-40, 40), min_size=1, max_size=6)
numbers = st.lists(st.floats(-100, 100), min_size=2, max_size=8)
quick = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("module", [intervals, significance, verdicts])
def test_examples(module):
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted > 0


def test_statistics_need_no_jax(pytestconfig):
    code = (
        "import sys; "
        "from experiments.statistics import intervals, significance, verdicts; "
        "sys.exit('jax' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=pytestconfig.rootpath).returncode == 0


def _brute_force(*data_sets):
    """The p value by its definition, in fractions."""

    def statistic(signs):
        signs = iter(signs)
        return abs(
            sum(
                Fraction(sum(value * next(signs) for value in values), len(values))
                for values in data_sets
            )
        )

    n = sum(map(len, data_sets))
    observed = statistic([1] * n)
    patterns = itertools.product((1, -1), repeat=n)
    return sum(statistic(signs) >= observed for signs in patterns) / 2**n


@quick
@given(st.lists(units, min_size=1, max_size=2))
def test_sign_flips_match_brute_force(data_sets):
    assert sign_flip_p_value(*data_sets) == _brute_force(*data_sets)


@pytest.mark.parametrize("sizes", [(8,), (5, 5), (3, 7)])
@pytest.mark.parametrize("shift", [0, 4, 12])
def test_sign_flips_match_scipy(sizes, shift):
    rng = np.random.default_rng(shift)
    data_sets = [rng.integers(-10, 11, size) + shift for size in sizes]
    scaled = np.concatenate([x * (np.lcm.reduce(sizes) // len(x)) for x in data_sets])
    expected = scipy.stats.permutation_test(
        (scaled, np.zeros_like(scaled)), lambda a, b: np.sum(a - b),
        permutation_type="samples", n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert sign_flip_p_value(*data_sets) == pytest.approx(expected, rel=1e-12)


@quick
@given(units, units, st.integers(1, 1000), st.randoms(use_true_random=False))
def test_sign_flips_know_neither_sign_order_nor_scale(first, second, scale, random):
    p_value = sign_flip_p_value(first, second)
    negated = [[-x for x in values] for values in (first, second)]
    scaled = [[scale * x for x in values] for values in (first, second)]
    assert sign_flip_p_value(*negated) == sign_flip_p_value(*scaled) == p_value
    assert sign_flip_p_value(second, first) == p_value
    random.shuffle(first)
    assert sign_flip_p_value(first, second) == p_value


def test_sign_flips_of_all_units_of_the_criteria():
    # Twenty units of one sign: two patterns of 2^20 are as extreme.
    assert sign_flip_p_value([1] * 10, [7] * 10) == 2**-19
    assert sign_flip_p_value([0] * 10, [0] * 10) == 1
    # A tie that floating point would miss: 0.1 + 0.2 > 0.3.
    assert sign_flip_p_value([1, 2, -3]) == 1


@pytest.mark.parametrize(
    "differences", [[1.0, 2.0], [0.5], [], [[1, 2]], [True], ["1"], [float("nan")]]
)
def test_what_is_no_integer_is_refused(differences):
    with pytest.raises(ValueError, match="`differences` must be integers"):
        sign_flip_p_value([1, 2], differences)


@pytest.mark.parametrize("data_sets", [(), ([1] * 20, [1] * 5)])
def test_too_many_units_or_none_are_refused(data_sets):
    with pytest.raises(ValueError, match="1 to 24 units"):
        sign_flip_p_value(*data_sets)


def test_holm_by_hand():
    # en.wikipedia.org/wiki/Holm-Bonferroni_method: H4 and H1 are rejected at 5 %, and
    # 0.03 > 0.05 / 2 stops there.
    found = holm({"H1": 0.01, "H2": 0.04, "H3": 0.03, "H4": 0.005})
    assert list(found) == ["H1", "H2", "H3", "H4"]
    adjusted = [claim.p_value for claim in found.values()]
    # 3 x 0.01, at least the 2 x 0.03 before it, 2 x 0.03, 4 x 0.005.
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [claim.is_significant for claim in found.values()] == [True, False, False, 1]
    assert holm({}) == {}
    assert holm({"one": 0.05})["one"].is_significant


@quick
@given(st.lists(st.integers(1, 1024), min_size=1, max_size=7))
def test_holm_steps_down(counts):
    p_values = {i: count / 1024 for i, count in enumerate(counts)}
    found = holm(p_values)
    rejected = set()
    for rank, i in enumerate(sorted(p_values, key=p_values.__getitem__)):
        if Fraction(counts[i], 1024) * (len(counts) - rank) > Fraction(1, 20):
            break
        rejected.add(i)
    assert {i for i, claim in found.items() if claim.is_significant} == rejected
    for i, claim in found.items():
        assert p_values[i] <= claim.p_value <= min(1, len(counts) * p_values[i])


@pytest.mark.parametrize("p_value", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_probability(p_value):
    with pytest.raises(ValueError, match="`p_values` must lie in"):
        holm({"claim": p_value})


@pytest.mark.parametrize("confidence", [0.90, 0.95, 0.9875])
@pytest.mark.parametrize(("n1", "n2"), [(10, 10), (5, 5), (2, 9)])
def test_intervals_match_scipy(n1, n2, confidence):
    rng = np.random.default_rng(n1)
    first, second = rng.normal(3, 1, n1), rng.normal(5, 4, n2)
    found = mean_interval(first, confidence)
    expected = scipy.stats.ttest_1samp(first, 0).confidence_interval(confidence)
    assert found == pytest.approx(tuple(expected))
    # The mean of two means is half of the difference of one and the other negated.
    welch = scipy.stats.ttest_ind(first, -second, equal_var=False)
    expected = np.array(welch.confidence_interval(confidence)) / 2
    assert pooled_interval(first, second, confidence) == pytest.approx(expected)


def test_prediction_interval_by_hand():
    # Mean 3, s^2 = 2.5; t of 99.375 % with 4 degrees of freedom.
    t = scipy.stats.t.ppf(0.99375, 4)
    margin = t * np.sqrt(2.5 * 6 / 5)
    found = prediction_interval([1, 2, 3, 4, 5])
    assert found == pytest.approx((3 - margin, 3 + margin))


def test_equal_differences_have_points_for_intervals():
    # Their floating-point mean is 0.10000000000000002.
    equal = [0.1] * 3
    assert mean_interval(equal) == prediction_interval(equal) == (0.1, 0.1)
    assert pooled_interval(equal, [0.3] * 5) == (0.2, 0.2)
    others = np.array([1.0, 2.0, 4.0])
    # The degrees of freedom are those of the data set that varies.
    expected = (np.array(mean_interval(others)) + 0.1) / 2
    assert pooled_interval(equal, others) == pytest.approx(expected)
    assert pooled_interval(others, equal) == pytest.approx(expected)


@quick
@given(numbers, numbers, st.sampled_from([0.5, 4.0]), st.floats(0.5, 0.99))
def test_intervals_scale_negate_and_widen(first, second, scale, confidence):
    for interval, data in (
        (mean_interval, (first,)),
        (prediction_interval, (first,)),
        (pooled_interval, (first, second)),
    ):
        found = interval(*data, confidence)
        scaled = interval(*(scale * np.array(x) for x in data), confidence)
        negated = interval(*(-np.array(x) for x in data), confidence)
        swapped = interval(*(x[::-1] for x in data), confidence)
        np.testing.assert_allclose(scaled, scale * np.array(found), 1e-9, 1e-12)
        assert (-negated.high, -negated.low) == found == swapped
        wider = interval(*data, 0.995)
        assert wider.low <= found.low <= found.high <= wider.high


def test_pooled_intervals_cover_the_mean():
    rng = np.random.default_rng(0)
    repetitions = 2000
    first = rng.normal(2.0, 1.0, (repetitions, 5))
    second = rng.normal(-1.0, 6.0, (repetitions, 8))
    found = [pooled_interval(*pair) for pair in zip(first, second, strict=True)]
    covered = np.mean([low <= 0.5 <= high for low, high in found])
    # Three binomial standard deviations of 95 % are 1.5 %.
    assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan], [1.0, np.inf], [[1, 2]]])
def test_intervals_refuse_what_has_no_spread(values):
    with pytest.raises(ValueError, match="`differences` must be at least two"):
        mean_interval(values)
    with pytest.raises(ValueError, match="`values` must be at least two"):
        prediction_interval(values)
    with pytest.raises(ValueError, match="`second` must be at least two"):
        pooled_interval([1.0, 2.0], values)


@pytest.mark.parametrize("confidence", [0, 1, 95, float("nan")])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="`confidence` must lie in"):
        mean_interval([1.0, 2.0], confidence)


# With d = 3; the 90 % interval lies within the one of 95 %.
@pytest.mark.parametrize(
    ("interval", "interval_90", "verdict"),
    [
        ((-2, -0.1), (-1.9, -0.2), Verdict.CONTRADICTED),
        ((-2, 0), (-1.9, -0.1), Verdict.EQUIVALENT),  # u = 0 is not below 0
        ((-4, 0), (-3.5, -0.5), Verdict.UNDECIDED),
        ((0.1, 2.9), (0.2, 2.8), Verdict.REPRODUCED_SMALL),
        ((0.1, 3), (0.2, 2.9), Verdict.REPRODUCED),  # u = d is not below d
        ((0.1, 9), (0.2, 8), Verdict.REPRODUCED),
        ((3.1, 9), (4, 8), Verdict.REPRODUCED),
        ((0, 2), (0.1, 1.9), Verdict.EQUIVALENT),  # l = 0 is not above 0
        ((0, 4), (0.5, 3.5), Verdict.UNDECIDED),
        ((-3.5, 3.5), (-2.9, 2.9), Verdict.EQUIVALENT),
        ((-3.5, 3.5), (-3, 2.9), Verdict.UNDECIDED),  # an end at -d
        ((-3.5, 3.5), (-2.9, 3), Verdict.UNDECIDED),  # an end at d
        ((0, 0), (0, 0), Verdict.EQUIVALENT),
    ],
)
def test_verdicts_on_improvements(interval, interval_90, verdict):
    arguments = Interval(*interval), Interval(*interval_90), 3
    assert improvement_verdict(*arguments) == verdict
    # Without significance nothing is reproduced, and the rest is as it was.
    insignificant = improvement_verdict(*arguments, is_significant=False)
    if verdict == Verdict.REPRODUCED_SMALL:
        assert insignificant == Verdict.EQUIVALENT
    elif verdict == Verdict.REPRODUCED:
        within = interval_90[1] < 3
        assert insignificant == (Verdict.EQUIVALENT if within else Verdict.UNDECIDED)
    else:
        assert insignificant == verdict


def test_with_no_smallest_difference_nothing_is_equivalent():
    assert improvement_verdict(Interval(0, 0), Interval(0, 0), 0) == "undecided"
    assert improvement_verdict(Interval(1, 2), Interval(1, 2), 0) == "reproduced"


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-9, -5), Verdict.REPRODUCED),
        ((-1, 0.9), Verdict.REPRODUCED),
        ((0.5, 0.9), Verdict.REPRODUCED),
        ((-1, 1), Verdict.UNDECIDED),  # u = d
        ((0.5, 2), Verdict.UNDECIDED),
        ((1, 2), Verdict.UNDECIDED),  # l = d
        ((1.1, 2), Verdict.CONTRADICTED),
    ],
)
def test_verdicts_on_claims_of_no_improvement(interval, verdict):
    assert no_improvement_verdict(Interval(*interval), 1) == verdict


@pytest.mark.parametrize("of_interest", [-1, float("nan")])
def test_a_smallest_difference_is_not_negative(of_interest):
    interval = Interval(0, 1)
    with pytest.raises(ValueError, match="`of_interest` must be at least 0"):
        improvement_verdict(interval, interval, of_interest)
    with pytest.raises(ValueError, match="`of_interest` must be at least 0"):
        no_improvement_verdict(interval, of_interest)


def test_verdicts_have_the_words_of_the_criteria(pytestconfig):
    criteria = (pytestconfig.rootpath / "results" / "CRITERIA.md").read_text()
    assert all(f"*{verdict}*" in criteria for verdict in Verdict)
