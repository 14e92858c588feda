"""Lists the commands of a reproduction, the most important first."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from experiments.config import NONE
from experiments.methods import SNC_METHODS, SNC_NUMPY_AXES
from experiments.studies.snc_constraints import OTHER_READINGS

Profile = Literal["smoke", "full"]
# The tables and figures of the paper, in its order.
Number = Literal[
    "figure1", "figure2", "figure3", "table1", "figure4", "figure5", "figure6",
    "table2", "figure7", "table3", "table4", "figure8",
]  # fmt: skip

# Seeds of the primary claims. The data sets have different ones, as both have 60,000
# images and a seed determines initialization and order.
SEEDS: Mapping[str, tuple[int, ...]] = {
    "mnist": tuple(range(11, 21)),
    "fashion_mnist": tuple(range(21, 31)),
}
READING_SEEDS = (31, 32, 33)
# Item 1 has models with these readings of SNC; the first seeds serve to compare them.
FIRST_READINGS = (NONE.method, *SNC_METHODS)
FIRST_SEEDS = {name: seeds[:5] for name, seeds in SEEDS.items()}
FIGURE8_SEEDS = (61, 62, 63)
CIFAR_SEEDS = tuple(range(41, 47))
ADVERSARIAL_SEEDS = tuple(range(51, 57))
ALL_METHODS = ("none", "weight_decay", "l1", "absum", *SNC_METHODS)
_ALL_METHODS = f"--methods {' '.join(ALL_METHODS)}"
_AT_PAPER = f"--select-on paper {_ALL_METHODS}"
_GRID = "table1 figure2 figure4 figure5"
# Tables and figures of commands that are not named after them.
_MAKES = {
    "evaluate": "table1 table2 table3 figure7", "snc-readings": "table1",
    "figure6a": "figure6", "figure6b": "figure6",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Item:
    """Describes one command."""

    command: str
    dataset: str | None = None  # None for commands without one
    options: str = ""
    seeds: tuple[int, ...] = ()  # empty for commands without seeds
    makes: str = ""  # tables and figures, by spaces; empty for those of the command

    @property
    def numbers(self) -> set[str]:
        """Returns the tables and figures that it makes or prepares."""
        return set((self.makes or _MAKES.get(self.command, self.command)).split())

    @property
    def arguments(self) -> list[str]:
        """Returns the command line after `python -m experiments`."""
        dataset = () if self.dataset is None else ("--dataset", self.dataset)
        seeds = ("--seeds", *map(str, self.seeds)) if self.seeds else ()
        return [self.command, *dataset, *self.options.split(), *seeds]

    def __str__(self) -> str:
        """Lists the command, its data set, how strengths are chosen, and its seeds."""
        given = dict(itertools.pairwise(self.options.split()))
        network = given.get("--network", "")
        if width := given.get("--width"):
            network = f"{width} of the channels"
        strengths = given.get("--select-on", "")
        if strengths == "paper":
            strengths = "the paper's strengths"
        if self.command == "snc-readings":
            strengths = f"sigma from {given['--max-norms']}"
        seeds = " ".join(["seeds", *map(str, self.seeds)]) if self.seeds else ""
        parts = self.command, self.dataset, network, strengths, seeds
        return ", ".join(filter(None, parts))


def _evaluated(dataset: str, options: str, seeds: tuple[int, ...]) -> Iterator[Item]:
    """Yields the tables and the figure that evaluate models of Table 1."""
    for command in ("table1", "table2", "table3", "figure7"):
        yield Item(command, dataset, options, seeds)


def _full(seeds: tuple[int, ...]) -> Iterator[Item]:
    """Yields the runs of results/CRITERIA.md, then those that need accelerators."""
    primary = {name: seeds or planned for name, planned in SEEDS.items()}
    # All seeds of a program finish together: in pairs, results come one by one.
    for start in range(0, max(map(len, primary.values())), 2):
        for dataset, planned in primary.items():
            if pair := planned[start : start + 2]:
                yield Item("evaluate", dataset, f"{_AT_PAPER} --diagnostics", pair)
    for dataset, planned in primary.items():
        yield from _evaluated(dataset, _AT_PAPER, planned)
    # Only the model with no constraint shows which of the other readings act.
    others = " ".join(OTHER_READINGS)
    for dataset in primary:
        options = f"--max-norms 10 --methods none {others}"
        if not seeds:
            options += f" --finished-seeds {' '.join(map(str, FIRST_SEEDS[dataset]))}"
        yield Item("snc-readings", dataset, options, seeds or READING_SEEDS)
    bounds = f"--max-norms 0.01 0.1 0.5 1 --methods {' '.join(FIRST_READINGS)}"
    for dataset in primary:
        yield Item("snc-readings", dataset, bounds, seeds or (0,))
    grid = f"--select-on validation {_ALL_METHODS}"
    for dataset in primary:
        yield Item("table1", dataset, grid, seeds or (0,), makes=_GRID)
    yield Item("figure1", "cifar10")
    yield Item("figure3")
    yield Item("figure6a", options="--timed-steps 100")
    yield Item("figure6b")
    yield Item("figure8", "mnist", seeds=seeds or FIGURE8_SEEDS)
    small = (
        "--width 1/8 --epochs 20 --test-examples 1000 --frequency-stride 2 --select-on "
        f"paper --methods none weight_decay absum snc {SNC_NUMPY_AXES}"
    )
    yield from _evaluated("cifar10", small, seeds or CIFAR_SEEDS)
    adversarial = "--training pgd --select-on paper --epochs 10 --methods none absum"
    yield Item("table4", "mnist", adversarial, seeds or ADVERSARIAL_SEEDS)
    yield from _large(seeds or CIFAR_SEEDS[:3])


def _large(seeds: tuple[int, ...]) -> Iterator[Item]:
    """Yields the published schedules that need accelerators."""
    for dataset in ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped"):
        yield Item("table4", dataset, "--select-on paper", seeds)
    for dataset, network in (
        ("cifar10", "resnet18"), ("cifar100", "resnet18"), ("svhn_cropped", "resnet18"),
        ("cifar10", "googlenet"), ("cifar10", "densenet121"),
    ):  # fmt: skip
        yield from _evaluated(dataset, f"--network {network} --select-on paper", seeds)
    yield Item("table1", "imagenet2012", "--select-on paper --max-norms 1", seeds[:1])


def _smoke(seeds: tuple[int, ...]) -> Iterator[Item]:
    """Yields every table and figure on the embedded data, far from converged."""
    seeds = seeds or (0, 1)
    train = "--epochs 2 --train-examples 512"
    few = f"{train} --test-examples 100"
    grid = f"{few} --frequency-stride 4 --strengths 1 0.01 --max-norms 1"
    yield Item("table1", "mnist5k", grid, seeds, makes=_GRID)
    at_paper = f"{few} --frequency-stride 4 {_AT_PAPER}"
    yield from _evaluated("mnist5k", at_paper, seeds)
    few_steps = f"{at_paper} --train-steps 2 --test-steps 5"
    yield Item("table4", "mnist5k", few_steps, seeds)
    yield Item("figure1", "mnist5k")
    yield Item("figure3")
    timed = "--datasets mnist --timed-steps 100 --repeats 1"
    yield Item("figure6a", options=timed)
    timed = "--sizes 32 --repeats 1 --methods none absum snc"
    yield Item("figure6b", options=timed)
    yield Item("figure8", "mnist5k", train, seeds[:1])
    readings = f"{few} --methods none {SNC_NUMPY_AXES} --max-norms 10"
    yield Item("snc-readings", "mnist5k", readings, seeds)


def items(
    profile: Profile,
    only: Sequence[Number] | None = None,
    seeds: Sequence[int] | None = None,
    datasets: Sequence[str] | None = None,
) -> list[Item]:
    """Lists the commands of a profile, the most important first.

    Given tables and figures, or data sets, it leaves out items that make none of them;
    given seeds, all items that have seeds have these.
    """

    def is_wanted(item: Item) -> bool:
        if datasets is not None and item.dataset not in (None, *datasets):
            return False
        if only is None:
            return True
        # To evaluate everything is more than a single table needs.
        if item.command == "evaluate":
            return item.numbers <= set(only)
        return not item.numbers.isdisjoint(only)

    every = _full if profile == "full" else _smoke
    return list(filter(is_wanted, every(tuple(seeds or ()))))
