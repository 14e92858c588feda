"""Table 3: accuracy under High-Frequency attacks, and over all radii."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from absum_jax.plotting import whole_numbers
from experiments.evaluation import clean, frequency
from experiments.methods import SNC_METHODS
from experiments.options import SweepOptions
from experiments.published import TABLE1_TOP5, TABLE3
from experiments.reporting import columns, comparisons, document
from experiments.reporting.columns import METHOD, STRENGTH, Column, Table
from experiments.reporting.comparisons import Comparison
from experiments.reporting.document import Document
from experiments.reporting.evaluated import sweep_workspace
from experiments.reporting.plots import lines
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import Selected, select_as_table1


@dataclasses.dataclass(frozen=True)
class Table3Options:
    """Measure accuracy on images without their high frequencies (Table 3), and draw it
    for low- and high-pass filters of all radii. Models of Table 1 are reused."""  # noqa: D205, D209

    sweep: SweepOptions = dataclasses.field(default_factory=SweepOptions)

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables and figures."""


def run(options: Table3Options) -> list[pathlib.Path]:
    """Trains, filters, prints the table and writes it with its figure."""
    with sweep_workspace(options.sweep) as workspace:
        selected = select_as_table1(options.sweep, workspace)
        runs, shape = selected.all_runs, workspace.dataset.image_shape
        radii = frequency.radii_of(shape)
        low, high = (
            selected.by_method(frequency.evaluate(workspace.test, runs, kind, radii))
            for kind in ("low-pass", "high-pass")
        )
        results = clean.evaluate(workspace.test, runs)
        images = len(workspace.test.split)
    accuracies = selected.by_method([result.accuracy for result in results])
    filtered = Filtered(radii, low, high, accuracies)
    table = table3(options.sweep, selected, filtered, shape[1], images)
    written = table.print_and_write(options.results_dir)
    panels = {
        "low-pass: frequencies within r are left": low,
        "high-pass: frequencies beyond r are left": high,
    }
    figure = lines.draw(
        radii,
        {t: dict(zip(selected.runs, a, strict=True)) for t, a in panels.items()},
        xlabel="radius r (cycles per image)",
        ylabel="accuracy (%)",
        marked=shape[1] / 4,
    )
    for ax in figure.axes:
        whole_numbers(ax.xaxis)
    return written + save(figure, table.figure_title, options.results_dir / table.path)


@dataclasses.dataclass(frozen=True)
class Filtered:
    """Accuracies as fractions."""

    radii: tuple[float, ...]  # in cycles per image
    low: np.ndarray  # (methods, seeds, radii)
    high: np.ndarray
    clean: np.ndarray  # (methods, seeds)


Row: TypeAlias = columns.Row[Mapping[str, np.ndarray], float]


def table3(
    options: SweepOptions, selected: Selected, filtered: Filtered, width: int,
    images: int,
) -> Document[Row]:  # fmt: skip
    """Summarizes the seeds."""
    published = options.models.published(TABLE3)
    # Where the paper has top-5 too, the accuracy is one of two.
    accuracy = "Top-1 accuracy" if options.models.published(TABLE1_TOP5) else "Accuracy"
    radius = width / 4
    at = filtered.radii.index(radius)
    rows = [
        Row(
            setting,
            {
                "low": low[:, at],
                "high": high[:, at],
                "high up to r": high[:, : at + 1].mean(axis=-1),
                "clean": on_clean,
            },
            published,
        )
        for setting, low, high, on_clean in zip(
            selected.settings, filtered.low, filtered.high, filtered.clean, strict=True
        )
    ]
    shown: list[Column[Row]] = [
        Column(
            "low",
            f"low-pass, r = {radius:g}",
            lambda row: row.results["low"],
            lambda row: row.published_value(float),
        ),
        Column("high", f"high-pass, r = {radius:g}", lambda row: row.results["high"]),
        Column("clean", "CLN", lambda row: row.results["clean"]),
    ]
    return Document(
        "table3",
        "Table 3",
        options,
        table=Table([METHOD, *shown, STRENGTH], rows, images),
        notes=[
            f"{accuracy} in percent on {images:,} test images without "
            "their frequencies beyond a radius (the High-Frequency attack), without "
            "those within it, and as they are"
            f"{document.spread_note(options)}. Half of the image width is read as a "
            "diameter; filtered images are not clipped."
            f"{document.published_note(options.models.dataset, published)}",
            *document.common_notes(options, "Avg.", selected.left_out),
        ],
        claims=_claims(rows, radius, published),
        conditions={"test_images": images},
        details={
            "methods": list(selected.runs),
            "radii": filtered.radii,
            "low_pass": filtered.low.tolist(),
            "high_pass": filtered.high.tolist(),
        },
    )


def _claims(
    rows: Sequence[Row], radius: float, published: Mapping[str, float]
) -> list[Comparison]:
    """Compares methods on filtered images."""
    # Without more of its low frequencies an image is beyond recognition.
    high_radii = f"high-pass, mean over r = 0 to {radius:g}"
    results = {row.setting.method: row.results for row in rows}
    low = {method: result["low"] for method, result in results.items()}
    high = {method: result["high up to r"] for method, result in results.items()}
    return [
        *comparisons.compare(
            low, comparisons.ROBUST, comparisons.STANDARD, "low-pass",
            published=published,
        ),
        *comparisons.compare(high, ["absum"], SNC_METHODS, high_radii),
    ]  # fmt: skip
