"""Table 2: accuracy under PGD transferred between models of two seeds."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from experiments.data import pgd_of
from experiments.evaluation import clean, gradient
from experiments.methods import METHODS
from experiments.options import SweepOptions, filled_up, pairs
from experiments.published import TABLE2
from experiments.reporting import columns, comparisons, document
from experiments.reporting.columns import METHOD, STRENGTH, Column, Table
from experiments.reporting.document import Document
from experiments.reporting.evaluated import sweep_workspace
from experiments.reporting.selection import Selected, select_as_table1
from experiments.statistics.summary import Statistic
from experiments.statistics.verdicts import OF_INTEREST_MINIMUM_OR_TRANSFER


@dataclasses.dataclass(frozen=True)
class Table2Options:
    """Measure accuracy under PGD transferred from another model: one of the same method
    with another seed (Table 2), and those of every other method. Seeds attack each
    other in pairs: the first two given, the next two, and so on; if their number is
    odd, one more seed is added. Models of Table 1 are reused."""  # noqa: D205, D209

    sweep: SweepOptions = dataclasses.field(default_factory=SweepOptions)

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables."""

    def __post_init__(self) -> None:
        pgd_of(self.sweep.models.dataset)  # refuses data sets without PGD


def run(options: Table2Options) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and writes it."""
    sweep = options.sweep
    eps = pgd_of(sweep.models.dataset).transfer_eps
    steps = gradient.published_steps(sweep.models.dataset)
    seeds = filled_up(sweep.seeds)
    with sweep_workspace(sweep) as workspace:
        selected = select_as_table1(sweep, workspace)
        runs = selected.all_runs
        if added := seeds[len(sweep.seeds) :]:
            runs = runs + workspace.train(selected.settings, added)
        of_seed = {s: [run for run in runs if run.config.seed == s] for s in seeds}
        matrix = [
            gradient.transferred(
                workspace.test, of_seed[seed], of_seed[other], eps, steps
            )
            for pair in pairs(seeds)
            for seed, other in (pair, pair[::-1])
        ]
        in_pairs = [run for group in of_seed.values() for run in group]
        results = clean.evaluate(workspace.test, in_pairs)
        images = len(workspace.test.split)
    accuracies = [result.accuracy for result in results]
    transfer = Transfer(np.array(matrix), np.reshape(accuracies, (len(seeds), -1)))
    return table2(sweep, selected, transfer, images).print_and_write(
        options.results_dir
    )


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Accuracies as fractions, of seeds in the order of their pairs."""

    matrix: np.ndarray  # (seeds, targets, substitutes), methods in the same order
    clean: np.ndarray  # (seeds, targets)

    @property
    def of_pairs(self) -> np.ndarray:
        """Returns each pair's mean matrix, (pairs, targets, substitutes)."""
        return self.matrix.reshape(-1, 2, *self.matrix.shape[1:]).mean(axis=1)


Row: TypeAlias = columns.Row[Mapping[str, np.ndarray], float]


def table2(
    options: SweepOptions, selected: Selected, transfer: Transfer, images: int
) -> Document[Row]:
    """Summarizes the seeds."""
    published = options.models.published(TABLE2)
    methods, of_pairs = list(selected.runs), transfer.of_pairs
    rows = [
        Row(
            setting,
            {"transferred": of_pairs[:, i, i], "clean": transfer.clean[:, i]},
            published,
        )
        for i, setting in enumerate(selected.settings)
    ]
    labels = [METHODS[method].label for method in methods]
    matrix = [
        [label, *(str(Statistic.of(cell, images)) for cell in cells)]
        for label, cells in zip(labels, np.moveaxis(of_pairs, 0, -1), strict=True)
    ]
    return Document(
        "table2",
        "Table 2",
        options,
        table=Table([METHOD, *COLUMNS, STRENGTH], rows, images),
        notes=[
            _attack_note(options, images, len(of_pairs)),
            *document.common_notes(options, "Avg.", selected.left_out),
        ],
        claims=comparisons.compare(
            {row.setting.method: row.results["transferred"] for row in rows},
            comparisons.ROBUST,
            comparisons.STANDARD,
            of_interest=OF_INTEREST_MINIMUM_OR_TRANSFER,
            published=published,
            unit="pair of seeds",
        ),
        conditions={
            "test_images": images,
            "pgd": {"eps": pgd_of(options.models.dataset).transfer_eps}
            | dataclasses.asdict(gradient.published_steps(options.models.dataset)),
        },
        details={
            "methods": methods,
            "seeds": filled_up(options.seeds),
            "matrix": transfer.matrix.tolist(),
        },
        appendix=[
            "Every method's models under attacks made on every other's, beyond the "
            "paper:",
            "",
            *columns.aligned(["attacked \\ attack made on", *labels], matrix),
        ],
    )


# A column added here appears in Markdown, CSV and JSON.
COLUMNS: list[Column[Row]] = [
    Column(
        "transferred",
        "transferred PGD",
        lambda row: row.results["transferred"],
        lambda row: row.published_value(float),
    ),
    Column("clean", "CLN", lambda row: row.results["clean"]),
]


def _attack_note(options: SweepOptions, images: int, pairs_of_seeds: int) -> str:
    dataset, published = options.models.dataset, options.models.published(TABLE2)
    eps = pgd_of(dataset).transfer_eps
    attack = gradient.published_steps(dataset)
    spread = "" if pairs_of_seeds == 1 else " and ± standard deviation over pairs"
    return (
        f"Accuracy in percent under PGD (eps = {eps:.4g}, {attack.steps} "
        f"steps of {attack.step_size:.4g}, start within {attack.init_radius:.4g}) on "
        f"{images:,} test images, made on a model of the same method and strength with "
        "the other seed of a pair, and on clean images; mean over both directions"
        f"{spread}.{document.published_note(dataset, published)}"
    )
