"""Published numbers, shown beside ours: a module for each paper.

Data sets and methods that a paper does not list, such as new ones, have no row or cell.
"""

from collections.abc import Mapping

from experiments.data import DATASETS
from experiments.methods import METHODS
from experiments.published.kanai_2020 import (
    SINGLE_FOURIER_FREQUENCIES,
    SPECTRUM_EPS,
    TABLE1,
    TABLE1_TOP5,
    TABLE2,
    TABLE3,
    TABLE4,
    Cell,
    Published,
    PublishedPgd,
    Table,
)

__all__ = [
    "SINGLE_FOURIER_FREQUENCIES",
    "SPECTRUM_EPS",
    "TABLE1",
    "TABLE1_TOP5",
    "TABLE2",
    "TABLE3",
    "TABLE4",
    "Cell",
    "Published",
    "PublishedPgd",
    "Table",
    "published_difference",
    "published_row",
]


def published_row(table: Table[Cell], dataset: str, network: str) -> dict[str, Cell]:
    """Returns the published cells to show beside ours, by method; empty if none.

    A data set or method without published numbers has those of its parent.
    """
    parent = DATASETS[dataset].parent or dataset
    cells = table.get((parent, network), {})
    variants = {n: cells[m.parent] for n, m in METHODS.items() if m.parent in cells}
    return cells | variants


def published_difference(
    percent: Mapping[str, float], larger: str, smaller: str
) -> float | None:
    """Returns a published difference as a fraction; None if a method is not there."""
    if larger not in percent or smaller not in percent:
        return None
    # Numbers in print have two decimals, means of them more: this drops rounding alone.
    return round((percent[larger] - percent[smaller]) / 100, 9)
