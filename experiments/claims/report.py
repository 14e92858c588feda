"""Verdicts on the paper's claims, as a document."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absum_jax._markdown import aligned
from experiments.claims import judgement, measurements
from experiments.claims.judgement import Primary, Secondary
from experiments.claims.measurements import Measured, Sample
from experiments.claims.statements import QUANTITIES, SAMPLES, SECONDARY, quantities_of
from experiments.config import NONE
from experiments.data import DATASETS
from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError, damage_named
from experiments.methods import METHODS, SNC_METHODS
from experiments.options import SweepOptions
from experiments.reporting.document import names
from experiments.reproduce.items import READING_SEEDS, SEEDS
from experiments.statistics.intervals import Interval
from experiments.studies import snc_explaining
from experiments.training.runs import provenance


@dataclasses.dataclass(frozen=True)
class ClaimsOptions:
    """Judge the paper's claims by records of MNIST and Fashion-MNIST, as
    results/CRITERIA.md defines it. Trains and evaluates nothing: seeds that lack models
    are left out. Runs become records with the command record."""  # noqa: D205, D209

    runs_dir: pathlib.Path = pathlib.Path("results/records")
    """Folder of records."""

    results_dir: pathlib.Path = pathlib.Path("results")
    """Folder for claims.md and claims.json. What snc-readings has written there for all
    data sets decides which form of SNC is the published one."""

    @property
    def has_records(self) -> bool:
        """Whether the runs folder is only read, as it is here in any case."""
        return True


def _points(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:+.2f}"


def _range(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{_points(interval.low)} to {_points(interval.high)}"


def _p(p_value: float | None) -> str:
    return "" if p_value is None else f"{p_value:.2g}"


def _is_above(one: Primary | Secondary) -> str:
    relation = "does not improve on" if one.claim.denies else "above"
    return f"{METHODS[one.larger].label} {relation} {METHODS[one.smaller].label}"


def _runs(samples: Mapping[str, Sample]) -> list[str]:
    """Which models there are."""
    rows, notes = [], []
    for sample in samples.values():
        name, planned = DATASETS[sample.options.dataset].label, sample.options.seeds
        complete = ", ".join(map(str, sample.seeds))
        devices = ", ".join(sorted(sample.devices))
        rows.append((name, f"{len(sample.seeds)} of {len(planned)}", complete, devices))
        for seed, methods in sample.lacking.items():
            lacks = ", ".join(METHODS[method].label for method in methods)
            notes.append(f"- {name}: seed {seed} lacks {lacks}.")
        if sample.broken:
            notes.append(
                f"- {name}: {names(sample.broken)} diverged or predict a single class. "
                "Claims about these methods have no verdict."
            )
    header = ("data set", "complete seeds", "which", "device")
    return [*aligned(header, rows), *([""] if notes else []), *notes]


def _primary(claims: Sequence[Primary], samples: Mapping[str, Sample]) -> list[str]:
    """The table of primary claims, and what it is to be read with."""
    together = {name: samples[name] for name in claims[0].differences}
    missing = judgement.shortcomings(together)
    is_tested = any(one.verdict for one in claims)
    rows = []
    for one in claims:
        verdict = one.verdict or f"no verdict: {'see above' if missing else one.reason}"
        cells = [_points(difference.mean) for difference in one.differences.values()]
        cells.append(_points(one.estimate))
        if is_tested:
            adjusted = one.corrected and one.corrected.p_value
            cells += [_range(one.interval), _p(one.p_value), _p(adjusted)]
        opposite = "; opposite signs" if one.signs_are_opposite else ""
        label = f"{one.claim.name}. {_is_above(one)}, {QUANTITIES[one.quantity].text}"
        d = f"{100 * QUANTITIES[one.quantity].of_interest:g}"
        rows.append((label, *cells, d, f"{verdict}{opposite}"))
    header = ["claim", *(DATASETS[s.options.dataset].label for s in together.values())]
    header += ["mean of both"]
    header += ["95 % interval", "p", "adjusted p"] if is_tested else []
    intro = (
        "Mean differences in percentage points, paired by seed (P5 and P6: by pairs of "
        "seeds)."
    )
    if missing:
        intro = f"Preliminary, without tests: {'; '.join(missing)}. {intro}"
    elif is_tested:
        intro += (
            " p: exact sign-flip test over all units, adjusted by Holm's correction "
            "over the six claims; a claim without a test counts as p = 1."
        )
    return [intro, "", *aligned([*header, "d, points", "verdict"], rows)]


def _secondary_table(claims: Sequence[Secondary]) -> list[str]:
    header = ("claim", "units", "difference", "95 % interval", "published", "d, points",
              "verdict")  # fmt: skip
    return aligned(
        header,
        [
            (
                f"{one.claim.name}. {_is_above(one)}, {QUANTITIES[one.quantity].text}",
                str(len(one.difference.parts)),
                _points(one.difference.mean),
                _range(one.interval),
                _points(one.published),
                f"{100 * QUANTITIES[one.quantity].of_interest:g}",
                one.verdict or f"no verdict: {one.reason}",
            )
            for one in claims
        ],
    )


def _secondary(claims: Sequence[Secondary], sample: Sample) -> list[str]:
    """The secondary claims about one sample; small published differences apart."""
    if not sample.seeds:
        return ["No complete seeds yet."]
    state = "" if sample.is_complete else "Preliminary, until all seeds are complete. "
    lines = [
        f"{state}Mean differences in percentage points, paired by seed or pair of "
        "seeds, with unadjusted intervals.",
        "",
        *_secondary_table([one for one in claims if not one.published_is_small]),
    ]
    if small := [one for one in claims if one.published_is_small]:
        lines += [
            "",
            "Published differences below d: even an exact reproduction would be "
            "smaller than what is of interest.",
            "",
            *_secondary_table(small),
        ]
    return lines


def _markdown(
    samples: Mapping[str, Sample],
    primary: Sequence[Primary],
    secondary: Mapping[str, Sequence[Secondary]],
) -> str:
    lines = [
        "# Verdicts on the paper's claims",
        "",
        "By the rules of results/CRITERIA.md, from unrounded numbers (claims.json).",
        "",
        *_runs(samples),
        *("", "## Primary claims", ""),
        *_primary(primary, samples),
    ]
    for name, sample in samples.items():
        title = f"## Secondary claims, {DATASETS[sample.options.dataset].label}"
        lines += ["", title, "", *_secondary(secondary[name], sample)]
    lines += ["", "## Claims that are not judged here yet", ""]
    lines += [
        f"- {claim.name}. {claim.text}."
        for claim in SECONDARY
        if not set(claim.samples) & samples.keys()
    ]
    lines.append("- S19 to S23, which the strengths of one seed and runtimes describe.")
    return "\n".join(lines) + "\n"


def _measured(measured: Measured) -> dict[str, Any]:
    return {"parts": measured.parts.tolist(), "whole": measured.whole}


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "planned_seeds": sample.options.seeds,
        "complete_seeds": sample.seeds,
        "complete_pairs": sample.pairs,
        "lacking": sample.lacking,
        "broken": [str(config.path) for config in sample.broken],
        "devices": sorted(sample.devices),
        "methods": sample.options.methods,
        "measured": {name: _measured(own) for name, own in sample.measured.items()},
    }


def _comparison(one: Primary | Secondary) -> dict[str, Any]:
    """What primary and secondary claims have in common, differences as fractions."""
    return {
        "claim": one.claim.name,
        "quantity": one.quantity,
        "larger": one.larger,
        "smaller": one.smaller,
        "denies": one.claim.denies,
        "smallest_difference_of_interest": QUANTITIES[one.quantity].of_interest,
        "interval": one.interval,
        "verdict": one.verdict,
        "why_no_verdict": one.reason or None,
    }


def _primary_content(one: Primary) -> dict[str, Any]:
    return _comparison(one) | {
        "differences": {name: _measured(own) for name, own in one.differences.items()},
        "means": {name: own.mean for name, own in one.differences.items()},
        "estimate": one.estimate,
        "signs_are_opposite": one.signs_are_opposite,
        "p_value": one.p_value,
        "adjusted_p_value": one.corrected and one.corrected.p_value,
    }


def _secondary_content(one: Secondary) -> dict[str, Any]:
    return _comparison(one) | {
        "difference": _measured(one.difference),
        "estimate": one.difference.mean,
        "published_difference": one.published,
        "published_difference_is_small": one.published_is_small,
    }


def _has_planned_seeds(name: str, document: Mapping[str, Any]) -> bool:
    """Whether a document of snc-readings is of the seeds that the criteria name."""
    for row in document["rows"]:
        is_of_item1 = row["reading"] in (NONE.method, *SNC_METHODS)
        planned = SEEDS[name][:5] if is_of_item1 else READING_SEEDS
        if tuple(row["seeds"]) != planned:
            return False
    return True


def _snc_as_published(results_dir: pathlib.Path) -> str | None:
    """Applies the rule to the documents of snc-readings.

    None if they are not there, or of other seeds than the planned ones.
    """
    paths = [results_dir / "snc-readings" / f"{name}.json" for name in SAMPLES]
    fix = "make it again with the command snc-readings"
    documents = [files.read_json_if_there(path, fix) for path in paths]
    if None in documents:
        return None
    for name, path, document in zip(SAMPLES, paths, documents, strict=True):
        with damage_named(path, fix):
            if not digests.is_whole(document):
                raise ValueError("it is not as it was written")
            if not _has_planned_seeds(name, document):
                return None
    try:
        return snc_explaining.snc_as_published(documents)
    except ValueError as error:
        raise UsageError(
            f"{' and '.join(map(str, paths))} do not decide which SNC is the published "
            f"one: {error}"
        ) from error


def run(options: ClaimsOptions) -> list[pathlib.Path]:
    """Judges the claims, prints and writes the document."""
    samples = {
        name: measurements.read(
            SweepOptions(runs_dir=options.runs_dir, **fields), quantities_of(name)
        )
        for name, fields in SAMPLES.items()
    }
    if not any(sample.seeds or sample.lacking for sample in samples.values()):
        raise UsageError(
            f"{options.runs_dir} has no records of {' or '.join(samples)}: make them "
            "with the commands evaluate and record."
        )
    decided = _snc_as_published(options.results_dir)
    primary = judgement.primary(samples, decided)
    secondary = {
        name: judgement.secondary(sample, name) for name, sample in samples.items()
    }
    text = _markdown(samples, primary, secondary)
    print(f"\n{text}")
    content = {
        "snc_as_published": decided,
        "samples": {name: _sample(sample) for name, sample in samples.items()},
        "primary": [_primary_content(one) for one in primary],
        "secondary": {
            name: [_secondary_content(one) for one in claims]
            for name, claims in secondary.items()
        },
        "provenance": provenance(),
    }
    return [
        files.write_text(options.results_dir / "claims.md", text),
        files.write_json(options.results_dir / "claims.json", content),
    ]
