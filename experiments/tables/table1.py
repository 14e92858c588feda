"""Table 1: accuracy under the Single Fourier Attack, at the best strengths."""

import csv
import dataclasses
import io
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from absum_jax._markdown import aligned
from experiments import files
from experiments.figures.saving import save
from experiments.figures.strength import FIGURES
from experiments.labels import DATASET_NAMES, METHOD_NAMES
from experiments.outcomes import (
    PUBLISHED_EPOCHS,
    PUBLISHED_MAX_NORMS,
    PUBLISHED_STRENGTHS,
    Outcome,
    SweepOptions,
    run_sweep,
)
from experiments.paper import TABLE1
from experiments.tables.selection import Row, by_setting, select, summarize
from experiments.training.config import METHODS, NONE
from experiments.training.runs import provenance

# A data set that the paper does not list is shown beside the row of its parent.
_PUBLISHED_AS = {"mnist5k": "mnist"}


def _scale(options: SweepOptions) -> str | None:
    """How a run falls short of the published one; None if it does not."""
    parts = []
    if options.epochs != PUBLISHED_EPOCHS:
        parts.append(f"{options.epochs} of {PUBLISHED_EPOCHS} epochs")
    missing = [method for method in METHODS if method not in options.methods]
    if missing:
        parts.append(f"without {', '.join(METHOD_NAMES[m] for m in missing)}")
    if not set(PUBLISHED_STRENGTHS) <= set(options.strengths):
        parts.append(f"{len(options.strengths)} strengths")
    if "snc" in options.methods and not set(PUBLISHED_MAX_NORMS) <= set(
        options.max_norms
    ):
        parts.append(f"{len(options.max_norms)} bounds of SNC")
    if options.dataset in _PUBLISHED_AS:
        parts.append("a small data set")
    if options.train_examples is not None:
        parts.append(f"{options.train_examples} training images")
    if options.test_examples is not None:
        parts.append(f"{options.test_examples} test images")
    return ", ".join(parts) or None


@dataclasses.dataclass(frozen=True)
class Table1:
    """Table 1 for one data set, measured."""

    options: SweepOptions
    rows: tuple[Row, ...]
    constant: tuple[Outcome, ...]
    images: int
    selection: str  # how strengths were chosen

    @classmethod
    def of(
        cls,
        options: SweepOptions,
        outcomes: Sequence[Outcome],
        selection: str | None = None,
    ) -> "Table1":
        """Selects strengths and summarises the seeds.

        Args:
          options: what was asked for.
          outcomes: all models.
          selection: how strengths were chosen, where there was but one a method.
        """
        if selection is None:
            selection = (
                f"strength selected by the best Avg. on the {options.select_on} images"
            )
        chosen, constant = select(outcomes)
        groups = by_setting(outcomes)
        images = outcomes[0].test.images
        rows = tuple(
            summarize(chosen[method], groups[chosen[method]])
            for method in options.methods
            if method in chosen
        )
        return cls(options, rows, tuple(constant), images, selection)

    @property
    def title(self) -> str:
        """The title, with the scale where it is not the published one."""
        scale = _scale(self.options)
        name = DATASET_NAMES[self.options.dataset]
        return f"Table 1, {name}" + (f" (scaled down: {scale})" if scale else "")

    @property
    def folder(self) -> pathlib.Path:
        """Where results go below the results folder."""
        return pathlib.Path("scaled" if _scale(self.options) else "")

    @property
    def stem(self) -> str:
        """The name of its files, apart for each way to select."""
        suffix = "" if self.options.select_on == "test" else "-validation"
        return self.options.dataset + suffix

    def records(self) -> list[dict[str, Any]]:
        """The rows as plain values: fractions measured, percent published."""
        published = self._published()
        records = []
        for row in self.rows:
            record: dict[str, Any] = {
                "method": row.setting.method,
                "strength": row.setting.strength,
            }
            for name in ("avg", "min", "max", "clean"):
                statistic = dataclasses.asdict(getattr(row, name))
                record |= {f"{name}_{key}": value for key, value in statistic.items()}
            paper = published.get(row.setting.method)
            for name in ("avg", "min", "clean", "strength"):
                record[f"paper_{name}"] = getattr(paper, name) if paper else None
            records.append(record)
        return records

    def _published(self) -> dict[str, Any]:
        dataset = self.options.dataset
        return TABLE1.get(_PUBLISHED_AS.get(dataset, dataset), {})

    def markdown(self) -> str:
        """The table with the published number in brackets, and its conditions."""
        published = self._published()
        header = ("method", "Avg.", "Min.", "CLN", "lambda / sigma")
        lines = []
        for row in self.rows:
            paper = published.get(row.setting.method)
            cells = [METHOD_NAMES[row.setting.method]]
            for name in ("avg", "min", "clean"):
                ours = str(getattr(row, name))
                cells.append(f"{ours} ({getattr(paper, name):.2f})" if paper else ours)
            if row.setting.method == NONE.method:
                cells.append("")
            else:
                beside = f" ({paper.strength:g})" if paper else ""
                cells.append(f"{row.setting.strength:g}{beside}")
            lines.append(cells)
        return "\n".join(
            [f"## {self.title}", "", *aligned(header, lines), "", *self._notes()]
        )

    def _notes(self) -> list[str]:
        options = self.options
        parent = _PUBLISHED_AS.get(options.dataset)
        beside = (
            f"{DATASET_NAMES[parent]} with 60,000 images" if parent else "this data set"
        )
        seeds = ", ".join(map(str, options.seeds))
        spread = (
            "; mean ± standard deviation over seeds" if len(options.seeds) > 1 else ""
        )
        notes = [
            f"Accuracy in percent under the Single Fourier Attack, eps = 80/255, on "
            f"{self.images:,} test images: mean and minimum over all 784 frequencies, "
            f"and on clean images{spread}. In brackets: the paper, on {beside}.",
            f"{options.epochs} epochs, seeds {seeds}; {self.selection}.",
        ]
        if self.constant:
            names = sorted(
                {
                    f"{METHOD_NAMES[o.run.config.method]} {o.run.config.strength:g} "
                    f"(seed {o.run.config.seed})"
                    for o in self.constant
                }
            )
            notes.append(
                f"Left out, as they answer one class or diverged: {', '.join(names)}."
            )
        return list(itertools.chain.from_iterable((note, "") for note in notes))[:-1]

    def write(
        self, results_dir: pathlib.Path, outcomes: Sequence[Outcome]
    ) -> list[pathlib.Path]:
        """Writes the table as json, csv and md.

        Args:
          results_dir: the folder of all results.
          outcomes: all models, whose numbers go into the json beside the table.
        """
        stem = results_dir / self.folder / "table1" / self.stem
        records = self.records()
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)
        document = {
            "title": self.title,
            "options": {
                "dataset": self.options.dataset,
                "methods": self.options.methods,
                "strengths": self.options.strengths,
                "max_norms": self.options.max_norms,
                "epochs": self.options.epochs,
                "seeds": self.options.seeds,
                "train_examples": self.options.train_examples,
                "test_examples": self.options.test_examples,
                "select_on": self.options.select_on,
            },
            "test_images": self.images,
            "selection": self.selection,
            "rows": records,
            "models": [outcome.as_dict() for outcome in outcomes],
            "provenance": provenance(),
        }
        return [
            files.write_json(stem.with_suffix(".json"), document),
            files.write_text(stem.with_suffix(".csv"), text.getvalue()),
            files.write_text(stem.with_suffix(".md"), self.markdown() + "\n"),
        ]


@dataclasses.dataclass(frozen=True)
class Table1Options(SweepOptions):
    """Accuracy under the Single Fourier Attack of every method (Table 1), and the same
    against the strength (Figures 2, 4 and 5). What is trained already is not trained
    again."""  # noqa: D205, D209

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables and figures."""


def run(options: Table1Options) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and writes it with its figures."""
    outcomes = run_sweep(options)
    table = Table1.of(options, outcomes)
    print(f"\n{table.markdown()}\n")
    written = table.write(options.results_dir, outcomes)
    for name, draw in FIGURES.items():
        figure = draw(outcomes)
        if figure is not None:
            stem = options.results_dir / table.folder / name / table.stem
            written += save(figure, stem)
    return written
