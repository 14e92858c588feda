"""Judges the paper's claims that one run describes, as results/CRITERIA.md defines."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from experiments.data import DATASETS
from experiments.jobs import files
from experiments.jobs.errors import damage_named

_FIX = "make it again with the command figure6a"
_ABSUM, _OTHERS = "absum", ("weight_decay", "l1")
# Of the paper's ResNet-18 on images of 32 x 32.
_OF_SNC = "cifar10"
TEXTS = {
    "S22": "An epoch of Absum takes about a tenth of an epoch of SNC",
    "S23": "The runtime of Absum is similar to that of weight decay and L1",
}


class Description(NamedTuple):
    """Tells what one run shows of a claim."""

    claim: str
    found: str
    holds: bool

    @property
    def label(self) -> str:
        """Returns the claim's name and text."""
        return f"{self.claim}. {TEXTS[self.claim]}"

    @property
    def verdict(self) -> str:
        """Returns whether the claim holds, in words."""
        return "holds" if self.holds else "does not hold"


def of_runtimes(results_dir: pathlib.Path) -> list[Description]:
    """Reads what Figure 6(a) shows: S22 and S23, as far as their methods were timed.

    Raises:
      UsageError: if the figure's document is damaged.
    """
    paths = (results_dir / part / "figure6a" / "epochs.json" for part in ("", "scaled"))
    for path in paths:
        document = files.read_json_if_there(path, _FIX)
        if document is None:
            continue
        with damage_named(path, _FIX):
            seconds: dict[str, dict[str, float]] = {}
            for row in document["rows"]:
                of_dataset = seconds.setdefault(row["dataset"], {})
                of_dataset[row["method"]] = float(row["epoch_s"])
            return [*_of_snc(seconds.get(_OF_SNC, {})), *_of_absum(seconds)]
    return []


def _of_snc(seconds: Mapping[str, float]) -> list[Description]:
    """Compares an epoch of SNC in NumPy, and of this project's SNC, with Absum's."""
    if not {_ABSUM, "snc", "snc_numpy"} <= seconds.keys():
        return []
    in_numpy, ours = (seconds[m] / seconds[_ABSUM] for m in ("snc_numpy", "snc"))
    found = (
        f"SNC takes {in_numpy:.2f} times as long in NumPy, {ours:.2f} times with this "
        f"project's SNC ({DATASETS[_OF_SNC].label})"
    )
    return [Description("S22", found, 5 <= in_numpy <= 20)]


def _of_absum(seconds: Mapping[str, Mapping[str, float]]) -> list[Description]:
    """Compares Absum with weight decay and L1, on each data set."""
    factors = {}
    for dataset, of_dataset in seconds.items():
        if {_ABSUM, *_OTHERS} <= of_dataset.keys():
            absum = of_dataset[_ABSUM]
            ratios = [of_dataset[other] / absum for other in _OTHERS]
            factors[dataset] = max(max(ratio, 1 / ratio) for ratio in ratios)
    if not factors:
        return []
    found = ", ".join(f"{f:.2f} ({DATASETS[d].label})" for d, f in factors.items())
    holds = max(factors.values()) <= 1.25
    return [Description("S23", f"medians differ by a factor of {found}", holds)]
