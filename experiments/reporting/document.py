"""What tables have in common: cells, notes, and files."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.config import NONE, Adversary, RunConfig, Setting
from experiments.data import DATASETS
from experiments.jobs import files
from experiments.jobs.shards import Part
from experiments.methods import METHODS
from experiments.options import SweepOptions
from experiments.reporting import naming
from experiments.reporting.outcomes import Outcome
from experiments.statistics.summary import Statistic
from experiments.training.runs import provenance


def accuracy(options: SweepOptions) -> str:
    """What a share of right answers is called, where there are two of them."""
    return "Top-1 accuracy" if options.published_top5 else "Accuracy"


def single_fourier_note(options: SweepOptions, outcome: Outcome) -> str:
    """What accuracies under the Single Fourier Attack are."""
    eps = DATASETS[options.dataset].conditions.single_fourier_eps
    test = outcome.test
    kinds = (
        ""
        if test.top5 is None
        else ", of the largest logit (Top-1) and of the five largest (Top-5),"
    )
    height, width, _ = DATASETS[options.dataset].image_shape
    are_all = test.grid.shape == (height, width)
    end, _ = test.grid.shape
    below = "" if are_all or test.stride > 1 else f", l and m below {end}"
    return (
        f"Accuracy in percent{kinds} under the Single Fourier Attack, "
        f"eps = {255 * eps:g}/255, on {test.images:,} test images: mean and minimum "
        f"over {'all ' if are_all else ''}{test.grid.size:,} frequencies{below}, and "
        "on clean images"
    )


def beside(dataset: str, published: Mapping[str, Any]) -> str:
    """A sentence on the published numbers beside ours; none where there are none."""
    if not published:
        return ""
    on = "this data set"
    if parent := DATASETS[dataset].parent:
        its = DATASETS[parent]
        on = f"{its.label} with {its.train_examples:,} images"
    return f" In brackets: the paper, on {on}."


def training_note(
    options: SweepOptions, selection: str, adversary: Adversary | None = None
) -> str:
    """Epochs, seeds, and how strengths were chosen."""
    seeds = ", ".join(map(str, options.seeds))
    epochs = options.recipe(adversary).epochs
    dtype = "" if options.dtype == "float32" else f", {options.dtype}"
    return f"{epochs} epochs, seeds {seeds}{dtype}; {selection}."


def selection_note(options: SweepOptions, criterion: str) -> str:
    """How strengths were chosen."""
    if options.select_on == "paper":
        return "strengths as the paper selects them"
    note = (
        f"strength selected by the best {criterion} on the {options.select_on} images"
    )
    if options.selection_seeds is None:
        return note
    seeds = ", ".join(map(str, options.selection_seeds))
    return f"{note}, with seeds {seeds}"


def names(configs: Iterable[RunConfig]) -> str:
    """Methods, strengths and seeds of some models."""

    def name(config: RunConfig) -> str:
        strength = "" if config.setting == NONE else f" {config.strength:g}"
        return f"{METHODS[config.method].label}{strength} (seed {config.seed})"

    return ", ".join(sorted({name(config) for config in configs}))


def left_out_note(configs: Iterable[RunConfig]) -> list[str]:
    """Names the models that say nothing; no note where there are none."""
    models = names(configs)
    return (
        [f"Left out, as they answer one class or diverged: {models}."] if models else []
    )


def part_note(part: Part, configs: Sequence[RunConfig], models: int) -> str:
    """What a part of a command has done.

    Args:
      part: which.
      configs: its models.
      models: how many there are in all parts.
    """
    return (
        f"Part {part}, {len(configs)} of {models} models, is trained and attacked: "
        f"{names(configs)}. The same command without --part makes the table."
    )


def conditions(options: SweepOptions, images: int) -> dict[str, Any]:
    """What a figure's numbers hold under, for its json."""
    return {
        "scale": naming.scale(options),
        "dataset": options.dataset,
        "network": options.model,
        "dtype": options.dtype,
        "epochs": options.recipe().epochs,
        "seeds": options.seeds,
        "selection": options.select_on,
        "selection_seeds": options.trial_seeds,
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
    scaled: Sequence[str] | None = None  # how it falls short; None is `naming.scale`

    @property
    def title(self) -> str:
        """The title, with the scale where it is not the published one."""
        parts = naming.scale(self.options) if self.scaled is None else self.scaled
        return naming.title(self.label, self.options, parts)

    @property
    def path(self) -> pathlib.Path:
        """Where it goes below the results folder, without suffix."""
        return naming.path(self.name, self.options, self.scaled)

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
        document = {
            "title": self.title,
            "network": self.options.model,
            "dtype": self.options.dtype,
            "options": self.options.asked_for,
            **self.details,
            "provenance": provenance(),
        }
        return [
            files.write_json(stem.with_suffix(".json"), document),
            files.write_text(stem.with_suffix(".csv"), text.getvalue()),
            files.write_text(stem.with_suffix(".md"), self.markdown + "\n"),
        ]
