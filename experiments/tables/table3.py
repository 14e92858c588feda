"""Table 3: accuracy under High-Frequency attacks, and over all radii."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from absum_jax.markdown import aligned
from experiments.evaluation import clean, frequency
from experiments.methods import METHODS, SNC_METHODS
from experiments.options import SweepOptions
from experiments.published import TABLE3, published_row
from experiments.reporting import claims, document
from experiments.reporting.claims import Claim
from experiments.reporting.document import Document
from experiments.reporting.outcomes import sweep_workspace
from experiments.reporting.plots import radius
from experiments.reporting.plots.saving import save
from experiments.reporting.selection import Chosen, choose
from experiments.statistics.summary import Statistic


@dataclasses.dataclass(frozen=True)
class Table3Options(SweepOptions):
    """Accuracy on images without their high frequencies (Table 3), and of low- and
    high-pass filters over all radii, with a figure. Models of Table 1 are taken where
    they lie."""  # noqa: D205, D209

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for tables and figures."""


@dataclasses.dataclass(frozen=True)
class Filtered:
    """Accuracies as fractions."""

    radii: tuple[float, ...]  # in cycles per image
    low: np.ndarray  # (methods, seeds, radii)
    high: np.ndarray
    clean: np.ndarray  # (methods, seeds)


def _claims(
    methods: Sequence[str], filtered: Filtered, at: int, published: Mapping[str, float]
) -> list[Claim]:
    """The paper's claims about filters."""
    low = {m: filtered.low[i, :, at] for i, m in enumerate(methods)}
    # Without more of its low frequencies an image is beyond recognition.
    high = {
        m: filtered.high[i, :, : at + 1].mean(axis=-1) for i, m in enumerate(methods)
    }
    high_radii = f"high-pass, mean over r = 0 to {filtered.radii[at]:g}"
    return [
        *claims.above(
            low, claims.ROBUST, claims.STANDARD, "low-pass", published=published
        ),
        *claims.above(high, ["absum"], SNC_METHODS, high_radii),
    ]


def _lines(
    chosen: Chosen, columns: Mapping[str, Sequence[Statistic]],
    published: Mapping[str, float],
) -> list[str]:  # fmt: skip
    header = ("method", *columns, "lambda / sigma")
    rows = []
    for i, setting in enumerate(chosen.settings):
        low, *others = (column[i] for column in columns.values())
        rows.append(
            (
                METHODS[setting.method].label,
                document.with_published(low, published.get(setting.method)),
                *map(str, others),
                document.strength(setting, None),
            )
        )
    return aligned(header, rows)


def table3(
    options: SweepOptions, chosen: Chosen, filtered: Filtered, width: int, images: int
) -> Document:
    """Summarises the seeds.

    Args:
      options: what was asked for.
      chosen: the models.
      filtered: what they withstand; a quarter of the width is among its radii.
      width: of the images.
      images: how many were filtered.
    """
    published = published_row(TABLE3, options.dataset, options.published_network)
    at = filtered.radii.index(width / 4)
    methods = list(chosen.runs)
    r = f"r = {width / 4:g}"
    columns = {
        name: [Statistic.of(values, images) for values in accuracies]
        for name, accuracies in (
            (f"low-pass, {r}", filtered.low[:, :, at]),
            (f"high-pass, {r}", filtered.high[:, :, at]),
            ("CLN", filtered.clean),
        )
    }
    held = _claims(methods, filtered, at, published)
    notes = [
        f"{document.accuracy(options)} in percent on {images:,} test images without "
        "their frequencies beyond a radius (the High-Frequency attack), without those "
        f"within it, and as they are{document.with_spread(options)}. Half of the image "
        "width is read as a diameter; filtered images are not clipped."
        f"{document.beside(options.dataset, published)}",
        document.training_note(options, document.selection_note(options, "Avg.")),
        *document.left_out_note(chosen.left_out),
    ]
    names = ("low", "high", "clean")
    records = [
        {"method": setting.method, "strength": setting.strength}
        | {
            f"{name}_{key}": value
            for name, column in zip(names, columns.values(), strict=True)
            for key, value in dataclasses.asdict(column[i]).items()
        }
        | {"paper_low": published.get(setting.method)}
        for i, setting in enumerate(chosen.settings)
    ]
    return Document(
        "table3",
        "Table 3",
        options,
        document.body(_lines(chosen, columns, published), notes, claims.section(held)),
        records,
        {
            "test_images": images,
            "rows": records,
            "claims": [claim.as_dict() for claim in held],
            "methods": methods,
            "radii": filtered.radii,
            "low_pass": filtered.low.tolist(),
            "high_pass": filtered.high.tolist(),
        },
    )


def run(options: Table3Options) -> list[pathlib.Path]:
    """Trains, filters, prints the table and writes it with its figure."""
    with sweep_workspace(options) as workspace:
        chosen = choose(options, workspace)
        runs, shape = chosen.all_runs, workspace.dataset.image_shape
        radii = frequency.radii_of(shape)
        sizes = len(chosen.runs), len(options.seeds)
        low, high = (
            frequency.evaluate(workspace.test, runs, kind, radii).reshape(*sizes, -1)
            for kind in ("low-pass", "high-pass")
        )
        answers = clean.evaluate(workspace.test, runs)
        images = len(workspace.test.split)
    accuracies = np.array([answer.accuracy for answer in answers]).reshape(sizes)
    filtered = Filtered(radii, low, high, accuracies)
    table = table3(options, chosen, filtered, shape[1], images)
    print(f"\n{table.markdown}\n")
    curves = {"low-pass": low, "high-pass": high}
    figure = radius.draw(list(chosen.runs), radii, curves, shape[1] / 4)
    return table.write(options.results_dir) + save(
        figure, options.results_dir / table.path
    )
