"""Table 1: accuracy under the Single Fourier Attack, at the best strengths."""

import dataclasses
import operator
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from experiments.composed import result_options
from experiments.data import DATASETS
from experiments.evaluation.single_fourier import Robustness
from experiments.jobs.parts import DivisionOptions
from experiments.options import SweepOptions
from experiments.published import TABLE1, TABLE1_TOP5, Published
from experiments.reporting import columns, comparisons, document, naming
from experiments.reporting.columns import METHOD, STRENGTH_AND_PUBLISHED, Column, Table
from experiments.reporting.comparisons import Comparison
from experiments.reporting.document import Document
from experiments.reporting.evaluated import (
    ACCURACIES,
    SingleFourierModel,
    sweep_workspace,
)
from experiments.reporting.plots.saving import save
from experiments.reporting.plots.strength import FIGURES
from experiments.reporting.selection import models_of_table1, select
from experiments.statistics.verdicts import OF_INTEREST, OF_INTEREST_MINIMUM_OR_TRANSFER


@dataclasses.dataclass(frozen=True)
class Table1Options:
    """Measure every method's accuracy under the Single Fourier Attack (Table 1), and
    draw it against the strength (Figures 2, 4 and 5). Models that are already trained
    are reused."""  # noqa: D205, D209

    sweep: SweepOptions = dataclasses.field(default_factory=SweepOptions)

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables and figures."""

    division: DivisionOptions = dataclasses.field(default_factory=DivisionOptions)


def run(options: Table1Options) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and writes it with its figures."""
    sweep, part = options.sweep, options.division.selected
    with sweep_workspace(sweep, part, result_options(options)) as workspace:
        models = models_of_table1(sweep, workspace)
    if part is not None:
        runs = [model.run for model in models]
        print(f"\n{document.part_note(sweep, part, runs)}\n")
        return []
    written = table1(sweep, models).print_and_write(options.results_dir)
    # At the paper's strengths alone there is nothing to draw against the strength.
    for name, draw in FIGURES.items() if sweep.select_on != "paper" else ():
        figure = draw(models)
        if figure is not None:
            stem = options.results_dir / naming.path(name, sweep)
            label = f"Figure {name.removeprefix('figure')}"
            title = naming.figure_title(label, sweep.models, naming.scale(sweep))
            written += save(figure, title, stem)
    return written


Row: TypeAlias = columns.Row[Sequence[Robustness], Published]


def table1(
    options: SweepOptions, models: Sequence[SingleFourierModel]
) -> Document[Row]:
    """Selects strengths and summarizes the seeds."""
    published = options.models.published(TABLE1)
    selected, degenerate = select(models, options.methods)
    rows = [
        Row(setting, [model.test for model in group], published)
        for setting, group in selected.items()
    ]
    has_top5 = any(test.top5 for row in rows for test in row.results)
    criterion = "Top-1 Avg." if has_top5 else "Avg."
    left_out = [model.run.config for model in degenerate]
    test = models[0].test
    return Document(
        "table1",
        "Table 1",
        options,
        table=Table(_columns(options, has_top5=has_top5), rows, test.images),
        notes=[
            _attack_note(options, test),
            *document.common_notes(options, criterion, left_out),
        ],
        claims=_claims(rows, published),
        conditions={
            "test_images": test.images,
            "selection": document.selection_note(options, criterion),
            "eps": DATASETS[options.models.dataset].conditions.single_fourier_eps,
        },
        details={"models": [model.as_dict() for model in models]},
    )


def _accuracy(key: str, title: str) -> Column[Row]:
    return Column(
        key,
        title,
        lambda row: [ACCURACIES[key](test) for test in row.results],
        lambda row: row.published_value(operator.attrgetter(key)),
    )


# A column added here appears in Markdown, CSV and JSON.
COLUMNS: list[Column[Row]] = [
    _accuracy("avg", "Avg."),
    _accuracy("min", "Min."),
    dataclasses.replace(
        _accuracy("max", "Max."), published=None, outputs=columns.RECORDED
    ),
    _accuracy("clean", "CLN"),
]


def _columns(options: SweepOptions, *, has_top5: bool) -> list[Column[Row]]:
    """Returns all columns; where there are top-5 accuracies, they follow top-1."""
    shown = COLUMNS
    if has_top5:
        shown = [dataclasses.replace(c, title=f"Top-1 {c.title}") for c in COLUMNS]
        published = options.models.published(TABLE1_TOP5)
        shown += [_of_top5(column, published) for column in COLUMNS]
    return [METHOD, *shown, STRENGTH_AND_PUBLISHED]


def _of_top5(column: Column[Row], published: Mapping[str, Published]) -> Column[Row]:
    def top5(row: Row) -> Row:
        return Row(row.setting, [test.top5 or test for test in row.results], published)

    read = column.published
    return dataclasses.replace(
        column,
        key=f"top5_{column.key}",
        title=f"Top-5 {column.title}",
        value=lambda row: column.value(top5(row)),
        published=read and (lambda row: read(top5(row))),
        group="top5",
    )


def _claims(
    rows: Sequence[Row], published: Mapping[str, Published]
) -> list[Comparison]:
    """Compares Absum and SNC under the attack with weight decay and L1."""

    def claims(key: str, label: str, of_interest: float) -> list[Comparison]:
        accuracy = ACCURACIES[key]
        return comparisons.compare(
            {r.setting.method: [accuracy(test) for test in r.results] for r in rows},
            comparisons.ROBUST, comparisons.STANDARD, label, of_interest=of_interest,
            published={m: getattr(cells, key) for m, cells in published.items()},
        )  # fmt: skip

    worst = claims("min", "Min.", OF_INTEREST_MINIMUM_OR_TRANSFER)
    return claims("avg", "Avg.", OF_INTEREST) + worst


def _attack_note(options: SweepOptions, test: Robustness) -> str:
    dataset = DATASETS[options.models.dataset]
    eps = dataset.conditions.single_fourier_eps
    kinds = ""
    if test.top5 is not None:
        kinds = ", of the largest logit (Top-1) and of the five largest (Top-5),"
    are_all = test.grid.shape == dataset.image_shape[:2]
    end, _ = test.grid.shape
    below = "" if are_all or test.stride > 1 else f", l and m below {end}"
    return (
        f"Accuracy in percent{kinds} under the Single Fourier Attack, "
        f"eps = {255 * eps:g}/255, on {test.images:,} test images: mean and minimum "
        f"over {'all ' if are_all else ''}{test.grid.size:,} frequencies{below}, and "
        f"on clean images{document.spread_note(options)}."
        f"{document.published_note(dataset.name, options.models.published(TABLE1))}"
    )
