"""Judges the paper's claims by samples of models, as results/CRITERIA.md does.

Intervals and tests are computed from whole numbers of images, and rounded for print
alone.
"""

import dataclasses
from collections.abc import Mapping

from experiments.claims.measurements import Measured, Sample
from experiments.claims.statements import (
    PRIMARY,
    QUANTITIES,
    SECONDARY,
    Claim,
    published,
)
from experiments.data import DATASETS
from experiments.methods import SNC_METHODS
from experiments.published import published_difference
from experiments.statistics.intervals import Interval, mean_interval, pooled_interval
from experiments.statistics.significance import Corrected, holm, sign_flip_p_value
from experiments.statistics.verdicts import (
    FEWEST_UNITS,
    Verdict,
    improvement_verdict,
    no_improvement_verdict,
)

_BROKEN = "a model diverged or predicts one class"


def _fractions(interval: Interval, whole: int) -> Interval:
    return Interval(interval.low / whole, interval.high / whole)


@dataclasses.dataclass(frozen=True)
class Secondary:
    """One comparison of a secondary claim on one data set."""

    claim: Claim
    quantity: str
    larger: str
    smaller: str
    difference: Measured  # units (units,)
    published: float | None  # difference, a fraction
    interval: Interval | None = None  # 95 %, unadjusted, as fractions
    verdict: Verdict | None = None
    reason: str = ""  # why there is no verdict

    @property
    def published_is_small(self) -> bool:
        """Whether an exact reproduction would be smaller than what is of interest."""
        if self.published is None or self.claim.denies:
            return False
        return self.published < QUANTITIES[self.quantity].of_interest


@dataclasses.dataclass(frozen=True)
class Primary:
    """A primary claim, with one of the two forms of SNC where it is about SNC."""

    claim: Claim
    quantity: str
    larger: str
    smaller: str
    differences: Mapping[str, Measured]  # of each sample
    reason: str = ""  # why it is not tested
    p_value: float | None = None
    corrected: Corrected | None = None
    interval: Interval | None = None  # 95 %, as fractions
    verdict: Verdict | None = None

    @property
    def estimate(self) -> float | None:
        """The mean of the data sets' mean differences, a fraction."""
        means = [difference.mean for difference in self.differences.values()]
        known = [mean for mean in means if mean is not None]
        return sum(known) / len(known) if len(known) == len(means) else None

    @property
    def signs_are_opposite(self) -> bool:
        """Whether it is one method on one data set, and the other on another."""
        means = [difference.mean or 0.0 for difference in self.differences.values()]
        return min(means) < 0 < max(means)


def secondary(sample: Sample, name: str) -> list[Secondary]:
    """Judges the secondary claims about one sample.

    Args:
      sample: its models.
      name: the sample's.
    """
    return [
        _secondary(sample, claim, *comparison)
        for claim in SECONDARY
        if name in claim.samples
        for comparison in claim.comparisons
    ]


def _secondary(
    sample: Sample, claim: Claim, quantity: str, larger: str, smaller: str
) -> Secondary:
    difference = sample.difference(quantity, larger, smaller)
    percent = published(quantity, sample.options.dataset)
    judged = Secondary(
        claim,
        quantity,
        larger,
        smaller,
        difference,
        published_difference(percent, larger, smaller),
    )
    if sample.is_broken(larger, smaller):
        return dataclasses.replace(judged, reason=_BROKEN)
    parts, whole = difference
    if len(parts) < FEWEST_UNITS:
        return dataclasses.replace(judged, reason=f"fewer than {FEWEST_UNITS} units")
    interval = mean_interval(parts)
    of_interest = QUANTITIES[quantity].of_interest * whole
    if claim.denies:
        verdict = no_improvement_verdict(interval, of_interest)
    else:
        verdict = improvement_verdict(interval, mean_interval(parts, 0.90), of_interest)
    return dataclasses.replace(
        judged, interval=_fractions(interval, whole), verdict=verdict
    )


def shortcomings(samples: Mapping[str, Sample]) -> list[str]:
    """Says why claims about all samples are not tested yet; nothing if they are."""
    reasons = [
        f"{len(sample.seeds)} of {len(sample.options.seeds)} seeds on "
        f"{DATASETS[sample.options.dataset].label} are complete"
        for sample in samples.values()
        if not sample.is_complete
    ]
    devices = frozenset[str]().union(*(sample.devices for sample in samples.values()))
    if len(devices) > 1:
        reasons.append(
            f"there are several kinds of device: {', '.join(sorted(devices))}"
        )
    return reasons


def primary(
    samples: Mapping[str, Sample], snc_as_published: str | None
) -> list[Primary]:
    """Judges the primary claims, about two data sets together.

    Args:
      samples: the models of each data set. Claims are not tested before all seeds of
        their data sets are complete, on one kind of device.
      snc_as_published: the form of SNC that is the paper's; None if that is not
        decided, which leaves claims about SNC without a verdict, in both forms.

    Returns:
      The claims, in order.
    """
    claims = [
        _untested(samples, claim, *comparison, is_decided=snc_as_published is not None)
        for claim in PRIMARY
        for comparison in claim.comparisons
        if _is_meant(comparison[1], snc_as_published)
    ]
    p_values = {
        one.claim.name: sign_flip_p_value(*(d.parts for d in one.differences.values()))
        for one in claims
        if not one.reason
    }
    # One that is not tested counts as 1: there are six claims in any case.
    corrected = holm({claim.name: p_values.get(claim.name, 1.0) for claim in PRIMARY})
    return [
        one
        if one.reason
        else _tested(one, p_values[one.claim.name], corrected[one.claim.name])
        for one in claims
    ]


def _is_meant(method: str, snc_as_published: str | None) -> bool:
    return method not in SNC_METHODS or snc_as_published in (None, method)


def _untested(
    samples: Mapping[str, Sample], claim: Claim, quantity: str, larger: str,
    smaller: str, *, is_decided: bool,
) -> Primary:  # fmt: skip
    """Subtracts, and says why there is no test, if so."""
    its = {name: samples[name] for name in claim.samples}
    differences = {
        name: sample.difference(quantity, larger, smaller)
        for name, sample in its.items()
    }
    reasons = shortcomings(its)
    if larger in SNC_METHODS and not is_decided:
        reasons.append("which SNC is as published is not decided yet")
    if any(sample.is_broken(larger, smaller) for sample in its.values()):
        reasons.append(_BROKEN)
    return Primary(claim, quantity, larger, smaller, differences, "; ".join(reasons))


def _tested(one: Primary, p_value: float, corrected: Corrected) -> Primary:
    """Adds the test, the interval and the verdict."""
    first, second = one.differences.values()
    whole = first.whole
    if second.whole != whole:
        raise ValueError(
            f"data sets must have equally many images, got {whole} and {second.whole} "
            f"parts of {one.claim.name}."
        )
    interval = pooled_interval(first.parts, second.parts)
    verdict = improvement_verdict(
        interval,
        pooled_interval(first.parts, second.parts, 0.90),
        QUANTITIES[one.quantity].of_interest * whole,
        is_significant=corrected.is_significant,
    )
    return dataclasses.replace(
        one,
        p_value=p_value,
        corrected=corrected,
        interval=_fractions(interval, whole),
        verdict=verdict,
    )
