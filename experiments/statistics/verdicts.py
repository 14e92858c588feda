"""Verdicts on the paper's claims, as results/CRITERIA.md defines them.

`of_interest` is the smallest difference of interest, d, in the unit of the interval;
if it is negative, a `ValueError` is raised.
"""

import enum

from experiments.statistics.intervals import Interval

# Smallest differences of interest, as fractions of the images.
OF_INTEREST = 0.01
OF_INTEREST_MINIMUM_OR_TRANSFER = 0.03  # minima over frequencies, transferred PGD
# With fewer units, the variance of secondary claims is unknown.
FEWEST_UNITS = 3


class Verdict(enum.StrEnum):
    """The outcome of a test of a claim."""

    CONTRADICTED = "contradicted"
    REPRODUCED_SMALL = "reproduced, but by less than is of interest"
    REPRODUCED = "reproduced"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


def improvement_verdict(
    interval: Interval, interval_90: Interval, of_interest: float, *,
    is_significant: bool = True,
) -> Verdict:  # fmt: skip
    """Judges the claim "A is larger than B" by 95 and 90 % intervals of A - B.

    Returns:
      The first that holds: contradicted (the interval lies below 0); reproduced, but
      by less than is of interest (between 0 and d); reproduced (above 0), both only if
      a test agrees (`is_significant`); equivalent (the 90 % interval lies between -d
      and d); undecided. All comparisons are strict: an interval that ends exactly at 0
      lies neither above nor below it.

    Example:
      >>> print(improvement_verdict(Interval(2.0, 6.0), Interval(2.5, 5.5), 3.0))
      reproduced
      >>> print(improvement_verdict(Interval(-2.0, 2.0), Interval(-1.5, 1.5), 3.0))
      equivalent
    """
    _check(of_interest)
    low, high = interval
    if high < 0:
        return Verdict.CONTRADICTED
    if low > 0 and is_significant:
        return Verdict.REPRODUCED_SMALL if high < of_interest else Verdict.REPRODUCED
    if -of_interest < interval_90.low and interval_90.high < of_interest:
        return Verdict.EQUIVALENT
    return Verdict.UNDECIDED


def no_improvement_verdict(interval: Interval, of_interest: float) -> Verdict:
    """Judges the claim "A does not improve on B" by a 95 % interval of A - B.

    Returns:
      Reproduced if the interval lies below d, contradicted if it lies above d, and
      undecided otherwise. An end at d decides nothing.

    Example:
      >>> print(no_improvement_verdict(Interval(-4.0, 0.5), 1.0))
      reproduced
    """
    _check(of_interest)
    if interval.high < of_interest:
        return Verdict.REPRODUCED
    if interval.low > of_interest:
        return Verdict.CONTRADICTED
    return Verdict.UNDECIDED


def _check(of_interest: float) -> None:
    if not of_interest >= 0:
        raise ValueError(f"`of_interest` must be at least 0, got {of_interest}.")
