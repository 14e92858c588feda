"""Writes the report on the paper's claims from the committed results, in seconds."""

import dataclasses
import pathlib
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from absum_jax.markdown import aligned
from experiments.claims.described import Description
from experiments.claims.statements import (
    PRIMARY,
    QUANTITIES,
    SAMPLES,
    SECONDARY,
    published,
)
from experiments.data import DATASETS
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS
from experiments.reporting.comparisons import OPENINGS
from experiments.reproduce.items import (
    ADVERSARIAL_SEEDS,
    CIFAR_SEEDS,
    FIGURE8_SEEDS,
    FIRST_READINGS,
    FIRST_SEEDS,
    READING_SEEDS,
)
from experiments.statistics.intervals import Interval, prediction_interval
from experiments.studies.snc_explaining import CONFIDENCE

# Accuracies in Table 1, by their names in its document; and those of the claims.
_ACCURACIES = {"avg": "Avg.", "min": "Min.", "clean": "CLN"}
_QUANTITIES = {"avg": "mean", "min": "minimum", "clean": "clean"}
_TEMPLATE = pathlib.Path(__file__).with_suffix(".md")
_ROOT = _TEMPLATE.parents[1]


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Write the report on the paper's claims from tables, verdicts and records that are
    already there. Nothing is trained or evaluated."""  # noqa: D205, D209

    results_dir: pathlib.Path = _ROOT / "results"
    """Folder of results, with claims.json of the command claims."""

    report: pathlib.Path = _ROOT / "docs" / "report.md"
    """The file to write. Its links are relative to a folder beside that of results."""


class _Planned(NamedTuple):
    """Something that results/CRITERIA.md plans, or that the paper has."""

    item: str
    text: str
    patterns: Sequence[str]  # of results, all of which show that it was run
    seed: int | None  # the first that is planned; None if it has none
    otherwise: str = "not run"

    def state(self, results: pathlib.Path) -> str:
        """Returns whether there are results of the planned seeds."""
        return "run" if all(self._states(results)) else self.otherwise

    def _states(self, results: pathlib.Path) -> Iterator[bool]:
        """Yields whether there are those of each pattern."""
        for pattern in self.patterns:
            documents = map(files.read_json, results.glob(pattern))
            yield any(
                self.seed in (one.get("seeds") or one["options"].get("seeds", [None]))
                for one in documents
            )


# Table 1 of the paper's first network, in float32 or bfloat16.
_LARGE = "table1/{}-[pb]*.json"
# Item 1 is counted in seeds. The names are those that the commands of
# `reproduce.items` give.
_PLANNED = (
    _Planned(
        "2", "readings of SNC at sigma = 10",
        [f"snc-readings/{name}.json" for name in SAMPLES], READING_SEEDS[0],
    ),
    _Planned(
        "2", "SNC at other bounds",
        [f"snc-readings/{name}-*.json" for name in SAMPLES], 0,
    ),
    _Planned(
        "3", "grid of strengths",
        [f"table1/{name}-validation.json" for name in SAMPLES], 0,
    ),
    _Planned("4", "Figure 8", ["figure8/mnist.json"], FIGURE8_SEEDS[0]),
    _Planned(
        "4", "runtimes, Figure 6(a), without SVHN", ["scaled/figure6a/*.json"], None
    ),
    _Planned(
        "4", "runtimes, Figure 6(b)", ["figure6b/*.json"], None,
        "not run anew",
    ),
    _Planned(
        "5", "CIFAR-10, an eighth of ResNet-18's channels",
        ["scaled/table1/cifar10*.json"], CIFAR_SEEDS[0],
    ),
    _Planned(
        "6", "MNIST, adversarial training", ["scaled/table4/mnist*.json"],
        ADVERSARIAL_SEEDS[0],
    ),
    _Planned(
        "", "CIFAR-10 at the published schedule", [_LARGE.format("cifar10")],
        CIFAR_SEEDS[0], "not run: it needs an accelerator",
    ),
    _Planned(
        "", "CIFAR-100, SVHN, ImageNet",
        [*map(_LARGE.format, ("cifar100", "svhn_cropped", "imagenet2012"))],
        CIFAR_SEEDS[0],
        "not run: loading, networks and commands are tested, nothing is measured",
    ),
)  # fmt: skip


def _lines(path: pathlib.Path) -> list[str]:
    """Reads the lines of a file that another command writes."""
    lines = files.read_lines(path)
    if lines is None:
        raise UsageError(f"{path} is missing; make it with its command.")
    return lines


def _claims(results: pathlib.Path) -> dict[str, Any]:
    content: dict[str, Any] = files.read_json(
        results / "claims.json", "make it with the command claims"
    )
    return content


def _runs(results: pathlib.Path) -> list[str]:
    """Makes the table of what was run."""
    rows = []
    for name, sample in _claims(results)["samples"].items():
        complete, planned = sample["complete_seeds"], sample["planned_seeds"]
        state = f"{len(complete)} of {len(planned)} seeds ({_listed(complete)})"
        what = f"{DATASETS[name].label}, {len(sample['methods'])} methods, 100 epochs"
        rows.append(("1", what, state))
    rows += [(one.item, one.text, one.state(results)) for one in _PLANNED]
    return aligned(("item", "what", "state"), rows)


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _compute(results: pathlib.Path) -> list[str]:
    """Makes the table of the time and the versions of training, from the records."""
    rows = []
    for name in SAMPLES:
        paths = (results / "records" / name).glob("*/*/*/*/provenance.json")
        found = [files.read_json(path) for path in sorted(paths)]
        if not found:
            raise UsageError(f"{results / 'records' / name} has no records.")
        # The models of a program were trained at the same time.
        programs = {(*one["seeds_in_one_program"], one["seconds"]) for one in found}
        total = sum(seconds for *_, seconds in programs)
        steps = sum(one["steps_in_these_seconds"] for one in found)
        versions = {f"{one['python']}, {one['packages']['jax']}" for one in found}
        rows.append(
            (
                DATASETS[name].label, str(len(found)), f"{total / 3600:.1f}",
                f"{steps / total:.0f}", _listed(sorted(versions)),
                str(len({one["commit"] for one in found})),
            )
        )  # fmt: skip
    header = (
        "data set", "models", "hours of training", "model steps a second",
        "Python, jax", "commits",
    )  # fmt: skip
    return aligned(header, rows)


def _verdict(claims: Sequence[dict[str, Any]]) -> str:
    """Sums the verdicts of a claim's comparisons up, the reason if there are none."""
    counts = Counter(one["verdict"] or "no verdict" for one in claims)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(
        f"{verdict} ({n} of {len(claims)})" for verdict, n in counts.items()
    )


def _verdicts(results: pathlib.Path) -> list[str]:
    """Makes the table of all claims."""
    content = _claims(results)
    rows = []
    for claim in PRIMARY:
        of_claim = [one for one in content["primary"] if one["claim"] == claim.name]
        for one in of_claim:
            larger, smaller = (METHODS[one[m]].label for m in ("larger", "smaller"))
            what = QUANTITIES[one["quantity"]].text
            cells = [f"{100 * mean:+.1f} points" for mean in one["means"].values()]
            text = f"**{claim.name}. {larger} above {smaller}, {what}**"
            rows.append((text, *cells, one["verdict"] or "no verdict"))
    for claim in SECONDARY:
        cells = []
        for name in SAMPLES:
            of_claim = [
                one for one in content["secondary"][name] if one["claim"] == claim.name
            ]
            cells.append(_verdict(of_claim) if of_claim else "")
        if any(cells):
            rows.append((f"{claim.name}. {claim.text}", *cells, ""))
    for one in (Description(**each) for each in content.get("described", [])):
        rows.append((one.label, *("" for _ in SAMPLES), one.verdict))
    labels = [DATASETS[name].label for name in SAMPLES]
    return aligned(("claim", *labels, "both together"), rows)


def _section(title: str) -> Callable[[pathlib.Path], list[str]]:
    """Returns a section of the page of verdicts, without its title."""

    def section(results: pathlib.Path) -> list[str]:
        path = results / "claims.md"
        _, found, rest = "\n".join(_lines(path)).partition(f"\n## {title}\n")
        if not found:
            raise UsageError(f"{path} has no section {title}: run `claims` again.")
        return rest.split("\n## ")[0].strip().splitlines()

    return section


def _table(path: str) -> Callable[[pathlib.Path], list[str]]:
    """Returns a committed table with its notes, without preliminary claims."""

    def table(results: pathlib.Path) -> list[str]:
        text = "\n".join(_lines(results / path)).replace("## ", "### ", 1)
        # Comparisons follow, which this page judges by itself.
        text, *_ = re.split(f"\n({'|'.join(OPENINGS)})", text)
        return text.splitlines()

    return table


def _models(results: pathlib.Path, name: str, method: str) -> list[dict[str, Any]]:
    """Reads the models of a method in Table 1 of a data set."""
    models = files.read_json(results / "table1" / f"{name}-paper.json")["models"]
    return [model for model in models if model["method"] == method]


def _predicted(
    models: Sequence[dict[str, Any]], accuracy: str, confidence: float
) -> tuple[Interval, tuple[str, str]]:
    """Returns the interval for one more run; and the mean and the interval as cells."""
    values = [100 * model[accuracy] for model in models]
    interval = prediction_interval(values, confidence)
    mean = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    return interval, (mean, "{:.1f} to {:.1f}".format(*interval))


def _snc(results: pathlib.Path) -> list[str]:
    """Makes the table by which it is decided which SNC is as published."""
    rows = []
    for name in SAMPLES:
        for method in FIRST_READINGS:
            of_all = _models(results, name, method)
            models = [model for model in of_all if model["seed"] in FIRST_SEEDS[name]]
            for accuracy, title in _ACCURACIES.items():
                (low, high), cells = _predicted(models, accuracy, CONFIDENCE / 100)
                in_paper = published(_QUANTITIES[accuracy], name)["snc"]
                state = "inside" if low <= in_paper <= high else "outside"
                rows.append(
                    (
                        DATASETS[name].label, METHODS[method].label, title, *cells,
                        f"{in_paper:.2f}", state,
                    )
                )  # fmt: skip
    header = (
        "data set", "reading", "", "measured", f"one more run ({CONFIDENCE:g} %)",
        "published", "published is",
    )  # fmt: skip
    return aligned(header, rows)


def _norms(results: pathlib.Path) -> list[str]:
    """Makes the table of norms without a constraint, and of what SNC changes."""
    rows = []
    for name in SAMPLES:
        free, bounded = (
            {model["seed"]: model for model in _models(results, name, method)}
            for method in ("none", "snc")
        )
        norms = [_last_norms(results, model) for model in free.values()]
        changed = sum(
            _last_norms(results, bounded[seed]) != of_seed
            for seed, of_seed in zip(free, norms, strict=True)
        )
        ranges = (
            f"{min(of_layer):.1f} to {max(of_layer):.1f}"
            for of_layer in zip(*norms, strict=True)
        )
        largest = (
            100 * max(abs(bounded[seed][key] - free[seed][key]) for seed in free)
            for key in _ACCURACIES
        )
        rows.append(
            (
                DATASETS[name].label, *ranges, f"{changed} of {len(free)}",
                *(f"{change:.2f}" for change in largest),
            )
        )  # fmt: skip
    header = (
        "data set", "norms, first layer", "second layer", "models that SNC changes",
        "Avg., by at most", "Min.", "CLN",
    )  # fmt: skip
    return aligned(header, rows)


def _last_norms(results: pathlib.Path, model: dict[str, Any]) -> tuple[float, ...]:
    """Reads the spectral norms of a model's convolutions after its last epoch."""
    path = results / "records" / model["run"] / "diagnostics.jsonl"
    logged = files.read_json_lines(path)
    if not logged:
        raise UsageError(f"{path} is missing; make it with the command record.")
    norms = logged[-1]["spectral_norm"]
    return tuple(norms[kernel] for kernel in sorted(norms))


def _independent(results: pathlib.Path) -> list[str]:
    """Makes the table of the models that another program trained."""
    found = files.read_json_lines(results / "independent" / "fashion_mnist.jsonl")
    rows = []
    for method in dict.fromkeys(row["method"] for row in found):
        models = _models(results, "fashion_mnist", method)
        for accuracy, title in _ACCURACIES.items():
            (low, high), cells = _predicted(models, accuracy, 0.95)
            theirs = [row[accuracy] for row in found if row["method"] == method]
            inside = sum(low <= value <= high for value in theirs)
            rows.append(
                (
                    METHODS[method].label, title, *cells,
                    ", ".join(f"{value:.2f}" for value in theirs),
                    f"{inside} of {len(theirs)}",
                )
            )  # fmt: skip
    header = "method", "", "this project", "one more run (95 %)", "PyTorch", "inside"
    return aligned(header, rows)


_PARTS: dict[str, Callable[[pathlib.Path], list[str]]] = {
    "runs": _runs,
    "compute": _compute,
    "verdicts": _verdicts,
    "primary": _section("Primary claims"),
    "described": _section("Claims that one run describes"),
    "norms": _norms,
    "snc": _snc,
    "independent": _independent,
    **{
        f"secondary {name}": _section(f"Secondary claims, {DATASETS[name].label}")
        for name in SAMPLES
    },
    **{
        f"{table} {name}": _table(f"{table}/{name}-paper.md")
        for table in (
            "table1", "table2", "table3", "scaled/frequencies",
            "scaled/table4-clean-auto",
        )
        for name in SAMPLES
    },
    "figure6a": _table("scaled/figure6a/epochs.md"),
    "figure6b": _table("scaled/figure6b/resnet18.md"),
    "figure8": _table("figure8/mnist.md"),
}  # fmt: skip


def written(results: pathlib.Path) -> str:
    """Fills the template: a line `{{name}}` is replaced by a part of that name."""

    def part(match: re.Match[str]) -> str:
        return "\n".join(_PARTS[match[1]](results))

    text = "\n".join(_lines(_TEMPLATE)) + "\n"
    return re.sub(r"^\{\{(.+)\}\}$", part, text, flags=re.MULTILINE)


def run(options: ReportOptions) -> list[pathlib.Path]:
    """Writes the report."""
    return [files.write_text(options.report, written(options.results_dir))]
