"""Whether the paper's claims hold here, by the spread over seeds."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from experiments.labels import METHOD_NAMES

# With fewer, the spread over seeds is not known.
_SEEDS = 3
# What the paper says of most tables: these methods withstand more than those.
ROBUST = ("absum", "snc")
STANDARD = ("weight_decay", "l1")


@dataclasses.dataclass(frozen=True)
class Claim:
    """One accuracy is said to be larger than another; both are of the same seeds."""

    text: str
    larger: tuple[float, ...]  # a fraction a seed
    smaller: tuple[float, ...]

    @property
    def differences(self) -> np.ndarray:
        """Seed by seed, as fractions."""
        return np.subtract(self.larger, self.smaller)

    @property
    def margin(self) -> float | None:
        """Half of the 95 % interval of the mean difference, by Student's t.

        None for fewer than three seeds, whose spread is a matter of luck.
        """
        seeds = len(self.differences)
        if seeds < _SEEDS:
            return None
        quantile = float(stdtrit(seeds - 1, 0.975))
        return quantile * float(self.differences.std(ddof=1)) / math.sqrt(seeds)

    @property
    def verdict(self) -> str:
        """Reproduced, not reproduced (the opposite holds), or undecided."""
        mean, margin = float(self.differences.mean()), self.margin
        if margin is None or abs(mean) <= margin:
            return "undecided"
        return "reproduced" if mean > 0 else "not reproduced"

    def __str__(self) -> str:
        """The claim, the verdict, and the difference in percentage points."""
        mean = f"{100 * float(self.differences.mean()):+.2f}"
        spread = "" if self.margin is None else f" ± {100 * self.margin:.2f}"
        seeds = len(self.differences)
        plural = "seed" if seeds == 1 else "seeds"
        return f"{self.text}: {self.verdict} ({mean}{spread} points, {seeds} {plural})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as fractions."""
        return {
            "claim": self.text,
            "verdict": self.verdict,
            "differences": self.differences.tolist(),
            "margin": self.margin,
        }


def above(
    accuracies: Mapping[str, Iterable[float]],
    larger: Sequence[str],
    smaller: Sequence[str],
    where: str = "",
) -> list[Claim]:
    """That each of some methods is above each of others.

    Args:
      accuracies: of each method that is there, a fraction a seed.
      larger: methods that are said to be above.
      smaller: methods that are said to be below.
      where: in which respect.
    """
    suffix = f", {where}" if where else ""
    return [
        Claim(
            f"{METHOD_NAMES[ours]} above {METHOD_NAMES[theirs]}{suffix}",
            tuple(map(float, accuracies[ours])),
            tuple(map(float, accuracies[theirs])),
        )
        for ours in larger
        for theirs in smaller
        if ours in accuracies and theirs in accuracies
    ]


def section(claims: Sequence[Claim]) -> list[str]:
    """The claims as lines of markdown."""
    if not claims:
        return []
    if len(claims[0].differences) < _SEEDS:
        return [f"The paper's claims are undecided: give {_SEEDS} seeds or more."]
    intro = (
        "The paper's claims here, each by the mean difference and its 95 % interval "
        "over seeds:"
    )
    return [intro, "", *(f"- {claim}" for claim in claims)]
