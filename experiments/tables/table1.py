"""Table 1: accuracy under the Single Fourier Attack, at the best strengths."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absum_jax.markdown import aligned
from experiments.config import NONE, Setting
from experiments.data import DATASETS
from experiments.jobs.shards import DivisionOptions
from experiments.methods import METHODS
from experiments.options import SweepOptions
from experiments.published import Published
from experiments.reporting import claims, document, naming
from experiments.reporting.claims import Claim
from experiments.reporting.document import Document
from experiments.reporting.outcomes import Outcome, sweep_workspace
from experiments.reporting.plots.saving import save
from experiments.reporting.plots.strength import FIGURES
from experiments.reporting.selection import (
    Row,
    by_setting,
    select,
    summarize,
    tried_under_attack,
)
from experiments.statistics.verdicts import OF_INTEREST, OF_INTEREST_MINIMUM_OR_TRANSFER


class _Part(NamedTuple):
    """A table of one kind of accuracy, one beside the other in print."""

    title: str  # before the names of columns
    prefix: str  # of the names of fields
    rows: Sequence[Row]
    published: Mapping[str, Published]


def _parts(options: SweepOptions, rows: Sequence[Row]) -> list[_Part]:
    """One, or one of the largest logit and one of the five largest."""
    top5 = [row.top5 for row in rows if row.top5 is not None]
    if not top5:
        return [_Part("", "", rows, options.published)]
    return [
        _Part("Top-1 ", "", rows, options.published),
        _Part("Top-5 ", "top5_", top5, options.published_top5),
    ]


def _records(parts: Sequence[_Part]) -> list[dict[str, Any]]:
    """The rows as plain values: fractions measured, percent published."""
    records: list[dict[str, Any]] = [
        {"method": row.setting.method, "strength": row.setting.strength}
        for row in parts[0].rows
    ]
    for part in parts:
        for record, row in zip(records, part.rows, strict=True):
            for name in ("avg", "min", "max", "clean"):
                for key, value in dataclasses.asdict(getattr(row, name)).items():
                    record[f"{part.prefix}{name}_{key}"] = value
            paper = part.published.get(row.setting.method)
            for name in ("avg", "min", "clean"):
                theirs = getattr(paper, name) if paper else None
                record[f"paper_{part.prefix}{name}"] = theirs
            record["paper_strength"] = paper.strength if paper else None
    return records


def _lines(parts: Sequence[_Part]) -> list[str]:
    """The table with the published number in brackets."""
    header = ["method"]
    lines = [[METHODS[row.setting.method].label] for row in parts[0].rows]
    for part in parts:
        header += [f"{part.title}{name}" for name in ("Avg.", "Min.", "CLN")]
        for cells, row in zip(lines, part.rows, strict=True):
            paper = part.published.get(row.setting.method)
            for name in ("avg", "min", "clean"):
                theirs = getattr(paper, name) if paper else None
                cell = document.with_published(getattr(row, name), theirs)
                cells.append(cell + _not_available(part.published, row.setting))
    header.append("lambda / sigma")
    published = parts[0].published
    for cells, row in zip(lines, parts[0].rows, strict=True):
        paper = published.get(row.setting.method)
        cell = document.strength(row.setting, paper.strength if paper else None)
        cells.append(cell + _not_available(published, row.setting))
    return aligned(header, lines)


def _not_available(published: Mapping[str, Published], setting: Setting) -> str:
    """Says so where the paper has the other methods, but not this."""
    is_missing = published and setting != NONE and setting.method not in published
    return " (N/A)" if is_missing else ""


def _claims(
    rows: Sequence[Row],
    groups: Mapping[Any, list[Outcome]],
    published: Mapping[str, Published],
) -> list[Claim]:
    """Absum and SNC withstand the attack better than weight decay and L1."""
    return [
        claim
        for ours, theirs, label, of_interest in (
            ("mean", "avg", "Avg.", OF_INTEREST),
            ("min", "min", "Min.", OF_INTEREST_MINIMUM_OR_TRANSFER),
        )
        for claim in claims.above(
            {
                row.setting.method: [
                    float(getattr(outcome.test.frequencies, ours))
                    for outcome in groups[row.setting]
                ]
                for row in rows
            },
            claims.ROBUST,
            claims.STANDARD,
            label,
            of_interest=of_interest,
            published={m: getattr(cells, theirs) for m, cells in published.items()},
        )
    ]


def table1(options: SweepOptions, outcomes: Sequence[Outcome]) -> Document:
    """Selects strengths and summarises the seeds.

    Args:
      options: what was asked for.
      outcomes: all models.
    """
    chosen, left_out = select(outcomes)
    groups = by_setting(outcomes)
    images = outcomes[0].test.images
    rows = [
        summarize(chosen[method], groups[chosen[method]])
        for method in options.methods
        if method in chosen
    ]
    parts = _parts(options, rows)
    criterion = f"{parts[0].title}Avg."
    selection = document.selection_note(options, criterion)
    held = _claims(rows, groups, options.published)
    notes = [
        f"{document.single_fourier_note(options, outcomes[0])}"
        f"{document.with_spread(options)}."
        f"{document.beside(options.dataset, options.published)}",
        document.training_note(options, selection),
        *document.left_out_note(outcome.run.config for outcome in left_out),
    ]
    records = _records(parts)
    return Document(
        "table1",
        "Table 1",
        options,
        document.body(_lines(parts), notes, claims.section(held)),
        records,
        {
            "test_images": images,
            "selection": selection,
            "eps": DATASETS[options.dataset].conditions.single_fourier_eps,
            "rows": records,
            "claims": [claim.as_dict() for claim in held],
            "models": [outcome.as_dict() for outcome in outcomes],
        },
    )


@dataclasses.dataclass(frozen=True)
class Table1Options(SweepOptions):
    """Accuracy under the Single Fourier Attack of every method (Table 1), and the same
    against the strength (Figures 2, 4 and 5). What is trained already is not trained
    again."""  # noqa: D205, D209

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables and figures."""

    division: DivisionOptions = dataclasses.field(default_factory=DivisionOptions)


def run(options: Table1Options) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and writes it with its figures."""
    part = options.division.own
    with sweep_workspace(options, part) as workspace:
        outcomes = tried_under_attack(options, workspace)
    if part is not None:
        models = len(options.settings) * len(options.trial_seeds)
        configs = [outcome.run.config for outcome in outcomes]
        print(f"\n{document.part_note(part, configs, models)}\n")
        return []
    table = table1(options, outcomes)
    print(f"\n{table.markdown}\n")
    written = table.write(options.results_dir)
    # At the paper's strengths alone there is nothing to draw against the strength.
    for name, draw in FIGURES.items() if options.select_on != "paper" else ():
        figure = draw(outcomes)
        if figure is not None:
            written += save(figure, options.results_dir / naming.path(name, options))
    return written
