"""Table 2: accuracy under PGD transferred between models of two seeds."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from absum_jax.markdown import aligned
from experiments.adversaries import check_attacked
from experiments.data import pgd_of
from experiments.evaluation import clean, gradient
from experiments.methods import METHODS
from experiments.options import SweepOptions, filled_up, pairs
from experiments.published import TABLE2, published_row
from experiments.reporting import claims, document
from experiments.reporting.document import Document
from experiments.reporting.outcomes import sweep_workspace
from experiments.reporting.selection import Chosen, choose
from experiments.statistics.summary import Statistic
from experiments.statistics.verdicts import OF_INTEREST_MINIMUM_OR_TRANSFER


@dataclasses.dataclass(frozen=True)
class Table2Options(SweepOptions):
    """Accuracy under PGD on a model trained alike with another seed (Table 2), and on
    models of every other method. Seeds attack each other in pairs: the first two given,
    the next two, and so on; an odd number is filled up with one more seed. Models of
    Table 1 are reused."""  # noqa: D205, D209

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables."""

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        check_attacked(self.dataset)


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Accuracies as fractions, of seeds in the order of their pairs."""

    matrix: np.ndarray  # (seeds, targets, substitutes), methods in the same order
    clean: np.ndarray  # (seeds, targets)

    @property
    def of_pairs(self) -> np.ndarray:
        """The mean matrix of each pair of seeds, (pairs, targets, substitutes)."""
        return self.matrix.reshape(-1, 2, *self.matrix.shape[1:]).mean(axis=1)


def _lines(
    chosen: Chosen, own: Sequence[Statistic], plain: Sequence[Statistic],
    published: Mapping[str, float],
) -> list[str]:  # fmt: skip
    header = ("method", "transferred PGD", "CLN", "lambda / sigma")
    rows = []
    for setting, attacked, unharmed in zip(chosen.settings, own, plain, strict=True):
        paper = published.get(setting.method)
        rows.append(
            (
                METHODS[setting.method].label,
                document.with_published(attacked, paper),
                str(unharmed),
                document.strength(setting, None),
            )
        )
    return aligned(header, rows)


def _matrix_lines(
    methods: Sequence[str], cells: Sequence[Sequence[Statistic]]
) -> list[str]:
    names = [METHODS[method].label for method in methods]
    header = ("attacked \\ attack made on", *names)
    rows = [(name, *map(str, row)) for name, row in zip(names, cells, strict=True)]
    return aligned(header, rows)


def table2(
    options: SweepOptions, chosen: Chosen, transfer: Transfer, images: int
) -> Document:
    """Summarises the seeds.

    Args:
      options: what was asked for.
      chosen: the attacked models.
      transfer: what they withstand.
      images: how many were attacked.
    """
    pgd = pgd_of(options.dataset)
    published = published_row(TABLE2, options.dataset, options.published_network)
    methods, of_pairs = list(chosen.runs), transfer.of_pairs
    cells = [
        [Statistic.of(of_pairs[:, i, j], images) for j in range(len(methods))]
        for i in range(len(methods))
    ]
    own = [cells[i][i] for i in range(len(methods))]
    plain = [Statistic.of(column, images) for column in transfer.clean.T]
    held = claims.above(
        {m: of_pairs[:, i, i] for i, m in enumerate(methods)},
        claims.ROBUST,
        claims.STANDARD,
        of_interest=OF_INTEREST_MINIMUM_OR_TRANSFER,
        published=published,
        unit="pair of seeds",
    )
    attack = gradient.published_steps(options.dataset)
    spread = "" if len(of_pairs) == 1 else " and ± standard deviation over pairs"
    notes = [
        f"Accuracy in percent under PGD (eps = {pgd.transfer_eps:.4g}, {attack.steps} "
        f"steps of {attack.step_size:.4g}, start within {attack.init_radius:.4g}) on "
        f"{images:,} test images, made on a model of the same method and strength with "
        "the other seed of a pair, and on clean images; mean over both directions"
        f"{spread}."
        f"{document.beside(options.dataset, published)}",
        document.training_note(options, document.selection_note(options, "Avg.")),
        *document.left_out_note(chosen.left_out),
    ]
    matrix = [
        "Every method's models under attacks made on every other's, beyond the paper:",
        "",
        *_matrix_lines(methods, cells),
    ]
    records = [
        {
            "method": setting.method,
            "strength": setting.strength,
            **{f"transferred_{k}": v for k, v in dataclasses.asdict(attacked).items()},
            **{f"clean_{k}": v for k, v in dataclasses.asdict(unharmed).items()},
            "paper_transferred": published.get(setting.method),
        }
        for setting, attacked, unharmed in zip(chosen.settings, own, plain, strict=True)
    ]
    return Document(
        "table2",
        "Table 2",
        options,
        document.body(
            _lines(chosen, own, plain, published), notes, matrix, claims.section(held)
        ),
        records,
        {
            "test_images": images,
            "pgd": {"eps": pgd.transfer_eps} | dataclasses.asdict(attack),
            "rows": records,
            "claims": [claim.as_dict() for claim in held],
            "methods": methods,
            "seeds": filled_up(options.seeds),
            "matrix": transfer.matrix.tolist(),
        },
    )


def run(options: Table2Options) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and writes it."""
    eps = pgd_of(options.dataset).transfer_eps
    steps = gradient.published_steps(options.dataset)
    with sweep_workspace(options) as workspace:
        chosen = choose(options, workspace)
        seeds = filled_up(options.seeds)
        runs = chosen.all_runs
        if added := seeds[len(options.seeds) :]:
            runs = runs + workspace.train(chosen.settings, added)
        of_seed = {
            seed: [run for run in runs if run.config.seed == seed] for seed in seeds
        }
        matrix = [
            gradient.transferred(
                workspace.test, of_seed[seed], of_seed[other], eps, steps
            )
            for pair in pairs(seeds)
            for seed, other in (pair, pair[::-1])
        ]
        in_pairs = [run for of_one in of_seed.values() for run in of_one]
        answers = clean.evaluate(workspace.test, in_pairs)
        images = len(workspace.test.split)
    plain = np.array([answer.accuracy for answer in answers]).reshape(len(seeds), -1)
    table = table2(options, chosen, Transfer(np.array(matrix), plain), images)
    print(f"\n{table.markdown}\n")
    return table.write(options.results_dir)
