"""The paper's claims that several runs decide (results/CRITERIA.md), as data."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.config import NONE
from experiments.methods import ABSUM_AUTODIFF, SNC_METHODS
from experiments.models import networks_for
from experiments.published import TABLE1, TABLE2, TABLE3, published_row
from experiments.reproduce.items import ALL_METHODS, SEEDS
from experiments.statistics.verdicts import OF_INTEREST, OF_INTEREST_MINIMUM_OR_TRANSFER

# The models of item 1, as fields of `SweepOptions`; all else is the published schedule.
# Another item is an entry here and a name among the `samples` of its claims.
SAMPLES: dict[str, dict[str, Any]] = {
    dataset: {
        "dataset": dataset,
        "methods": ALL_METHODS,
        "seeds": seeds,
        "select_on": "paper",
    }
    for dataset, seeds in SEEDS.items()
}
_ITEM_1 = tuple(SAMPLES)
_STANDARD = ("weight_decay", "l1")


class Quantity(NamedTuple):
    """What methods are compared by."""

    text: str
    of_interest: float = OF_INTEREST  # the smallest difference d, a fraction
    is_of_pairs: bool = False  # the unit is a pair of seeds, not a seed


QUANTITIES = {
    "minimum": Quantity(
        "minimum accuracy over frequencies", OF_INTEREST_MINIMUM_OR_TRANSFER
    ),
    "mean": Quantity("mean accuracy over frequencies"),
    "clean": Quantity("clean accuracy"),
    "low-pass": Quantity("accuracy without high frequencies (r = n / 4)"),
    "high-pass": Quantity("accuracy without low frequencies (mean over r = 0..n / 4)"),
    "pgd": Quantity("accuracy under PGD (mean over the eps list)"),
    "transferred": Quantity(
        "accuracy under transferred PGD", OF_INTEREST_MINIMUM_OR_TRANSFER, True
    ),
    "high share": Quantity("share of PGD's power beyond a quarter of the width"),
    "penalty": Quantity("penalty, relative to automatic differentiation's", 0.0),
}


class Claim(NamedTuple):
    """Each of some methods is said to be above each of others, or not to be."""

    name: str
    text: str
    quantities: tuple[str, ...]
    larger: tuple[str, ...]
    smaller: tuple[str, ...]
    denies: bool = False  # the claim is that `larger` do not improve on `smaller`
    samples: tuple[str, ...] = _ITEM_1

    @property
    def comparisons(self) -> Iterator[tuple[str, str, str]]:
        """Yields each quantity with each larger and each smaller method."""
        for quantity in self.quantities:
            for larger in self.larger:
                for smaller in self.smaller:
                    yield quantity, larger, smaller


def _primary(name: str, quantity: str, larger: tuple[str, ...], smaller: str) -> Claim:
    return Claim(name, QUANTITIES[quantity].text, (quantity,), larger, (smaller,))


# SNC as published is one of its two forms.
PRIMARY = (
    _primary("P1", "minimum", ("absum",), "weight_decay"),
    _primary("P2", "minimum", ("absum",), "l1"),
    _primary("P3", "minimum", SNC_METHODS, "weight_decay"),
    _primary("P4", "minimum", SNC_METHODS, "l1"),
    _primary("P5", "transferred", ("absum",), "weight_decay"),
    _primary("P6", "transferred", ("absum",), NONE.method),
)

SECONDARY = (
    Claim(
        "S1",
        "Mean accuracy over frequencies is higher with Absum than with weight decay "
        "and L1",
        ("mean",), ("absum",), _STANDARD,
    ),
    Claim(
        "S2",
        "Mean accuracy over frequencies is higher with SNC than with weight decay and "
        "L1",
        ("mean",), SNC_METHODS, _STANDARD,
    ),
    Claim(
        "S3",
        "Absum improves mean and minimum accuracy over frequencies on no "
        "regularization",
        ("mean", "minimum"), ("absum",), (NONE.method,),
    ),
    Claim(
        "S4",
        "SNC improves mean and minimum accuracy over frequencies on no regularization",
        ("mean", "minimum"), SNC_METHODS, (NONE.method,),
    ),
    Claim(
        "S5",
        "SNC does not improve on Absum in mean and minimum accuracy over frequencies",
        ("mean", "minimum"), SNC_METHODS, ("absum",), denies=True,
    ),
    Claim(
        "S6",
        "No regularization does not improve on Absum in clean accuracy",
        ("clean",), (NONE.method,), ("absum",), denies=True,
    ),
    Claim(
        "S7",
        "Clean accuracy is higher with Absum than with SNC (CIFAR-10)",
        ("clean",), ("absum",), SNC_METHODS, samples=("cifar10",),
    ),
    Claim(
        "S8",
        "Minimum accuracy over frequencies is higher with Absum, and with SNC, than "
        "with weight decay and with L1",
        ("minimum",), ("absum", *SNC_METHODS), _STANDARD,
    ),
    Claim(
        "S9",
        "Accuracy under transferred PGD is higher with Absum than with weight decay, "
        "L1 and no regularization",
        ("transferred",), ("absum",), (*_STANDARD, NONE.method),
    ),
    Claim(
        "S10",
        "Accuracy under transferred PGD is higher with SNC than with weight decay and "
        "L1",
        ("transferred",), SNC_METHODS, _STANDARD,
    ),
    Claim(
        "S11",
        "Accuracy without high frequencies (r = n / 4) is higher with Absum than with "
        "weight decay and L1",
        ("low-pass",), ("absum",), _STANDARD,
    ),
    Claim(
        "S12",
        "Accuracy without high frequencies is higher with SNC than with weight decay "
        "and L1",
        ("low-pass",), SNC_METHODS, _STANDARD,
    ),
    Claim(
        "S13",
        "Accuracy without low frequencies (mean over r = 0, ..., n / 4) is higher with "
        "Absum than with SNC",
        ("high-pass",), ("absum",), SNC_METHODS,
    ),
    Claim(
        "S14",
        "Perturbations found by PGD have a larger share of their power beyond a "
        "quarter of the width with weight decay and L1 than with Absum",
        ("high share",), _STANDARD, ("absum",),
    ),
    Claim(
        "S15",
        "That share is larger with Absum than with SNC",
        ("high share",), ("absum",), SNC_METHODS,
    ),
    Claim(
        "S16",
        "Absum does not improve on no regularization in accuracy under PGD without "
        "adversarial training (mean over the eps list)",
        ("pgd",), ("absum",), (NONE.method,), denies=True,
    ),
    Claim(
        "S17",
        "With adversarial training, accuracy under PGD is higher with Absum than with "
        "weight decay, L1, SNC and no regularization",
        ("pgd",), ("absum",), (*_STANDARD, *SNC_METHODS, NONE.method),
        samples=("mnist, adversarial training",),
    ),
    Claim(
        "S18",
        "The proximal gradient method ends with a smaller penalty than automatic "
        "differentiation",
        ("penalty",), (ABSUM_AUTODIFF,), ("absum",), samples=("figure8",),
    ),
)  # fmt: skip


def quantities_of(sample: str) -> set[str]:
    """Returns what the claims about a sample compare."""
    return {
        quantity
        for claim in (*PRIMARY, *SECONDARY)
        if sample in claim.samples
        for quantity in claim.quantities
    }


def published(quantity: str, dataset: str) -> dict[str, float]:
    """Returns what the paper publishes of each method, in percent, where it does."""
    network = networks_for(dataset)[0]
    table1 = published_row(TABLE1, dataset, network)
    rows: dict[str, Mapping[str, float]] = {
        "mean": {method: cells.avg for method, cells in table1.items()},
        "minimum": {method: cells.min for method, cells in table1.items()},
        "clean": {method: cells.clean for method, cells in table1.items()},
        "transferred": published_row(TABLE2, dataset, network),
        "low-pass": published_row(TABLE3, dataset, network),
    }
    return dict(rows.get(quantity, {}))
