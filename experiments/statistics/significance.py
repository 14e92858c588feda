"""The exact sign-flip test, and Holm's correction for several claims."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Name = TypeVar("Name")

# All sign patterns are listed at once: 2^24 sums of eight bytes are 128 MiB.
_MOST_UNITS = 24


def sign_flip_p_value(*differences: Sequence[int] | np.ndarray) -> float:
    """Tests exactly whether paired differences are symmetric about zero.

    The statistic is the mean over data sets of their mean differences. The p value is
    the fraction of the 2^n sign patterns of all n units for which its absolute value
    is at least the observed one (two-sided; the observed pattern is one of them).
    Sums are computed with integers, so that ties are exact.

    Args:
      *differences: for each data set, one integer per unit, shape (units,): how many
        more images the one method classifies correctly than the other. All data sets
        have the same number of images.

    Example:
      >>> sign_flip_p_value([3, 5, 4, 1, 2])  # only all signs + or all signs -
      0.0625
      >>> sign_flip_p_value([1, 2, 0], [1, -1])
      0.5

    Source: Fisher, *The Design of Experiments*, section 21, 1935.
    """
    counts = [_integers(each) for each in differences]
    units = sum(map(len, counts))
    if not 1 <= units <= _MOST_UNITS:
        raise ValueError(
            f"`differences` must have 1 to {_MOST_UNITS} units in all, got {units}."
        )
    # Weights that make the weighted sum a multiple of the mean of means.
    multiple = math.lcm(*map(len, counts))
    sums = np.zeros(1, np.int64)
    for each in counts:
        for count in each:
            weighted = count * (multiple // len(each))
            sums = np.concatenate([sums + weighted, sums - weighted])
    observed = abs(sums[0])
    return int(np.count_nonzero(abs(sums) >= observed)) / len(sums)


def _integers(differences: Sequence[int] | np.ndarray) -> list[int]:
    array = np.asarray(differences)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            "`differences` must be integers of shape (units,), at least one, "
            f"got {differences!r}."
        )
    return array.tolist()


class Corrected(NamedTuple):
    """A claim after a correction for multiple tests."""

    p_value: float  # adjusted: the smallest level at which the claim is significant
    is_significant: bool


def holm(p_values: Mapping[Name, float], level: float = 0.05) -> dict[Name, Corrected]:
    """Corrects p values for testing several claims, by Holm's step-down procedure.

    The probability of calling any true null hypothesis significant is at most `level`,
    however the claims depend on each other.

    Args:
      p_values: of each claim, in [0, 1], before the correction. A claim that could not
        be tested counts as 1: the number of claims stays what was planned.
      level: the probability of any false positive, in (0, 1).

    Example:
      >>> for name, claim in holm({"A": 0.01, "B": 0.04, "C": 0.03}).items():
      ...     print(name, f"{claim.p_value:.2f}", claim.is_significant)
      A 0.03 True
      B 0.06 False
      C 0.06 False

    Source: Holm, 1979, https://www.jstor.org/stable/4615733.
    """
    for name, p_value in p_values.items():
        if not 0 <= p_value <= 1:
            raise ValueError(
                f"`p_values` must lie in [0, 1], got {p_value} for {name!r}."
            )
    adjusted: dict[Name, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {
        name: Corrected(adjusted[name], adjusted[name] <= level) for name in p_values
    }
