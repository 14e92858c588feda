"""Student's t intervals: of a mean, of the mean of two means, and of one more run.

Each function takes values of shape (n,), one per unit or run, and a confidence in
(0, 1), and returns the interval in the unit of the values. It raises a `ValueError` for
fewer than two values, a value that is not finite, or another confidence. Means and
variances are computed exactly and rounded once (`statistics`), so that equal values
have a variance of exactly zero, and their interval is a point.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

Values = Sequence[float] | np.ndarray


class Interval(NamedTuple):
    """The two ends of an interval, in the unit of the values."""

    low: float
    high: float


def mean_interval(differences: Values, confidence: float = 0.95) -> Interval:
    """Computes the t interval of a mean, such as that of paired differences.

    Example:
      >>> low, high = mean_interval([1.0, 2.0, 3.0])
      >>> print(f"{low:.2f} to {high:.2f}")
      -0.48 to 4.48

    Source: Student, 1908, https://doi.org/10.1093/biomet/6.1.1.
    """
    n, mean, variance = _moments("differences", differences)
    return _interval(mean, variance / n, n - 1, confidence)


def pooled_interval(
    first: Values, second: Values, confidence: float = 0.95
) -> Interval:
    """Computes the interval of the mean of two data sets' mean paired differences.

    It is (m1 + m2) / 2 ± t sqrt(s1^2 / n1 + s2^2 / n2) / 2 with Welch's degrees of
    freedom. If the differences of one data set are all equal, these are n - 1 of the
    other one; if those of both are, the interval is a point.

    Example:
      >>> low, high = pooled_interval([1.0, 2.0, 3.0], [4.0, 4.0])
      >>> print(f"{low:.2f} to {high:.2f}")
      1.76 to 4.24

    Source: Welch, 1947, https://doi.org/10.1093/biomet/34.1-2.28.
    """
    n1, mean1, variance1 = _moments("first", first)
    n2, mean2, variance2 = _moments("second", second)
    error1, error2 = variance1 / n1, variance2 / n2
    mean, error = (mean1 + mean2) / 2, error1 + error2
    if error == 0:
        # With any degrees of freedom the interval is a point.
        return _interval(mean, 0.0, n1 + n2 - 2, confidence)
    fraction1, fraction2 = error1 / error, error2 / error
    freedom = 1 / (fraction1**2 / (n1 - 1) + fraction2**2 / (n2 - 1))
    return _interval(mean, error / 4, freedom, confidence)


def prediction_interval(values: Values, confidence: float = 0.9875) -> Interval:
    """Computes the interval in which one more run lies: mean ± t s sqrt(1 + 1/n).

    A confidence of 98.75 % is 95 % for four intervals together (Bonferroni).

    Example:
      >>> low, high = prediction_interval([1.0, 2.0, 3.0], 0.95)
      >>> print(f"{low:.2f} to {high:.2f}")
      -2.97 to 6.97

    Source: Hahn and Meeker, *Statistical Intervals*, chapter 4, 1991.
    """
    n, mean, variance = _moments("values", values)
    return _interval(mean, variance * (1 + 1 / n), n - 1, confidence)


def _moments(argument: str, values: Values) -> tuple[int, float, float]:
    """Returns number, mean and variance (ddof = 1)."""
    array = np.asarray(values, float)
    if array.ndim != 1 or array.size < 2 or not np.isfinite(array).all():
        raise ValueError(
            f"`{argument}` must be at least two finite numbers of shape (n,), "
            f"got {values!r}."
        )
    numbers = array.tolist()
    return len(numbers), statistics.mean(numbers), statistics.variance(numbers)


def _interval(
    mean: float, squared_error: float, freedom: float, confidence: float
) -> Interval:
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie in (0, 1), got {confidence}.")
    margin = float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(squared_error)
    return Interval(mean - margin, mean + margin)
