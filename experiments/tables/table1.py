"""Table 1: accuracy under the Single Fourier Attack, at the best strengths."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absum_jax._markdown import aligned
from experiments.figures.saving import save
from experiments.figures.strength import FIGURES
from experiments.labels import METHOD_NAMES
from experiments.options import SweepOptions
from experiments.outcomes import Outcome, run_sweep
from experiments.paper import SINGLE_FOURIER_EPS, Published, published_as
from experiments.parts import DivisionOptions
from experiments.tables import claims, document, naming
from experiments.tables.claims import Claim
from experiments.tables.document import Document
from experiments.tables.selection import Row, by_setting, select, summarize


def _records(
    rows: Sequence[Row], published: Mapping[str, Published]
) -> list[dict[str, Any]]:
    """The rows as plain values: fractions measured, percent published."""
    records = []
    for row in rows:
        record: dict[str, Any] = {
            "method": row.setting.method,
            "strength": row.setting.strength,
        }
        for name in ("avg", "min", "max", "clean"):
            statistic = dataclasses.asdict(getattr(row, name))
            record |= {f"{name}_{key}": value for key, value in statistic.items()}
        paper = published.get(row.setting.method)
        for name in ("avg", "min", "clean", "strength"):
            record[f"paper_{name}"] = getattr(paper, name) if paper else None
        records.append(record)
    return records


def _lines(rows: Sequence[Row], published: Mapping[str, Published]) -> list[str]:
    """The table with the published number in brackets."""
    header = ("method", "Avg.", "Min.", "CLN", "lambda / sigma")
    lines = []
    for row in rows:
        paper = published.get(row.setting.method)
        cells = [METHOD_NAMES[row.setting.method]]
        for name in ("avg", "min", "clean"):
            theirs = getattr(paper, name) if paper else None
            cells.append(document.with_published(getattr(row, name), theirs))
        cells.append(document.strength(row.setting, paper.strength if paper else None))
        lines.append(cells)
    return aligned(header, lines)


def _claims(rows: Sequence[Row], groups: Mapping[Any, list[Outcome]]) -> list[Claim]:
    """Absum and SNC withstand the attack better than weight decay and L1."""
    return [
        claim
        for name, label in (("mean", "Avg."), ("min", "Min."))
        for claim in claims.above(
            {
                row.setting.method: [
                    float(getattr(outcome.test.frequencies, name))
                    for outcome in groups[row.setting]
                ]
                for row in rows
            },
            claims.ROBUST,
            claims.STANDARD,
            label,
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
    published = options.published
    selection = document.selection_note(options, "Avg.")
    held = _claims(rows, groups)
    notes = [
        f"{document.single_fourier_note(options, outcomes[0])}"
        f"{document.with_spread(options)}."
        f"{document.beside(options.dataset, published)}",
        document.training_note(options, selection),
        *document.left_out_note(outcome.run.config for outcome in left_out),
    ]
    records = _records(rows, published)
    return Document(
        "table1",
        "Table 1",
        options,
        document.body(_lines(rows, published), notes, claims.section(held)),
        records,
        {
            "test_images": images,
            "selection": selection,
            "eps": SINGLE_FOURIER_EPS[published_as(options.dataset)],
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
    outcomes = run_sweep(options, part=part)
    if part is not None:
        models = len(options.settings) * len(options.seeds)
        configs = [outcome.run.config for outcome in outcomes]
        print(f"\n{document.part_note(part, configs, models)}\n")
        return []
    table = table1(options, outcomes)
    print(f"\n{table.markdown}\n")
    written = table.write(options.results_dir)
    for name, draw in FIGURES.items():
        figure = draw(outcomes)
        if figure is not None:
            written += save(figure, options.results_dir / naming.path(name, options))
    return written
