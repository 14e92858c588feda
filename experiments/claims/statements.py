"""Lists the paper's claims that several runs decide (results/CRITERIA.md)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.config import NONE
from experiments.methods import ABSUM_AUTODIFF, SNC_METHODS
from experiments.models import networks_for
from experiments.published import TABLE1, TABLE2, TABLE3, published_row
from experiments.reproduce.items import ALL_METHODS, SEEDS
from experiments.statistics.verdicts import OF_INTEREST, OF_INTEREST_MINIMUM_OR_TRANSFER

# Of each data set the models of item 1, as fields of `SweepOptions`; the rest is the
# published schedule.
# To add an item, add it here and name it in the `samples` of its claims.
SAMPLES: dict[str, dict[str, Any]] = {
    name: {"methods": ALL_METHODS, "seeds": seeds, "select_on": "paper"}
    for name, seeds in SEEDS.items()
}
_ITEM_1 = tuple(SAMPLES)
_STANDARD = ("weight_decay", "l1")


class Quantity(NamedTuple):
    """Describes a quantity by which methods are compared."""

    text: str
    of_interest: float = OF_INTEREST  # the smallest difference d, a fraction


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
        "accuracy under transferred PGD", OF_INTEREST_MINIMUM_OR_TRANSFER
    ),
    "high share": Quantity("share of PGD's power beyond a quarter of the width"),
    "penalty": Quantity("penalty, relative to automatic differentiation's", 0.0),
}


class Claim(NamedTuple):
    """States that each method in `larger` is above each one in `smaller`."""

    name: str
    text: str
    quantities: tuple[str, ...]
    larger: tuple[str, ...]
    smaller: tuple[str, ...]
    denies: bool = False  # the claim is that `larger` do not improve on `smaller`
    samples: tuple[str, ...] = _ITEM_1


PRIMARY = tuple(
    Claim(name, QUANTITIES[quantity].text, (quantity,), larger, (smaller,))
    for name, quantity, larger, smaller in (
        ("P1", "minimum", ("absum",), "weight_decay"),
        ("P2", "minimum", ("absum",), "l1"),
        ("P3", "minimum", SNC_METHODS, "weight_decay"),  # either form as published
        ("P4", "minimum", SNC_METHODS, "l1"),
        ("P5", "transferred", ("absum",), "weight_decay"),
        ("P6", "transferred", ("absum",), NONE.method),
    )
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
    """Returns the quantities that the claims about a sample compare."""
    return {
        quantity
        for claim in (*PRIMARY, *SECONDARY)
        if sample in claim.samples
        for quantity in claim.quantities
    }


def published(quantity: str, dataset: str) -> dict[str, float]:
    """Returns the published percentage of each method, empty if there are none."""
    network = networks_for(dataset)[0]
    table1 = published_row(TABLE1, dataset, network)
    rows: dict[str, Mapping[str, float]] = {
        "mean": {method: cell.avg for method, cell in table1.items()},
        "minimum": {method: cell.min for method, cell in table1.items()},
        "clean": {method: cell.clean for method, cell in table1.items()},
        "transferred": published_row(TABLE2, dataset, network),
        "low-pass": published_row(TABLE3, dataset, network),
    }
    return dict(rows.get(quantity, {}))
