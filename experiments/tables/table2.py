"""Table 2: accuracy under PGD transferred from models of another seed."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from absum_jax._markdown import aligned
from experiments.adversaries import check_attacked
from experiments.claims.verdicts import OF_INTEREST_MINIMUM_OR_TRANSFER
from experiments.evaluation import clean, gradient
from experiments.labels import METHOD_NAMES
from experiments.options import SweepOptions
from experiments.outcomes import sweep_workspace
from experiments.paper import PGD, TABLE2, published_as
from experiments.tables import claims, document
from experiments.tables.document import Document
from experiments.tables.selection import Chosen, choose
from experiments.tables.statistics import Statistic


@dataclasses.dataclass(frozen=True)
class Table2Options(SweepOptions):
    """Accuracy under PGD on a model trained alike with another seed (Table 2), and on
    models of every other method. Models of Table 1 are taken where they lie, and those
    of the next seed are trained."""  # noqa: D205, D209

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables."""

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        check_attacked(self.dataset)


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Accuracies as fractions."""

    matrix: np.ndarray  # (seeds, targets, substitutes), methods in the same order
    clean: np.ndarray  # (seeds, targets)


def substitute_seed(seed: int) -> int:
    """The seed of the models that the attack on a seed's models goes through."""
    return (seed + 1) % 2**31


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
                METHOD_NAMES[setting.method],
                document.with_published(attacked, paper),
                str(unharmed),
                document.strength(setting, None),
            )
        )
    return aligned(header, rows)


def _matrix_lines(
    methods: Sequence[str], cells: Sequence[Sequence[Statistic]]
) -> list[str]:
    names = [METHOD_NAMES[method] for method in methods]
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
    pgd = PGD[published_as(options.dataset)]
    published = document.published(options, TABLE2)
    methods = list(chosen.runs)
    cells = [
        [Statistic.of(transfer.matrix[:, i, j], images) for j in range(len(methods))]
        for i in range(len(methods))
    ]
    own = [cells[i][i] for i in range(len(methods))]
    plain = [Statistic.of(column, images) for column in transfer.clean.T]
    held = claims.above(
        {m: transfer.matrix[:, i, i] for i, m in enumerate(methods)},
        claims.ROBUST,
        claims.STANDARD,
        of_interest=OF_INTEREST_MINIMUM_OR_TRANSFER,
        published=published,
    )
    attack = gradient.published_steps(options.dataset)
    notes = [
        f"Accuracy in percent under PGD (eps = {pgd.transfer_eps:.4g}, {attack.steps} "
        f"steps of {attack.step_size:.4g}, start within {attack.init_radius:.4g}) on "
        f"{images:,} test images, made on a model of the same method and strength and "
        f"of the next seed, and on clean images{document.with_spread(options)}."
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
            "matrix": transfer.matrix.tolist(),
        },
    )


def run(options: Table2Options) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and writes it."""
    with sweep_workspace(options) as workspace:
        chosen = choose(options, workspace)
        next_seeds = [substitute_seed(seed) for seed in options.seeds]
        substitutes = workspace.train(chosen.settings, next_seeds)
        of_seed = {
            seed: [run for run in substitutes if run.config.seed == seed]
            for seed in next_seeds
        }
        eps = PGD[published_as(options.dataset)].transfer_eps
        matrix = [
            gradient.transferred(
                workspace.test,
                [runs[i] for runs in chosen.runs.values()],
                of_seed[substitute_seed(seed)],
                eps,
                gradient.published_steps(options.dataset),
            )
            for i, seed in enumerate(options.seeds)
        ]
        answers = clean.evaluate(workspace.test, chosen.all_runs)
        images = len(workspace.test.split)
    accuracies = np.array([answer.accuracy for answer in answers])
    plain = accuracies.reshape(len(chosen.runs), len(options.seeds)).T
    table = table2(options, chosen, Transfer(np.array(matrix), plain), images)
    print(f"\n{table.markdown}\n")
    return table.write(options.results_dir)
