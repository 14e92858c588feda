"""Results as documents: titles, notes, and files."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from experiments.composed import result_options
from experiments.config import NONE, Adversary, RunConfig
from experiments.data import DATASETS
from experiments.jobs import files
from experiments.jobs.parts import Part
from experiments.methods import METHODS
from experiments.options import SweepOptions
from experiments.reporting import comparisons, naming
from experiments.reporting.columns import Table
from experiments.reporting.comparisons import Comparison
from experiments.training.runs import Run, provenance

_Row = TypeVar("_Row")


def published_note(dataset: str, published: Mapping[str, Any]) -> str:
    """Returns a sentence on the published numbers; none where there are none."""
    if not published:
        return ""
    on = "this data set"
    if parent := DATASETS[dataset].parent:
        on = f"{DATASETS[parent].label} with {DATASETS[parent].train_examples:,} images"
    return f" In brackets: the paper, on {on}."


def spread_note(options: SweepOptions) -> str:
    """Returns what the numbers are over seeds; nothing for a single one."""
    return "" if len(options.seeds) == 1 else "; mean ± standard deviation over seeds"


def selection_note(options: SweepOptions, criterion: str) -> str:
    """Returns how strengths were selected."""
    if options.select_on == "paper":
        return "strengths as the paper selects them"
    on = f"the {options.select_on} images"
    note = f"strength selected by the best {criterion} on {on}"
    if options.selection_seeds is not None:
        note += f", with seeds {', '.join(map(str, options.selection_seeds))}"
    return note


def common_notes(
    options: SweepOptions,
    criterion: str,
    left_out: Iterable[RunConfig],
    adversary: Adversary | None = None,
) -> list[str]:
    """Returns how models were trained and selected, and which were left out."""
    seeds = ", ".join(map(str, options.seeds))
    models, selection = options.models, selection_note(options, criterion)
    dtype = "" if models.dtype == "float32" else f", {models.dtype}"
    epochs = models.recipe(adversary).epochs
    notes = [f"{epochs} epochs, seeds {seeds}{dtype}; {selection}."]
    if broken := names(left_out):
        notes.append(f"Left out, as they answer one class or diverged: {broken}.")
    return notes


def names(configs: Iterable[RunConfig]) -> str:
    """Returns methods, strengths and seeds of some models."""

    def name(config: RunConfig) -> str:
        strength = "" if config.setting == NONE else f" {config.strength:g}"
        return f"{METHODS[config.method].label}{strength} (seed {config.seed})"

    return ", ".join(sorted({name(config) for config in configs}))


def part_note(options: SweepOptions, part: Part, runs: Sequence[Run]) -> str:
    """Returns which models a part of a table has trained and attacked."""
    models = len(options.settings()) * len(options.trial_seeds)
    return (
        f"Part {part}, {len(runs)} of {models} models, is trained and attacked: "
        f"{names(run.config for run in runs)}. The same command without --part makes "
        "the table."
    )


def conditions(options: SweepOptions, images: int) -> dict[str, Any]:
    """Returns the conditions of a figure's numbers, for its JSON."""
    return {
        "scale": naming.scale(options),
        "dataset": options.models.dataset,
        "network": options.models.model,
        "dtype": options.models.dtype,
        "epochs": options.models.recipe().epochs,
        "seeds": options.seeds,
        "selection": options.select_on,
        "selection_seeds": options.trial_seeds,
        "test_images": images,
    }


def page(title: str, table: Sequence[str], *paragraphs: str) -> str:
    """Returns a table as Markdown, below its title and above its notes."""
    return "\n\n".join([f"## {title}", "\n".join(table), *paragraphs])


def write(
    stem: pathlib.Path,
    content: Mapping[str, Any],
    markdown: str | None = None,
    records: Sequence[Mapping[str, Any]] | None = None,
) -> list[pathlib.Path]:
    """Writes a result with its provenance as JSON, and if given as CSV and Markdown.

    The path `stem` has no suffix but may contain a dot, as in 0.5.
    """
    content = {**content, "provenance": provenance()}
    written = [files.write_json(pathlib.Path(f"{stem}.json"), content)]
    if records is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)
        written.append(files.write_text(pathlib.Path(f"{stem}.csv"), text.getvalue()))
    if markdown is not None:
        written.append(files.write_text(pathlib.Path(f"{stem}.md"), markdown + "\n"))
    return written


@dataclasses.dataclass(frozen=True)
class Document(Generic[_Row]):
    """A table of the paper with its notes and claims, as printed and written."""

    name: str  # of its folder, such as "table1"
    label: str  # of its title, such as "Table 1"
    options: SweepOptions
    table: Table[_Row]
    notes: Sequence[str]  # paragraphs
    claims: Sequence[Comparison]
    conditions: Mapping[str, Any]  # in the JSON before the rows
    details: Mapping[str, Any]  # in the JSON after the claims
    appendix: Sequence[str] = ()  # lines of Markdown before the claims
    scaled: Sequence[str] | None = None  # as of `naming.scale`, which None is
    variant: str = ""  # at the end of the files' names, as of `naming.variant`
    # Options of the command beyond those of the sweep.
    more_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def scale(self) -> Sequence[str]:
        """Returns how the table is scaled down from the published one."""
        return naming.scale(self.options) if self.scaled is None else self.scaled

    @property
    def title(self) -> str:
        """Returns the title, with the scale where it is not the published one."""
        return naming.title(self.label, self.options.models, self.scale)

    @property
    def figure_title(self) -> str:
        """Returns the title of the table's figure, which always names the network."""
        return naming.figure_title(self.label, self.options.models, self.scale)

    @property
    def path(self) -> pathlib.Path:
        """Returns the path of the files below the results folder, without suffix."""
        return naming.path(self.name, self.options, self.scale, self.variant)

    @property
    def markdown(self) -> str:
        """Returns the table, its notes and its claims."""
        more = (self.appendix, comparisons.section(self.claims))
        paragraphs = [*self.notes, *("\n".join(lines) for lines in more if lines)]
        return page(self.title, self.table.markdown(), *paragraphs)

    @property
    def content(self) -> dict[str, Any]:
        """Returns the content of the JSON file, but for the provenance."""
        return {
            "title": self.title,
            "network": self.options.models.model,
            "dtype": self.options.models.dtype,
            "options": {**result_options(self.options), **self.more_options},
            **self.conditions,
            "rows": self.table.records("json"),
            "claims": [claim.as_dict() for claim in self.claims],
            **self.details,
        }

    def print_and_write(self, results_dir: pathlib.Path) -> list[pathlib.Path]:
        """Prints the table, and writes it below the folder of all results."""
        print(f"\n{self.markdown}\n")
        stem, records = results_dir / self.path, self.table.records("csv")
        return write(stem, self.content, self.markdown, records)
