"""What is reproduced, in order of importance, as command lines."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from experiments.methods import SNC_METHODS, SNC_NUMPY_AXES
from experiments.studies.snc_constraints import OTHER_READINGS

Profile = Literal["smoke", "full"]
# The tables and figures of the paper, in its order.
Number = Literal[
    "figure1", "figure2", "figure3", "table1", "figure4", "figure5", "figure6",
    "table2", "figure7", "table3", "table4", "figure8",
]  # fmt: skip

ALL_METHODS = ("none", "weight_decay", "l1", "absum", *SNC_METHODS)
# Seeds of the primary claims: other ones on each data set, as both have 60,000 images
# and a seed fixes initialization and order.
SEEDS: Mapping[str, tuple[int, ...]] = {
    "mnist": tuple(range(11, 21)),
    "fashion_mnist": tuple(range(21, 31)),
}
READING_SEEDS = (31, 32, 33)
# No constraint tells which of the others act.
_OTHER_READINGS = ("none", *OTHER_READINGS)
_FIGURE8_SEEDS = (61, 62, 63)
_CIFAR_SEEDS = tuple(range(41, 47))
_ADVERSARIAL_SEEDS = tuple(range(51, 57))
_LARGE = (
    ("cifar10", "resnet18"), ("cifar100", "resnet18"), ("svhn_cropped", "resnet18"),
    ("cifar10", "googlenet"), ("cifar10", "densenet121"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Item:
    """One command."""

    makes: tuple[str, ...]  # that it makes, or prepares
    command: str
    dataset: str | None  # None for commands without one
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()  # none for commands without seeds

    @property
    def arguments(self) -> list[str]:
        """The command line after `python -m experiments`."""
        dataset = () if self.dataset is None else ("--dataset", self.dataset)
        seeds = ("--seeds", *map(str, self.seeds)) if self.seeds else ()
        return [self.command, *dataset, *self.options, *seeds]

    def __str__(self) -> str:
        """The command, its data set, how strengths are chosen, and its seeds."""
        given = dict(zip(self.options, self.options[1:], strict=False))
        network = given.get("--network", "")
        if width := given.get("--width"):
            network = f"{width} of the channels"
        chosen = {"paper": "the paper's strengths", "validation": "validation"}
        strengths = chosen.get(given.get("--select-on", ""), "")
        if "--max-norms" in given and self.command == "snc-readings":
            strengths = f"sigma from {given['--max-norms']}"
        seeds = " ".join(map(str, self.seeds))
        parts = (
            self.command, self.dataset, network, strengths, seeds and f"seeds {seeds}"
        )  # fmt: skip
        return ", ".join(part for part in parts if part)


def _evaluated(
    dataset: str, seeds: Sequence[int], options: Sequence[str]
) -> Iterator[Item]:
    """The tables of models at the paper's strengths, all of which are made."""
    for command in ("table1", "table2", "table3", "figure7"):
        yield Item((command,), command, dataset, tuple(options), tuple(seeds))


def _full(seeds: Sequence[int] | None) -> Iterator[Item]:
    """The runs of results/CRITERIA.md, and then the data sets for accelerators."""
    at_paper = ("--select-on", "paper", "--methods", *ALL_METHODS)
    makes = ("table1", "table2", "table3", "figure7")
    of = {name: tuple(seeds or own) for name, own in SEEDS.items()}
    # All seeds of a program finish together: in pairs, results come one by one.
    for start in range(0, max(map(len, of.values())), 2):
        for dataset, own in of.items():
            if pair := own[start : start + 2]:
                yield Item(
                    makes, "evaluate", dataset, (*at_paper, "--diagnostics"), pair
                )
    for dataset, own in of.items():
        yield from _evaluated(dataset, own, at_paper)
    for dataset, own in of.items():
        readings = ("--max-norms", "10", "--readings", *_OTHER_READINGS)
        if seeds is None:
            readings += ("--finished-seeds", *map(str, own[:5]))
        yield Item(
            ("table1",), "snc-readings", dataset, readings,
            tuple(seeds or READING_SEEDS),
        )  # fmt: skip
    for dataset in of:
        bounds = ("--max-norms", "0.01", "0.1", "0.5", "1")
        readings = (*bounds, "--readings", "none", *SNC_METHODS)
        yield Item(("table1",), "snc-readings", dataset, readings, tuple(seeds or (0,)))
    grid = ("figure2", "figure4", "figure5", "table1")
    for dataset in of:
        options = ("--select-on", "validation", "--methods", *ALL_METHODS)
        yield Item(grid, "table1", dataset, options, tuple(seeds or (0,)))
    yield Item(("figure1",), "figure1", "cifar10")
    yield Item(("figure3",), "figure3", None)
    yield Item(("figure6",), "figure6a", None, ("--steps", "100"))
    yield Item(("figure6",), "figure6b", None)
    yield Item(("figure8",), "figure8", "mnist", (), tuple(seeds or _FIGURE8_SEEDS))
    small = (
        "--width", "1/8", "--epochs", "20", "--test-examples", "1000",
        "--frequency-stride", "2", "--select-on", "paper",
        "--methods", "none", "weight_decay", "absum", "snc", SNC_NUMPY_AXES,
    )  # fmt: skip
    yield from _evaluated("cifar10", seeds or _CIFAR_SEEDS, small)
    yield Item(
        ("table4",), "table4", "mnist",
        ("--training", "pgd", "--select-on", "paper", "--epochs", "10",
         "--methods", "none", "absum"),
        tuple(seeds or _ADVERSARIAL_SEEDS),
    )  # fmt: skip
    yield from _large(tuple(seeds or _CIFAR_SEEDS[:3]))


def _large(seeds: tuple[int, ...]) -> Iterator[Item]:
    """The published schedules that take accelerators."""
    for dataset in ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped"):
        yield Item(("table4",), "table4", dataset, ("--select-on", "paper"), seeds)
    for dataset, network in _LARGE:
        options = ("--network", network, "--select-on", "paper")
        yield from _evaluated(dataset, seeds, options)
    on_imagenet = ("--select-on", "paper", "--max-norms", "1")
    yield Item(("table1",), "table1", "imagenet2012", on_imagenet, seeds[:1])


def _smoke(seeds: Sequence[int] | None) -> Iterator[Item]:
    """Every table and figure on the embedded data, far from converged."""
    own = tuple(seeds or (0, 1))
    few = ("--epochs", "2", "--train-examples", "512", "--test-examples", "100")
    grid = (
        *few, "--frequency-stride", "4", "--strengths", "1", "0.01", "--max-norms", "1",
    )  # fmt: skip
    makes = ("table1", "figure2", "figure4", "figure5")
    yield Item(makes, "table1", "mnist5k", grid, own)
    at_paper = (
        *few, "--frequency-stride", "4", "--select-on", "paper",
        "--methods", *ALL_METHODS,
    )  # fmt: skip
    yield from _evaluated("mnist5k", own, at_paper)
    few_steps = ("--train-steps", "2", "--test-steps", "5")
    yield Item(("table4",), "table4", "mnist5k", (*at_paper, *few_steps), own)
    yield Item(("figure1",), "figure1", "mnist5k")
    yield Item(("figure3",), "figure3", None)
    timed = ("--datasets", "mnist", "--steps", "100", "--repeats", "1")
    yield Item(("figure6",), "figure6a", None, timed)
    yield Item(
        ("figure6",), "figure6b", None,
        ("--sizes", "32", "--repeats", "1", "--methods", "none", "absum", "snc"),
    )  # fmt: skip
    yield Item(("figure8",), "figure8", "mnist5k", few[:4], own[:1])
    yield Item(
        ("table1",), "snc-readings", "mnist5k",
        (*few, "--readings", "none", SNC_NUMPY_AXES, "--max-norms", "10"), own,
    )  # fmt: skip


def items(
    profile: Profile,
    only: Sequence[Number] | None = None,
    seeds: Sequence[int] | None = None,
    datasets: Sequence[str] | None = None,
) -> list[Item]:
    """Lists the commands of a profile, the most important first.

    Args:
      profile: `"full"` is the published schedule, `"smoke"` everything in minutes.
      only: tables and figures; None is all.
      seeds: of every item that has seeds; None is each item's own.
      datasets: those of the items; None is all. Items without a data set go with any.
    """
    every = (_smoke if profile == "smoke" else _full)(seeds)

    def is_wanted(item: Item) -> bool:
        if only is None:
            return True
        # To evaluate all is more than a single table needs.
        asked, made = set(only), set(item.makes)
        return made <= asked if item.command == "evaluate" else bool(made & asked)

    return [
        item
        for item in every
        if is_wanted(item) and (datasets is None or item.dataset in (None, *datasets))
    ]
