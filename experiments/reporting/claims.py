"""Whether the paper's claims hold here, by the spread over seeds.

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

# What the paper says of most tables: these methods withstand more than those.
ROBUST = ("absum", *SNC_METHODS)
STANDARD = ("weight_decay", "l1")
Unit = Literal["seed", "pair of seeds"]
_PLURALS: dict[Unit, str] = {"seed": "seeds", "pair of seeds": "pairs of seeds"}


@dataclasses.dataclass(frozen=True)
class Claim:
    """One accuracy is said to be larger than another, or not to be; paired by unit."""

    text: str
    ours: tuple[float, ...]  # a fraction a unit
    theirs: tuple[float, ...]
    of_interest: float = OF_INTEREST  # smallest difference, a fraction
    denies: bool = False  # the claim is that ours does not improve on theirs
    published: float | None = None  # ours - theirs in the paper, a fraction
    unit: Unit = "seed"

    @property
    def differences(self) -> np.ndarray:
        """Ours - theirs, unit by unit, as fractions."""
        return np.subtract(self.ours, self.theirs)

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Computes the paired t interval of the mean difference, as fractions.

        None for fewer than three units, whose spread is a matter of luck.
        """
        if len(self.differences) < FEWEST_UNITS:
            return None
        return mean_interval(self.differences, confidence)

    @property
    def margin(self) -> float | None:
        """Half of the width of the 95 % interval."""
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
        """Whether the published difference is below what is of interest.

        Then even an exact reproduction would be. False where the paper has no numbers,
        and for claims that there is no difference.
        """
        if self.published is None or self.denies:
            return False
        return self.published < self.of_interest

    def __str__(self) -> str:
        """The claim, the verdict, and the difference in percentage points."""
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
        """Plain values, as fractions."""
        return {
            "claim": self.text,
            "verdict": self.verdict,
            "differences": self.differences.tolist(),
            "margin": self.margin,
            "interval": self.interval(),
            "interval_90": self.interval(0.90),
            "smallest_difference_of_interest": self.of_interest,
            "unit": self.unit,
            "difference": self.published,
            "published_difference_is_small": self.published_is_small,
        }


def above(
    accuracies: Mapping[str, Iterable[float]],
    larger: Sequence[str],
    smaller: Sequence[str],
    where: str = "",
    *,
    of_interest: float = OF_INTEREST,
    published: Mapping[str, float] | None = None,
    denies: bool = False,
    unit: Unit = "seed",
) -> list[Claim]:
    """Makes the claims that each of some methods is above each of others, or is not.

    Args:
      accuracies: of each method that is there, a fraction a unit.
      larger: methods that are said to be above.
      smaller: methods that are said to be below.
      where: in which respect.
      of_interest: the smallest difference of interest, a fraction.
      published: of each method that the paper has, the same accuracy in percent.
      denies: whether `larger` are said not to improve on `smaller`.
      unit: what each fraction belongs to; units are independent of each other.
    """
    relation = "does not improve on" if denies else "above"
    suffix = f", {where}" if where else ""
    return [
        Claim(
            f"{METHODS[ours].label} {relation} {METHODS[theirs].label}{suffix}",
            tuple(map(float, accuracies[ours])),
            tuple(map(float, accuracies[theirs])),
            of_interest,
            denies,
            published_difference(published or {}, ours, theirs),
            unit,
        )
        for ours in larger
        for theirs in smaller
        if ours in accuracies and theirs in accuracies
    ]


def section(claims: Sequence[Claim]) -> list[str]:
    """The claims as lines of markdown."""
    if not claims:
        return []
    first = claims[0]
    units = _PLURALS[first.unit]
    if first.verdict is None:
        return [
            f"No verdict on the paper's claims: give {FEWEST_UNITS} {units} or more."
        ]
    intro = (
        f"The paper's claims here, each by the mean difference over {units} (95 % "
        "interval, unadjusted) and by d, the smallest difference of interest in points:"
    )
    return [intro, "", *(f"- {claim}" for claim in claims)]
