"""Comparisons of methods that the paper makes, judged by the spread over seeds.

Verdicts are those of secondary claims in results/CRITERIA.md.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from experiments.methods import METHODS, SNC_METHODS
from experiments.published import published_difference
from experiments.statistics.intervals import Interval, mean_interval
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


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A claim that one accuracy is larger than another, or not; paired by unit."""

    text: str
    larger: tuple[float, ...]  # a fraction for each unit
    smaller: tuple[float, ...]
    of_interest: float = OF_INTEREST  # smallest difference, a fraction
    denies: bool = False  # the claim is that `larger` does not improve on `smaller`
    published: float | None = None  # the difference in the paper, a fraction
    unit: Unit = "seed"

    @property
    def differences(self) -> np.ndarray:
        """The differences larger - smaller, unit by unit, as fractions."""
        return np.subtract(self.larger, self.smaller)

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Computes the paired t interval of the mean difference, as fractions.

        None for fewer than three units, which tell too little about the spread.
        """
        if len(self.differences) < FEWEST_UNITS:
            return None
        return mean_interval(self.differences, confidence)

    @property
    def margin(self) -> float | None:
        """Half of the width of the 95 % interval; None where there is none."""
        interval = self.interval()
        return None if interval is None else (interval.high - interval.low) / 2

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, by unadjusted intervals; None for fewer than three units."""
        interval, interval_90 = self.interval(), self.interval(0.90)
        if interval is None or interval_90 is None:
            return None
        if self.denies:
            return no_improvement_verdict(interval, self.of_interest)
        return improvement_verdict(interval, interval_90, self.of_interest)

    @property
    def published_is_small(self) -> bool:
        """Whether even an exact reproduction would be below what is of interest.

        False where the paper has no numbers, and for claims of no improvement.
        """
        if self.published is None or self.denies:
            return False
        return self.published < self.of_interest

    def __str__(self) -> str:
        """Returns the claim, its verdict, and the difference in percentage points."""
        mean = f"{100 * float(self.differences.mean()):+.2f}"
        spread = "" if self.margin is None else f" ± {100 * self.margin:.2f}"
        units = len(self.differences)
        unit = self.unit if units == 1 else _PLURALS[self.unit]
        small = ""
        if self.published is not None and self.published_is_small:
            small = (
                "; published difference below what is of interest: "
                f"{100 * self.published:+.2f}"
            )
        return (
            f"{self.text}: {self.verdict or 'no verdict'} ({mean}{spread} points, "
            f"d = {100 * self.of_interest:g}, {units} {unit}{small})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values, as fractions."""
        return {
            "claim": self.text,
            "verdict": self.verdict,
            "differences": self.differences.tolist(),
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
    of_interest: float = OF_INTEREST,
    published: Mapping[str, float] | None = None,
    denies: bool = False,
    unit: Unit = "seed",
) -> list[Comparison]:
    """Compares each of some methods with each of others.

    Args:
      accuracies: of each method that is there, a fraction for each unit.
      larger: methods that the paper claims to be above.
      smaller: methods that it claims to be below.
      where: names the accuracy, where there are several.
      of_interest: the smallest difference of interest, a fraction.
      published: of each method that the paper has, the same accuracy in percent.
      denies: whether the claim is that `larger` do not improve on `smaller`.
      unit: what each fraction belongs to; units are independent of each other.
    """
    relation = "does not improve on" if denies else "above"
    suffix = f", {where}" if where else ""
    return [
        Comparison(
            f"{METHODS[one].label} {relation} {METHODS[other].label}{suffix}",
            tuple(map(float, accuracies[one])),
            tuple(map(float, accuracies[other])),
            of_interest,
            denies,
            published_difference(published or {}, one, other),
            unit,
        )
        for one in larger
        for other in smaller
        if one in accuracies and other in accuracies
    ]


def section(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns the comparisons as lines of Markdown."""
    if not comparisons:
        return []
    units = _PLURALS[comparisons[0].unit]
    if comparisons[0].verdict is None:
        return [
            f"No verdict on the paper's claims: give {FEWEST_UNITS} {units} or more."
        ]
    intro = (
        f"The paper's claims here, each by the mean difference over {units} (95 % "
        "interval, unadjusted) and by d, the smallest difference of interest in points:"
    )
    return [intro, "", *(f"- {comparison}" for comparison in comparisons)]
