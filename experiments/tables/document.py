"""What tables have in common: titles, conditions, and files."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments import files
from experiments.data.registry import TRAIN_SHAPES
from experiments.labels import DATASET_NAMES, METHOD_NAMES, MODEL_NAMES
from experiments.models import networks_for
from experiments.options import (
    PUBLISHED_MAX_NORMS,
    PUBLISHED_STRENGTHS,
    ModelOptions,
    SweepOptions,
)
from experiments.outcomes import Outcome
from experiments.paper import PARENTS, SINGLE_FOURIER_EPS, published_as
from experiments.tables.statistics import Statistic
from experiments.training.config import (
    METHODS,
    NONE,
    Adversary,
    RunConfig,
    Setting,
)
from experiments.training.runs import provenance

_SUFFIXES = {"test": "", "validation": "-validation", "paper": "-paper"}


def _fewer_epochs(options: ModelOptions, *, adversarial: bool = False) -> list[str]:
    published = options.published_recipe(adversarial=adversarial).epochs
    if options.epochs in (None, published):
        return []
    return [f"{options.epochs} of {published} epochs"]


def _fewer_images(options: ModelOptions, test_examples: int | None) -> list[str]:
    parts = []
    if options.dataset in PARENTS:
        parts.append("a small data set")
    if options.train_examples is not None:
        parts.append(f"{options.train_examples} training images")
    if test_examples is not None:
        parts.append(f"{test_examples} test images")
    return parts


def model_scale(options: ModelOptions, test_examples: int | None = None) -> list[str]:
    """How models fall short of the published ones, whatever their methods.

    Args:
      options: of the models.
      test_examples: how many images they are attacked on; None is all, or none.
    """
    return [*_fewer_epochs(options), *_fewer_images(options, test_examples)]


def scale(options: SweepOptions, *, adversarial: bool = False) -> list[str]:
    """How a run falls short of the published one."""
    parts = _fewer_epochs(options, adversarial=adversarial)
    # Of a network that the paper has, the methods that it has: on ImageNet no SNC.
    published = {NONE.method, *(options.published or METHODS)}
    missing = [m for m in METHODS if m in published and m not in options.methods]
    if missing:
        parts.append(f"without {', '.join(METHOD_NAMES[m] for m in missing)}")
    if options.select_on != "paper":
        if not set(PUBLISHED_STRENGTHS) <= set(options.strengths):
            parts.append(f"{len(options.strengths)} strengths")
        if "snc" in options.methods and not set(PUBLISHED_MAX_NORMS) <= set(
            options.max_norms
        ):
            parts.append(f"{len(options.max_norms)} bounds of SNC")
    parts += _fewer_images(options, options.test_examples)
    if options.frequency_stride != 1:
        parts.append(f"one in {options.frequency_stride} of l and m")
    return parts


def model_path(
    name: str, options: ModelOptions, scaled: Sequence[str], variant: str = ""
) -> pathlib.Path:
    """Where a result goes below the results folder, without suffix.

    Runs that are scaled down lie apart, as do those of other networks than the paper's
    first.

    Args:
      name: of the table or figure.
      options: of the models.
      scaled: how they fall short.
      variant: what else the file's name ends in.
    """
    network = "" if options.model == options.paper_model else f"-{options.model}"
    stem = options.dataset + network + variant
    return pathlib.Path("scaled" if scaled else "") / name / stem


def variant(options: ModelOptions, *names: str) -> str:
    """Which of some strengths are not the default, for `model_path`."""
    return "".join(
        f"-{name.replace('_', '-')}-{getattr(options, name):g}"
        for name in names
        if getattr(options, name) != getattr(type(options), name)
    )


def path(
    name: str, options: SweepOptions, scaled: Sequence[str] | None = None
) -> pathlib.Path:
    """As `model_path`, each way to select apart.

    Args:
      name: of the table or figure.
      options: of the run.
      scaled: how it falls short; None is `scale(options)`.
    """
    parts = scale(options) if scaled is None else scaled
    return model_path(name, options, parts, _SUFFIXES[options.select_on])


def subject(options: ModelOptions) -> str:
    """The data set, and the network where the data set has several."""
    name = DATASET_NAMES[options.dataset]
    if len(networks_for(options.dataset)) == 1:
        return name
    return f"{name} ({MODEL_NAMES[options.model]})"


def title(label: str, options: ModelOptions, scaled: Sequence[str]) -> str:
    """A title, with the scale where it is not the published one.

    Args:
      label: such as "Table 1".
      options: of the models.
      scaled: how they fall short.
    """
    suffix = f" (scaled down: {', '.join(scaled)})" if scaled else ""
    return f"{label}, {subject(options)}{suffix}"


def accuracy(options: SweepOptions) -> str:
    """What a share of right answers is called, where there are two of them."""
    return "Top-1 accuracy" if options.published_top5 else "Accuracy"


def single_fourier_note(options: SweepOptions, outcome: Outcome) -> str:
    """What accuracies under the Single Fourier Attack are."""
    eps = SINGLE_FOURIER_EPS[published_as(options.dataset)]
    test = outcome.test
    kinds = (
        ""
        if test.top5 is None
        else ", of the largest logit (Top-1) and of the five largest (Top-5),"
    )
    _, height, width, _ = TRAIN_SHAPES[options.dataset]
    are_all = test.grid.shape == (height, width)
    end, _ = test.grid.shape
    below = "" if are_all or test.stride > 1 else f", l and m below {end}"
    return (
        f"Accuracy in percent{kinds} under the Single Fourier Attack, "
        f"eps = {255 * eps:g}/255, on {test.images:,} test images: mean and minimum "
        f"over {'all ' if are_all else ''}{test.grid.size:,} frequencies{below}, and "
        "on clean images"
    )


def published(
    options: ModelOptions, table: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The row of one of Tables 2 to 4, empty where the paper has none."""
    if options.model != options.paper_model:
        return {}
    return table.get(published_as(options.dataset), {})


def beside(dataset: str, published: Mapping[str, Any]) -> str:
    """A sentence on the published numbers beside ours; none where there are none."""
    if not published:
        return ""
    on = "this data set"
    if parent := PARENTS.get(dataset):
        on = f"{DATASET_NAMES[parent]} with 60,000 images"
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
        "network": options.model,
        "dtype": options.dtype,
        "epochs": options.recipe().epochs,
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
    scaled: Sequence[str] | None = None  # how it falls short; None is `scale(options)`

    @property
    def title(self) -> str:
        """The title, with the scale where it is not the published one."""
        parts = scale(self.options) if self.scaled is None else self.scaled
        return title(self.label, self.options, parts)

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
        for machine in ("runs_dir", "results_dir", "data", "compute"):
            options.pop(machine, None)
        document = {
            "title": self.title,
            "network": self.options.model,
            "dtype": self.options.dtype,
            "options": options,
            **self.details,
            "provenance": provenance(),
        }
        return [
            files.write_json(stem.with_suffix(".json"), document),
            files.write_text(stem.with_suffix(".csv"), text.getvalue()),
            files.write_text(stem.with_suffix(".md"), self.markdown + "\n"),
        ]
