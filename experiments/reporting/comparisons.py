"""Comparisons of methods, the paper's and others, judged by the spread over seeds.

Verdicts are those of secondary claims in results/CRITERIA.md.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.methods import METHODS, SNC_METHODS
from experiments.published import published_difference
from experiments.statistics.intervals import Interval, mean_interval, pooled_interval
from experiments.statistics.verdicts import (
    FEWEST_UNITS,
    OF_INTEREST,
    Verdict,
    improvement_verdict,
    no_improvement_verdict,
)

# In most tables of the paper the robust methods are above the standard ones.
ROBUST = ("absum", *SNC_METHODS)
STANDARD = ("weight_decay", "l1")
Unit = Literal["seed", "pair of seeds"]
_PLURALS: dict[Unit, str] = {"seed": "seeds", "pair of seeds": "pairs of seeds"}
_PAPERS, _OTHERS = "The paper's claims here", "Comparisons that the paper does not make"
_NO_VERDICT = "No verdict on"
# How what `section` returns begins.
OPENINGS = _PAPERS, _OTHERS, _NO_VERDICT


class Measured(NamedTuple):
    """A quantity, or differences of it, for each unit."""

    parts: np.ndarray  # integers, such as numbers of images; floats of power fractions
    whole: int  # the number of parts that is 100 %

    @property
    def mean(self) -> float | None:
        """Returns the mean over all units as a fraction; None without units."""
        return float(self.parts.mean()) / self.whole if self.parts.size else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A claim that one method is above another, or is no improvement."""

    larger: str
    smaller: str
    where: str = ""  # names the accuracy, where there are several
    differences: Mapping[str, Measured]  # by data set, paired by unit
    of_interest: float = OF_INTEREST  # smallest difference, a fraction
    denies: bool = False  # the claim is that `larger` does not improve on `smaller`
    published: float | None = None  # the difference in the paper, a fraction
    unit: Unit = "seed"
    obstacle: str = ""  # why there can be no verdict, however many units there are
    is_significant: bool = True  # by a test over all data sets, where there is one
    is_beyond: bool = False  # the paper does not compare this

    @property
    def text(self) -> str:
        """Returns the claim in words."""
        larger, smaller = METHODS[self.larger].label, METHODS[self.smaller].label
        relation = "does not improve on" if self.denies else "above"
        return f"{larger} {relation} {smaller}" + (self.where and f", {self.where}")

    @property
    def parts(self) -> list[np.ndarray]:
        """Returns the differences on each data set."""
        return [difference.parts for difference in self.differences.values()]

    @property
    def estimate(self) -> float | None:
        """Returns the mean of the mean differences, a fraction; None if one lacks."""
        means = [difference.mean for difference in self.differences.values()]
        known = [mean for mean in means if mean is not None]
        return sum(known) / len(known) if len(known) == len(means) else None

    @property
    def reason(self) -> str:
        """Returns why there is no verdict; empty if there is one."""
        is_few = min(map(len, self.parts)) < FEWEST_UNITS
        return self.obstacle or (f"fewer than {FEWEST_UNITS} units" if is_few else "")

    def _interval_and_whole(self, confidence: float) -> tuple[Interval, int]:
        """Computes the t interval of the mean, pooled if there are two data sets."""
        [whole] = {difference.whole for difference in self.differences.values()}
        first, *others = self.parts
        if not others:
            return mean_interval(first, confidence), whole
        [second] = others
        return pooled_interval(first, second, confidence), whole

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Computes the interval of the estimate, as fractions; None without verdict."""
        if self.reason:
            return None
        (low, high), whole = self._interval_and_whole(confidence)
        return Interval(low / whole, high / whole)

    @property
    def verdict(self) -> Verdict | None:
        """Returns the verdict, by exact numbers of images; None if `reason` has why."""
        if self.reason:
            return None
        interval, whole = self._interval_and_whole(0.95)
        of_interest = self.of_interest * whole
        if self.denies:
            return no_improvement_verdict(interval, of_interest)
        interval_90, _ = self._interval_and_whole(0.90)
        return improvement_verdict(
            interval, interval_90, of_interest, is_significant=self.is_significant
        )

    @property
    def published_is_small(self) -> bool:
        """Checks whether even an exact reproduction would be below `of_interest`.

        False where the paper has no numbers, and for claims of no improvement.
        """
        if self.published is None or self.denies:
            return False
        return self.published < self.of_interest

    @property
    def margin(self) -> float | None:
        """Returns half of the width of the 95 % interval; None where there is none."""
        interval = self.interval()
        return None if interval is None else (interval.high - interval.low) / 2

    def __str__(self) -> str:
        """Returns the claim, its verdict, and the difference in percentage points."""
        [parts] = self.parts
        mean = f"{100 * float(parts.mean()):+.2f}"
        spread = "" if self.margin is None else f" ± {100 * self.margin:.2f}"
        unit = self.unit if len(parts) == 1 else _PLURALS[self.unit]
        verdict = str(self.verdict or "no verdict")
        if self.is_beyond:
            verdict = verdict.replace("reproduced", "confirmed")
        small = ""
        if self.published is not None and self.published_is_small:
            small = (
                "; published difference below what is of interest: "
                f"{100 * self.published:+.2f}"
            )
        return (
            f"{self.text}: {verdict} ({mean}{spread} points, "
            f"d = {100 * self.of_interest:g}, {len(parts)} {unit}{small})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values, as fractions."""
        return {
            "claim": self.text,
            "verdict": self.verdict,
            "differences": self.parts[0].tolist(),
            "margin": self.margin,
            "interval": self.interval(),
            "interval_90": self.interval(0.90),
            "smallest_difference_of_interest": self.of_interest,
            "unit": self.unit,
            "published_difference": self.published,
            "published_difference_is_small": self.published_is_small,
        }


def compare(
    accuracies: Mapping[str, Iterable[float]],
    larger: Sequence[str],
    smaller: Sequence[str],
    where: str = "",
    *,
    published: Mapping[str, float] | None = None,
    **options: Any,
) -> list[Comparison]:
    """Compares each of some methods with each of others, as far as they are there.

    Accuracies of a method are a fraction for each unit; those that are published are in
    percent. The options are further fields of `Comparison`.
    """
    return [
        Comparison(
            larger=one,
            smaller=other,
            where=where,
            differences={
                "": Measured(np.subtract([*accuracies[one]], [*accuracies[other]]), 1)
            },
            published=published_difference(published or {}, one, other),
            **options,
        )
        for one in larger
        for other in smaller
        if one in accuracies and other in accuracies
    ]


def section(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns the comparisons as lines of Markdown, those of the paper first."""
    lines: list[str] = []
    for is_beyond, title, what in (
        (False, _PAPERS, "the paper's claims"),
        (True, _OTHERS, "other comparisons"),
    ):
        listed = [each for each in comparisons if each.is_beyond is is_beyond]
        if listed:
            lines += [""] if lines else []
            lines += _listed(listed, title, what)
    return lines


def _listed(comparisons: Sequence[Comparison], title: str, what: str) -> list[str]:
    units = _PLURALS[comparisons[0].unit]
    if comparisons[0].verdict is None:
        return [f"{_NO_VERDICT} {what}: give {FEWEST_UNITS} {units} or more."]
    intro = (
        f"{title}, each by the mean difference over {units} (95 % "
        "interval, unadjusted) and by d, the smallest difference of interest in points:"
    )
    return [intro, "", *(f"- {comparison}" for comparison in comparisons)]
