"""Judges the paper's claims by samples of models, as results/CRITERIA.md defines.

Intervals and tests are computed from whole numbers of images and rounded only for
printing.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from experiments.claims.measurements import Sample
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
from experiments.reporting.comparisons import Comparison, Measured
from experiments.statistics.significance import holm, sign_flip_p_value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement(Comparison):
    """A comparison of two methods that a claim of the criteria makes."""

    claim: Claim
    quantity: str
    p_value: float | None = None  # of primary claims
    adjusted_p_value: float | None = None

    @property
    def signs_are_opposite(self) -> bool:
        """Checks whether different methods are above on different samples."""
        means = [difference.mean or 0.0 for difference in self.differences.values()]
        return min(means) < 0 < max(means)


def _judgement(
    claim: Claim, quantity: str, larger: str, smaller: str,
    differences: Mapping[str, Measured], obstacle: str = "",
) -> Judgement:  # fmt: skip
    """Returns a comparison that a claim makes."""
    return Judgement(
        claim=claim,
        quantity=quantity,
        larger=larger,
        smaller=smaller,
        where=QUANTITIES[quantity].text,
        differences=differences,
        of_interest=QUANTITIES[quantity].of_interest,
        denies=claim.denies,
        obstacle=obstacle,
    )


def _compare(
    claims: Sequence[Claim], samples: Mapping[str, Sample]
) -> Iterator[Judgement]:
    """Yields all comparisons of the claims about some samples."""
    for claim in claims:
        about = {name: samples[name] for name in claim.samples if name in samples}
        comparisons = itertools.product(claim.quantities, claim.larger, claim.smaller)
        for quantity, larger, smaller in comparisons if about else ():
            broken = {config.method for s in about.values() for config in s.broken}
            is_broken = not broken.isdisjoint((larger, smaller))
            differences = {
                name: sample.difference(quantity, larger, smaller)
                for name, sample in about.items()
            }
            obstacle = "a model diverged or predicts one class" if is_broken else ""
            yield _judgement(claim, quantity, larger, smaller, differences, obstacle)


def secondary(sample: Sample, name: str) -> list[Judgement]:
    """Judges the secondary claims about one sample, one of `SAMPLES`."""
    claims = []
    for one in _compare(SECONDARY, {name: sample}):
        in_paper = published(one.quantity, sample.options.models.dataset)
        difference = published_difference(in_paper, one.larger, one.smaller)
        claims.append(dataclasses.replace(one, published=difference))
    return claims


def of_figure8(saved: Measured) -> Judgement:
    """Judges the claim about Figure 8, given the differences of its penalties."""
    [claim] = [claim for claim in SECONDARY if "figure8" in claim.samples]
    [quantity], [larger], [smaller] = claim.quantities, claim.larger, claim.smaller
    return _judgement(claim, quantity, larger, smaller, {"figure8": saved})


def shortcomings(samples: Mapping[str, Sample]) -> list[str]:
    """Lists why claims about all samples cannot be tested yet, if they cannot."""
    obstacles = [
        f"{len(sample.seeds)} of {len(sample.options.seeds)} seeds on "
        f"{DATASETS[sample.options.models.dataset].label} are complete"
        for sample in samples.values()
        if not sample.is_complete
    ]
    devices = frozenset[str]().union(*(sample.devices for sample in samples.values()))
    if len(devices) > 1:
        kinds = ", ".join(sorted(devices))
        obstacles.append(f"there are several kinds of device: {kinds}")
    return obstacles


def primary(
    samples: Mapping[str, Sample], snc_as_published: str | None
) -> list[Judgement]:
    """Judges the primary claims, about two data sets together.

    Args:
      samples: the models of each data set. Claims are not tested before all seeds of
        their data sets are complete, on one kind of device.
      snc_as_published: the form of SNC that the paper reports; None if that is not
        decided: then claims about SNC are listed in both forms, without a verdict.
    """
    claims = []
    for one in _compare(PRIMARY, samples):
        obstacles = shortcomings({name: samples[name] for name in one.differences})
        if one.larger in SNC_METHODS and one.larger != snc_as_published:
            if snc_as_published is not None:
                continue
            obstacles.append("which SNC is as published is not decided yet")
        obstacle = "; ".join(filter(None, [*obstacles, one.obstacle]))
        claims.append(dataclasses.replace(one, obstacle=obstacle))
    # A claim that is not tested counts as 1: the correction is for all claims.
    p_values = {claim.name: 1.0 for claim in PRIMARY} | {
        one.claim.name: sign_flip_p_value(*one.parts)
        for one in claims
        if not one.reason
    }
    corrected = holm(p_values)
    return [
        one
        if one.reason
        else dataclasses.replace(
            one,
            is_significant=corrected[one.claim.name].is_significant,
            p_value=p_values[one.claim.name],
            adjusted_p_value=corrected[one.claim.name].p_value,
        )
        for one in claims
    ]
