"""The numbers that the paper publishes, as data."""

from collections.abc import Mapping
from typing import TypeVar

from experiments.config import SNC_METHODS
from experiments.paper.attacks import (
    PGD,
    SINGLE_FOURIER_EPS,
    SINGLE_FOURIER_FREQUENCIES,
    SPECTRUM_EPS,
    Pgd,
)
from experiments.paper.table1 import TABLE1, TABLE1_TOP5, Published
from experiments.paper.table4 import TABLE4, PublishedPgd
from experiments.paper.tables2and3 import TABLE2, TABLE3
from experiments.paper.training import ADVERSARIAL_TRAINING, TRAINING

_Cell = TypeVar("_Cell")

__all__ = [
    "ADVERSARIAL_TRAINING",
    "PARENTS",
    "PGD",
    "SINGLE_FOURIER_EPS",
    "SINGLE_FOURIER_FREQUENCIES",
    "SPECTRUM_EPS",
    "TABLE1",
    "TABLE1_TOP5",
    "TABLE2",
    "TABLE3",
    "TABLE4",
    "TRAINING",
    "Pgd",
    "Published",
    "PublishedPgd",
    "published_as",
    "published_difference",
    "with_snc_readings",
]

# A data set that the paper does not list stands beside the rows of its parent.
PARENTS = {"mnist5k": "mnist"}


def published_as(dataset: str) -> str:
    """The data set of the paper that stands beside one of ours."""
    return PARENTS.get(dataset, dataset)


def with_snc_readings(row: Mapping[str, _Cell]) -> dict[str, _Cell]:
    """Puts the published cell of SNC beside each reading of SNC."""
    return dict(row) | {m: row["snc"] for m in SNC_METHODS if "snc" in row}


def published_difference(
    percent: Mapping[str, float], larger: str, smaller: str
) -> float | None:
    """Returns a published difference as a fraction; None if a method is not there."""
    if larger not in percent or smaller not in percent:
        return None
    # Numbers in print have two decimals, means of them more: this drops rounding alone.
    return round((percent[larger] - percent[smaller]) / 100, 9)
