"""Judges the paper's claims by samples of models, as results/CRITERIA.md defines.

Intervals and tests are computed from whole numbers of images and rounded only for
printing.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

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
from experiments.statistics.significance import holm, sign_flip_p_value
from experiments.statistics.verdicts import (
    FEWEST_UNITS,
    Verdict,
    improvement_verdict,
    no_improvement_verdict,
)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A comparison of two methods that a claim makes, with its verdict if any."""

    claim: Claim
    quantity: str
    larger: str
    smaller: str
    differences: Mapping[str, Measured]  # by sample, (units,)
    reason: str = ""  # why there is no verdict
    published: float | None = None  # difference, a fraction; of secondary claims
    interval: Interval | None = None  # 95 %, as fractions
    verdict: Verdict | None = None
    p_value: float | None = None  # of primary claims
    adjusted_p_value: float | None = None

    @property
    def of_interest(self) -> float:
        """Returns the smallest difference of interest, a fraction."""
        return QUANTITIES[self.quantity].of_interest

    @property
    def estimate(self) -> float | None:
        """Computes the mean of the samples' mean differences, a fraction."""
        means = [difference.mean for difference in self.differences.values()]
        known = [mean for mean in means if mean is not None]
        return sum(known) / len(known) if len(known) == len(means) else None

    @property
    def signs_are_opposite(self) -> bool:
        """Checks whether different methods are above on different samples."""
        means = [difference.mean or 0.0 for difference in self.differences.values()]
        return min(means) < 0 < max(means)

    @property
    def published_is_small(self) -> bool:
        """Checks whether even an exact reproduction would be below of_interest."""
        if self.published is None or self.claim.denies:
            return False
        return self.published < self.of_interest


def _compare(
    claims: Sequence[Claim], samples: Mapping[str, Sample]
) -> Iterator[Judgement]:
    """Yields all comparisons of the claims about some samples, without verdicts."""
    for claim in claims:
        about = {name: samples[name] for name in claim.samples if name in samples}
        comparisons = itertools.product(claim.quantities, claim.larger, claim.smaller)
        for quantity, larger, smaller in comparisons if about else ():
            differences = {
                name: sample.difference(quantity, larger, smaller)
                for name, sample in about.items()
            }
            broken = any(s.is_broken(larger, smaller) for s in about.values())
            reason = "a model diverged or predicts one class" if broken else ""
            yield Judgement(claim, quantity, larger, smaller, differences, reason)


def _interval(parts: Sequence[np.ndarray], confidence: float = 0.95) -> Interval:
    if len(parts) == 1:
        return mean_interval(parts[0], confidence)
    first, second = parts
    return pooled_interval(first, second, confidence)


def _with_verdict(judged: Judgement, *, is_significant: bool = True) -> Judgement:
    """Adds the interval, pooled if there are two samples, and the verdict."""
    parts = [difference.parts for difference in judged.differences.values()]
    wholes = [difference.whole for difference in judged.differences.values()]
    whole = wholes[0]
    if set(wholes) != {whole}:
        raise ValueError(
            f"`samples` must have equally many images, got {wholes} parts of "
            f"{judged.claim.name}."
        )
    interval, of_interest = _interval(parts), judged.of_interest * whole
    if judged.claim.denies:
        verdict = no_improvement_verdict(interval, of_interest)
    else:
        verdict = improvement_verdict(
            interval, _interval(parts, 0.90), of_interest, is_significant=is_significant
        )
    as_fractions = Interval(interval.low / whole, interval.high / whole)
    return dataclasses.replace(judged, interval=as_fractions, verdict=verdict)


def secondary(sample: Sample, name: str) -> list[Judgement]:
    """Judges the secondary claims about one sample.

    Args:
      sample: its models.
      name: the name of the sample, one of `SAMPLES`.
    """
    claims = []
    for one in _compare(SECONDARY, {name: sample}):
        in_paper = published(one.quantity, sample.options.dataset)
        difference = published_difference(in_paper, one.larger, one.smaller)
        units = len(one.differences[name].parts)
        few = f"fewer than {FEWEST_UNITS} units" if units < FEWEST_UNITS else ""
        judged = dataclasses.replace(
            one, published=difference, reason=one.reason or few
        )
        claims.append(judged if judged.reason else _with_verdict(judged))
    return claims


def shortcomings(samples: Mapping[str, Sample]) -> list[str]:
    """Lists why claims about all samples cannot be tested yet, if they cannot."""
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
) -> list[Judgement]:
    """Judges the primary claims, about two data sets together.

    Args:
      samples: the models of each data set. Claims are not tested before all seeds of
        their data sets are complete, on one kind of device.
      snc_as_published: the form of SNC that the paper reports; None if that is not
        decided: then claims about SNC are listed in both forms, without a verdict.

    Returns:
      The claims, in order.
    """
    claims = []
    for one in _compare(PRIMARY, samples):
        reasons = shortcomings({name: samples[name] for name in one.differences})
        if one.larger in SNC_METHODS:
            if snc_as_published not in (None, one.larger):
                continue
            if snc_as_published is None:
                reasons.append("which SNC is as published is not decided yet")
        reason = "; ".join(filter(None, [*reasons, one.reason]))
        claims.append(dataclasses.replace(one, reason=reason))
    # A claim that is not tested counts as 1: the correction is for all claims.
    p_values = {claim.name: 1.0 for claim in PRIMARY} | {
        one.claim.name: sign_flip_p_value(*(d.parts for d in one.differences.values()))
        for one in claims
        if not one.reason
    }
    corrected = holm(p_values)
    return [
        one
        if one.reason
        else dataclasses.replace(
            _with_verdict(one, is_significant=corrected[one.claim.name].is_significant),
            p_value=p_values[one.claim.name],
            adjusted_p_value=corrected[one.claim.name].p_value,
        )
        for one in claims
    ]
