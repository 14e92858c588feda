"""Writes the verdicts on the paper's claims as a document."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absum_jax.markdown import aligned
from experiments.claims import described, judgement, measurements
from experiments.claims.described import Description
from experiments.claims.judgement import Judgement
from experiments.claims.measurements import Sample
from experiments.claims.statements import SAMPLES, SECONDARY, quantities_of
from experiments.data import DATASETS
from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError, damage_named
from experiments.methods import METHODS, SNC_NUMPY_AXES
from experiments.models import networks_for
from experiments.options import ModelOptions, SweepOptions
from experiments.published import TABLE1
from experiments.reporting.comparisons import Measured
from experiments.reporting.document import names
from experiments.reproduce.items import FIRST_READINGS, FIRST_SEEDS, READING_SEEDS
from experiments.statistics.intervals import Interval
from experiments.studies import snc_explaining
from experiments.training.runs import provenance


@dataclasses.dataclass(frozen=True)
class ClaimsOptions:
    """Judge the paper's claims from the records of MNIST and Fashion-MNIST, by the
    criteria in results/CRITERIA.md. Nothing is trained or evaluated; seeds with missing
    models are left out. The command record makes records of runs."""  # noqa: D205, D209

    runs_dir: pathlib.Path = pathlib.Path("results/records")
    """Folder of records."""

    results_dir: pathlib.Path = pathlib.Path("results")
    """Folder for claims.md and claims.json. If records leave open which form of SNC is
    the published one, results of snc-readings for both data sets there decide it. If
    figure8 has written results for MNIST there, they decide the claim about it; those
    of figure6a decide the claims about runtimes."""

    @property
    def has_records(self) -> bool:
        """Returns True: the runs folder is only read."""
        return True


def _points(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:+.2f}"


def _range(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{_points(interval.low)} to {_points(interval.high)}"


def _p(p_value: float | None) -> str:
    return "" if p_value is None else f"{p_value:.2g}"


def _row(one: Judgement, cells: Sequence[str], reason: str) -> tuple[str, ...]:
    """Returns some cells between the claim, its difference of interest and verdict."""
    verdict = one.verdict or f"no verdict: {reason}"
    label = f"{one.claim.name}. {one.text}"
    return label, *cells, f"{100 * one.of_interest:g}", verdict


def _runs(samples: Mapping[str, Sample]) -> list[str]:
    """Makes the table of complete seeds and lists missing and broken models."""
    rows, notes = [], []
    for dataset, sample in samples.items():
        name, planned = DATASETS[dataset].label, sample.options.seeds
        complete = ", ".join(map(str, sample.seeds))
        devices = ", ".join(sorted(sample.devices))
        rows.append((name, f"{len(sample.seeds)} of {len(planned)}", complete, devices))
        for seed, methods in sample.lacking.items():
            lacks = ", ".join(METHODS[method].label for method in methods)
            notes.append(f"- {name}: seed {seed} lacks {lacks}.")
        if sample.unevaluated:
            seeds = ", ".join(map(str, sample.unevaluated))
            notes.append(f"- {name}: the models of seeds {seeds} lack evaluations.")
        if sample.broken:
            notes.append(
                f"- {name}: {names(sample.broken)} diverged or predict a single class. "
                "Claims about these methods have no verdict."
            )
    header = ("data set", "complete seeds", "which", "device")
    return [*aligned(header, rows), *([""] if notes else []), *notes]


def _primary(claims: Sequence[Judgement], samples: Mapping[str, Sample]) -> list[str]:
    """Makes the table of primary claims with an introduction."""
    together = {name: samples[name] for name in claims[0].differences}
    missing = judgement.shortcomings(together)
    is_tested = any(one.verdict for one in claims)
    rows = []
    for one in claims:
        cells = [_points(difference.mean) for difference in one.differences.values()]
        cells.append(_points(one.estimate))
        if is_tested:
            cells += [_range(one.interval()), _p(one.p_value), _p(one.adjusted_p_value)]
        *cells, verdict = _row(one, cells, "see above" if missing else one.reason)
        opposite = "; opposite signs" if one.signs_are_opposite else ""
        rows.append((*cells, verdict + opposite))
    header = ["claim", *(DATASETS[name].label for name in together), "mean of both"]
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


def _secondary(claims: Sequence[Judgement], sample: Sample) -> list[str]:
    """Makes the tables of a sample's secondary claims."""
    if not sample.seeds:
        return ["No complete seeds yet."]
    header = ("claim", "units", "difference", "95 % interval", "published", "d, points",
              "verdict")  # fmt: skip
    rows: list[tuple[str, ...]] = []
    small: list[tuple[str, ...]] = []
    for one in claims:
        numbers = _points(one.estimate), _range(one.interval()), _points(one.published)
        table = small if one.published_is_small else rows
        table.append(_row(one, (str(len(one.parts[0])), *numbers), one.reason))
    state = "" if sample.is_complete else "Preliminary, until all seeds are complete. "
    lines = [
        f"{state}Mean differences in percentage points, paired by seed or pair of "
        "seeds, with unadjusted intervals.",
        "",
        *aligned(header, rows),
    ]
    if small:
        note = (
            "Published differences below d: even an exact reproduction would be "
            "smaller than what is of interest."
        )
        lines += ["", note, "", *aligned(header, small)]
    return lines


def _markdown(
    samples: Mapping[str, Sample],
    primary: Sequence[Judgement],
    secondary: Mapping[str, Sequence[Judgement]],
    descriptions: Sequence[Description],
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
        title = f"## Secondary claims, {DATASETS[name].label}"
        lines += ["", title, "", *_secondary(secondary[name], sample)]
    if descriptions:
        rows = [(one.label, one.found, one.verdict) for one in descriptions]
        lines += ["", "## Claims that one run describes", ""]
        lines += aligned(("claim", "found", "by the criteria"), rows)
    judged = [one.claim for claims in secondary.values() for one in claims]
    lines += ["", "## Claims that are not judged here yet", ""]
    lines += [
        f"- {claim.name}. {claim.text}." for claim in SECONDARY if claim not in judged
    ]
    lines.append("- S19 to S21, which the strengths of one seed describe.")
    known = [one.claim for one in descriptions]
    lines += [f"- {n}. {t}." for n, t in described.TEXTS.items() if n not in known]
    return "\n".join(lines) + "\n"


def _as_dicts(measured: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        name: {"parts": parts.tolist(), "whole": whole}
        for name, (parts, whole) in measured.items()
    }


def _claim_as_dict(one: Judgement, *, is_primary: bool) -> dict[str, Any]:
    content = {
        "claim": one.claim.name,
        "quantity": one.quantity,
        "larger": one.larger,
        "smaller": one.smaller,
        "denies": one.claim.denies,
        "smallest_difference_of_interest": one.of_interest,
        "interval": one.interval(),
        "verdict": one.verdict,
        "why_no_verdict": one.reason or None,
    }
    differences = _as_dicts(one.differences)
    if is_primary:
        return content | {
            "differences": differences,
            "means": {name: d.mean for name, d in one.differences.items()},
            "estimate": one.estimate,
            "signs_are_opposite": one.signs_are_opposite,
            "p_value": one.p_value,
            "adjusted_p_value": one.adjusted_p_value,
        }
    [difference] = differences.values()
    return content | {
        "difference": difference,
        "estimate": one.estimate,
        "published_difference": one.published,
        "published_difference_is_small": one.published_is_small,
    }


def _ninth_is_ruled_out(samples: Mapping[str, Sample]) -> bool:
    """Checks whether the readings in item 1 rule the ninth out, whatever others show.

    They do if the ninth does not explain the published rows, or if no constraint or SNC
    as the paper defines it does too.
    """
    explaining = set(FIRST_READINGS)
    for name, sample in samples.items():
        first = FIRST_SEEDS[name]
        broken = {c.method for c in sample.broken if c.seed in first}
        if sample.seeds[: len(first)] != first or not broken.isdisjoint(explaining):
            return False
        rows = TABLE1[name, networks_for(name)[0]]
        accuracies = {
            accuracy: sample.measured[quantity].parts / sample.measured[quantity].whole
            for accuracy, quantity in (("avg", "mean"), ("clean", "clean"))
        }
        for reading in FIRST_READINGS:
            method = sample.options.methods.index(reading)
            models = [
                {accuracy: of[i, method] for accuracy, of in accuracies.items()}
                for i in range(len(first))
            ]
            if not snc_explaining.explains(models, rows["snc"]):
                explaining.discard(reading)
    return explaining != {SNC_NUMPY_AXES}


def _snc_as_published(
    results_dir: pathlib.Path, samples: Mapping[str, Sample]
) -> str | None:
    """Decides between the forms of SNC by item 1, or by the documents of snc-readings.

    Returns None if item 1 leaves it open and documents are missing or do not have the
    planned seeds, or one of their models is broken, which is told.
    """
    if _ninth_is_ruled_out(samples):
        return "snc"
    paths = [results_dir / "snc-readings" / f"{name}.json" for name in SAMPLES]
    fix = "make it again with the command snc-readings"
    documents = [files.read_json_if_there(path, fix) for path in paths]
    if None in documents:
        return None
    for name, path, document in zip(SAMPLES, paths, documents, strict=True):
        with damage_named(path, fix):
            if not digests.is_whole(document):
                raise ValueError("it is not as it was written")
            for row in document["rows"]:
                is_of_item_1 = row["reading"] in FIRST_READINGS
                planned = FIRST_SEEDS[name] if is_of_item_1 else READING_SEEDS
                if row["seeds"] != list(planned):
                    return None
    try:
        return snc_explaining.snc_as_published(documents)
    except snc_explaining.UndecidedError as error:
        print(f"claims: which SNC is as published is not decided: {error}")
        return None
    except ValueError as error:
        raise UsageError(
            f"{' and '.join(map(str, paths))} do not decide which SNC is the published "
            f"one: {error}"
        ) from error


def run(options: ClaimsOptions) -> list[pathlib.Path]:
    """Judges the claims, prints and writes the document."""
    samples = {
        name: measurements.read(
            SweepOptions(ModelOptions(name, runs_dir=options.runs_dir), **fields),
            quantities_of(name),
        )
        for name, fields in SAMPLES.items()
    }
    if not any(s.seeds or s.lacking or s.unevaluated for s in samples.values()):
        raise UsageError(
            f"{options.runs_dir} has no records of {' or '.join(samples)}: make them "
            "with the commands evaluate and record."
        )
    decided = _snc_as_published(options.results_dir, samples)
    primary = judgement.primary(samples, decided)
    secondary = {
        name: judgement.secondary(sample, name) for name, sample in samples.items()
    }
    saved = measurements.penalty_saved(options.results_dir)
    if saved is not None:
        secondary["mnist"].append(judgement.of_figure8(saved))
    descriptions = described.of_runtimes(options.results_dir)
    text = _markdown(samples, primary, secondary, descriptions)
    print(f"\n{text}")
    content = {
        "snc_as_published": decided,
        "samples": {
            name: {
                "planned_seeds": sample.options.seeds,
                "complete_seeds": sample.seeds,
                "complete_pairs": sample.pairs,
                "lacking": sample.lacking,
                "unevaluated": sample.unevaluated,
                "broken": [str(config.path) for config in sample.broken],
                "devices": sorted(sample.devices),
                "methods": sample.options.methods,
                "measured": _as_dicts(sample.measured),
            }
            for name, sample in samples.items()
        },
        "primary": [_claim_as_dict(one, is_primary=True) for one in primary],
        "secondary": {
            name: [_claim_as_dict(one, is_primary=False) for one in claims]
            for name, claims in secondary.items()
        },
        "described": [one._asdict() for one in descriptions],
        "provenance": provenance(),
    }
    return [
        files.write_text(options.results_dir / "claims.md", text),
        files.write_json(options.results_dir / "claims.json", content),
    ]
