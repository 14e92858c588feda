"""Table 2: accuracy under PGD transferred between models of two seeds."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from experiments.data import pgd_of
from experiments.evaluation import clean, gradient
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS
from experiments.options import (
    AttackName,
    SweepOptions,
    both_ways,
    check_choices,
    filled_up,
    pairs,
)
from experiments.published import TABLE2
from experiments.reporting import columns, comparisons, document
from experiments.reporting.columns import METHOD, STRENGTH, Column, Table
from experiments.reporting.comparisons import Comparison
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

    attack: tuple[AttackName, ...] = ("pgd",)
    """What makes the images. pgd: the paper's PGD. auto: Auto-PGD with 100 steps, in a
    column of its own, beyond the paper."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables."""

    def __post_init__(self) -> None:
        pgd_of(self.sweep.models.dataset)  # refuses data sets without PGD
        check_choices("--attack", self.attack)


def run(options: Table2Options) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and writes it."""
    sweep = options.sweep
    eps = pgd_of(sweep.models.dataset).transfer_eps
    seeds = filled_up(sweep.seeds)
    with sweep_workspace(sweep) as workspace:
        selected = select_as_table1(sweep, workspace)
        runs = selected.all_runs
        added = seeds[len(sweep.seeds) :]
        if added:
            runs = runs + workspace.train(selected.settings, added)
        of_seed = {s: [run for run in runs if run.config.seed == s] for s in seeds}
        matrices = {
            attack: np.array(
                [
                    gradient.transferred(
                        workspace.test, of_seed[seed], of_seed[other], eps,
                        _steps(sweep.models.dataset, attack),
                    )
                    for seed, other in both_ways(pairs(seeds))
                ]
            )
            for attack in options.attack
        }  # fmt: skip
        in_pairs = [run for group in of_seed.values() for run in group]
        results = clean.evaluate(workspace.test, in_pairs)
        images = len(workspace.test.split)
    if broken := [
        run.config
        for run, result in zip(in_pairs, results, strict=True)
        if run.config.seed in added
        and clean.is_degenerate(run, result.classes_predicted)
    ]:
        raise UsageError(
            f"--seeds has no partner for seed {sweep.seeds[-1]}, and these models with "
            f"another one answer one class or diverged: {document.names(broken)}."
        )
    accuracies = [result.accuracy for result in results]
    transfer = Transfer(matrices, np.reshape(accuracies, (len(seeds), -1)))
    of_pairs = dataclasses.replace(sweep, seeds=seeds)
    return table2(of_pairs, selected, transfer, images).print_and_write(
        options.results_dir
    )


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Accuracies as fractions, of seeds in the order of their pairs."""

    # Of each attack: (seeds, targets, substitutes), methods in the same order.
    matrices: Mapping[AttackName, np.ndarray]
    clean: np.ndarray  # (seeds, targets)

    def of_pairs(self, attack: AttackName) -> np.ndarray:
        """Returns each pair's mean matrix, (pairs, targets, substitutes)."""
        matrix = self.matrices[attack]
        return matrix.reshape(-1, 2, *matrix.shape[1:]).mean(axis=1)


Row: TypeAlias = columns.Row[Mapping[str, np.ndarray], float]


def table2(
    options: SweepOptions, selected: Selected, transfer: Transfer, images: int
) -> Document[Row]:
    """Summarizes the seeds."""
    attacks, dataset = list(transfer.matrices), options.models.dataset
    of_pairs = {attack: transfer.of_pairs(attack) for attack in attacks}
    rows = [
        Row(
            setting,
            {_KEYS[a]: matrices[:, i, i] for a, matrices in of_pairs.items()}
            | {"clean": transfer.clean[:, i]},
            options.models.published(TABLE2),
        )
        for i, setting in enumerate(selected.settings)
    ]
    eps = pgd_of(dataset).transfer_eps
    return Document(
        "table2" if "pgd" in attacks else "table2-auto",
        "Table 2",
        options,
        table=Table(
            [METHOD, *(_TRANSFERRED[a] for a in attacks), *COLUMNS, STRENGTH], rows,
            images,
        ),
        notes=[
            _attack_note(options, attacks, images, len(transfer.clean) // 2),
            *document.common_notes(options, "Avg.", selected.left_out),
        ],
        claims=[claim for attack in attacks for claim in _claims(attack, rows)],
        conditions={
            "test_images": images,
            **{
                _NAMES[attack].lower(): {"eps": eps}
                | dataclasses.asdict(_steps(dataset, attack))
                for attack in attacks
            },
        },
        details={
            "methods": list(selected.runs),
            "seeds": filled_up(options.seeds),
            **{
                _KEYS[attack].replace("transferred", "matrix"): matrix.tolist()
                for attack, matrix in transfer.matrices.items()
            },
        },
        appendix=_matrices(selected, of_pairs, images),
        # As earlier versions have it, which knew the paper's attack alone.
        more_options={} if attacks == ["pgd"] else {"attack": attacks},
    )  # fmt: skip


_NAMES: Mapping[AttackName, str] = {"pgd": "PGD", "auto": "APGD"}
_KEYS: Mapping[AttackName, str] = {"pgd": "transferred", "auto": "transferred_apgd"}
_TRANSFERRED: Mapping[AttackName, Column[Row]] = {
    "pgd": Column(
        "transferred",
        "transferred PGD",
        lambda row: row.results["transferred"],
        lambda row: row.published_value(float),
    ),
    "auto": Column(
        "transferred_apgd",
        "transferred APGD",
        lambda row: row.results["transferred_apgd"],
    ),
}
# A column added here appears in Markdown, CSV and JSON, after those of the attacks.
COLUMNS: list[Column[Row]] = [
    Column("clean", "CLN", lambda row: row.results["clean"]),
]


def _steps(dataset: str, attack: AttackName) -> gradient.Steps | gradient.AutoSteps:
    """Returns the steps of an attack, but for eps, which is that of the paper."""
    is_auto = attack == "auto"
    return gradient.AutoSteps() if is_auto else gradient.published_steps(dataset)


def _claims(attack: AttackName, rows: Sequence[Row]) -> list[Comparison]:
    """Compares methods as the paper does under transferred PGD."""
    is_auto = attack == "auto"
    return comparisons.compare(
        {row.setting.method: row.results[_KEYS[attack]] for row in rows},
        comparisons.ROBUST,
        comparisons.STANDARD,
        "APGD" if is_auto else "",
        of_interest=OF_INTEREST_MINIMUM_OR_TRANSFER,
        published={} if is_auto else rows[0].published,
        unit="pair of seeds",
        is_beyond=is_auto,
    )


def _matrices(
    selected: Selected, of_pairs: Mapping[AttackName, np.ndarray], images: int
) -> list[str]:
    """Makes a table of attacked methods and attacking ones for each attack."""
    labels = [METHODS[method].label for method in selected.runs]
    lines: list[str] = []
    for attack, matrices in of_pairs.items():
        by = f" by {_NAMES[attack]}" if len(of_pairs) > 1 else ""
        cells = [
            [label, *(str(Statistic.of(cell, images)) for cell in row)]
            for label, row in zip(labels, np.moveaxis(matrices, 0, -1), strict=True)
        ]
        lines += [
            *([""] if lines else []),
            f"Every method's models under attacks{by} made on every other's, beyond "
            "the paper:",
            "",
            *columns.aligned(["attacked \\ attack made on", *labels], cells),
        ]
    return lines


def _attack_note(
    options: SweepOptions, attacks: Sequence[AttackName], images: int,
    pairs_of_seeds: int,
) -> str:  # fmt: skip
    dataset, published = options.models.dataset, options.models.published(TABLE2)
    eps = pgd_of(dataset).transfer_eps
    pgd, apgd = gradient.published_steps(dataset), gradient.AutoSteps()
    described = {
        "pgd": f"PGD (eps = {eps:.4g}, {pgd.steps} steps of {pgd.step_size:.4g}, start "
        f"within {pgd.init_radius:.4g})",
        "auto": f"Auto-PGD (APGD: eps = {eps:.4g}, {apgd.steps} steps, cross-entropy)",
    }
    spread = "CLN: ± standard deviation over seeds"
    if pairs_of_seeds > 1:
        spread = "± standard deviation over pairs, in the column CLN over seeds"
    note = ""
    if "pgd" in attacks:
        note = document.published_note(dataset, published)
    return (
        f"Accuracy in percent under {' and '.join(described[a] for a in attacks)} on "
        f"{images:,} test images, made on a model of the same method and strength with "
        "the other seed of a pair, and on clean images; mean over both "
        f"directions; {spread}.{note}"
    )
