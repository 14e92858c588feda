"""What tables have in common: titles, conditions, and files."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments import files
from experiments.labels import DATASET_NAMES, METHOD_NAMES
from experiments.options import (
    PUBLISHED_EPOCHS,
    PUBLISHED_MAX_NORMS,
    PUBLISHED_STRENGTHS,
    SweepOptions,
)
from experiments.paper import PARENTS
from experiments.tables.statistics import Statistic
from experiments.training.config import METHODS, NONE, RunConfig, Setting
from experiments.training.runs import provenance

_SUFFIXES = {"test": "", "validation": "-validation", "paper": "-paper"}


def scale(options: SweepOptions) -> list[str]:
    """How a run falls short of the published one."""
    parts = []
    if options.epochs != PUBLISHED_EPOCHS:
        parts.append(f"{options.epochs} of {PUBLISHED_EPOCHS} epochs")
    missing = [method for method in METHODS if method not in options.methods]
    if missing:
        parts.append(f"without {', '.join(METHOD_NAMES[m] for m in missing)}")
    if options.select_on != "paper":
        if not set(PUBLISHED_STRENGTHS) <= set(options.strengths):
            parts.append(f"{len(options.strengths)} strengths")
        if "snc" in options.methods and not set(PUBLISHED_MAX_NORMS) <= set(
            options.max_norms
        ):
            parts.append(f"{len(options.max_norms)} bounds of SNC")
    if options.dataset in PARENTS:
        parts.append("a small data set")
    if options.train_examples is not None:
        parts.append(f"{options.train_examples} training images")
    if options.test_examples is not None:
        parts.append(f"{options.test_examples} test images")
    return parts


def path(name: str, options: SweepOptions, scaled: Sequence[str] = ()) -> pathlib.Path:
    """Where a result goes below the results folder, without suffix.

    Runs that are scaled down lie apart, as do those of each way to select.

    Args:
      name: of the table or figure.
      options: of the run.
      scaled: how it falls short, beside the common options.
    """
    folder = pathlib.Path("scaled" if [*scale(options), *scaled] else "")
    return folder / name / (options.dataset + _SUFFIXES[options.select_on])


def beside(dataset: str) -> str:
    """What the published numbers beside ours were measured on."""
    parent = PARENTS.get(dataset)
    if parent is None:
        return "this data set"
    return f"{DATASET_NAMES[parent]} with 60,000 images"


def training_note(options: SweepOptions, selection: str) -> str:
    """Epochs, seeds, and how strengths were chosen."""
    seeds = ", ".join(map(str, options.seeds))
    return f"{options.epochs} epochs, seeds {seeds}; {selection}."


def selection_note(options: SweepOptions, criterion: str) -> str:
    """How strengths were chosen."""
    if options.select_on == "paper":
        return "strengths as the paper selects them"
    return (
        f"strength selected by the best {criterion} on the {options.select_on} images"
    )


def names(configs: Iterable[RunConfig]) -> str:
    """Methods, strengths and seeds of some models."""
    return ", ".join(
        sorted(
            {
                f"{METHOD_NAMES[config.method]} {config.strength:g} "
                f"(seed {config.seed})"
                for config in configs
            }
        )
    )


def left_out_note(configs: Iterable[RunConfig]) -> list[str]:
    """Names the models that say nothing; no note where there are none."""
    models = names(configs)
    return (
        [f"Left out, as they answer one class or diverged: {models}."] if models else []
    )


def conditions(options: SweepOptions, images: int) -> dict[str, Any]:
    """What a figure's numbers hold under, for its json."""
    return {
        "scale": scale(options),
        "dataset": options.dataset,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "selection": options.select_on,
        "test_images": images,
        "provenance": provenance(),
    }


def with_spread(options: SweepOptions) -> str:
    """What the numbers are over seeds."""
    if len(options.seeds) == 1:
        return ""
    return "; mean ± standard deviation over seeds"


def strength(setting: Setting, published: float | None) -> str:
    """A cell with a method's strength, and the published one in brackets."""
    if setting.method == NONE.method:
        return ""
    beside = "" if published is None else f" ({published:g})"
    return f"{setting.strength:g}{beside}"


def with_published(ours: Statistic, published: float | None) -> str:
    """A cell with our number in percent, and the published one in brackets."""
    return str(ours) if published is None else f"{ours} ({published:.2f})"


def body(*parts: Sequence[str]) -> str:
    """Markdown of a table's lines, its notes and its claims, with lines between.

    Args:
      *parts: lines that belong together, but for the second: notes are paragraphs.
    """
    table, notes, *others = parts
    blocks = ["\n".join(table), *notes, *("\n".join(part) for part in others if part)]
    return "\n\n".join(blocks)


@dataclasses.dataclass(frozen=True)
class Document:
    """A table as it is printed and written."""

    name: str  # of its folder, such as "table1"
    label: str  # of its title, such as "Table 1"
    options: SweepOptions
    body: str  # markdown below the title
    records: Sequence[Mapping[str, Any]]  # the lines of the csv
    details: Mapping[str, Any]  # what else the json holds
    scaled: Sequence[str] = ()  # how it falls short, beside the common options

    @property
    def title(self) -> str:
        """The title, with the scale where it is not the published one."""
        parts = ", ".join([*scale(self.options), *self.scaled])
        name = DATASET_NAMES[self.options.dataset]
        return f"{self.label}, {name}" + (f" (scaled down: {parts})" if parts else "")

    @property
    def path(self) -> pathlib.Path:
        """Where it goes below the results folder, without suffix."""
        return path(self.name, self.options, self.scaled)

    @property
    def markdown(self) -> str:
        """The whole table."""
        return f"## {self.title}\n\n{self.body}"

    def write(self, results_dir: pathlib.Path) -> list[pathlib.Path]:
        """Writes the table as json, csv and md below the folder of all results."""
        stem = results_dir / self.path
        text = io.StringIO()
        fieldnames = list(self.records[0]) if self.records else []
        writer = csv.DictWriter(text, fieldnames=fieldnames)
        writer.writeheader()
        writer.writerows(self.records)
        options = dataclasses.asdict(self.options)
        for machine in ("runs_dir", "results_dir", "data"):
            options.pop(machine, None)
        document = {
            "title": self.title,
            "options": options,
            **self.details,
            "provenance": provenance(),
        }
        return [
            files.write_json(stem.with_suffix(".json"), document),
            files.write_text(stem.with_suffix(".csv"), text.getvalue()),
            files.write_text(stem.with_suffix(".md"), self.markdown + "\n"),
        ]
