"""Readings of the spectral-norm constraint, side by side.

The published SNC rows do not follow from the plain reading; this trains the others.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from absum_jax._markdown import aligned
from experiments import files
from experiments.errors import UsageError
from experiments.options import ModelOptions, check_positive, check_seeds
from experiments.outcomes import Outcome, attacked
from experiments.paper import TABLE1
from experiments.tables import naming
from experiments.tables.selection import Row, by_setting, summarize
from experiments.training.config import NONE, SNC_NUMPY_AXES, Setting
from experiments.training.runs import provenance
from experiments.workspace import opened

READINGS = {
    NONE.method: "no constraint",
    "snc": "plain: singular values of each convolution, every 100 steps",
    "snc-last": "and once more after the last step",
    "snc-every-step": "at every step",
    "snc-projected": "ten alternating projections in place of one",
    "snc-dense": "dense layers too",
    "snc-rescaled": "kernels rescaled (Gouk et al.), not clipped",
    "snc-filters": "each filter by itself, not multi-channel matrices",
    "snc-oihw": "kernels (out, in, h, w) taken for (h, w, in, out)",
    SNC_NUMPY_AXES: "NumPy's default axes on kernels (out, in, h, w)",
}


@dataclasses.dataclass(frozen=True)
class SncReadingsOptions(ModelOptions):
    """Train the small CNN under several readings of the paper's spectral-norm
    constraint (SNC), and attack each model with every frequency."""  # noqa: D205, D209

    max_norms: tuple[float, ...] = (1.0, 10.0)
    """Bounds on the spectral norm (sigma)."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; each trains every reading at every bound once."""

    test_examples: int | None = None
    """Images to attack, a fixed choice of that many; None is all."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the table."""

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        if self.model != "small_cnn":
            raise UsageError(
                "snc-readings is for small_cnn alone, whose layers the readings know; "
                f"--dataset {self.dataset} has {self.model}."
            )
        check_positive("--max-norms", self.max_norms)
        check_seeds(self.seeds)


def _settings(options: SncReadingsOptions) -> list[Setting]:
    return [NONE] + [
        Setting(reading, max_norm)
        for reading in READINGS
        if reading != NONE.method
        for max_norm in options.max_norms
    ]


def _scale(options: SncReadingsOptions) -> list[str]:
    return naming.model_scale(options, options.test_examples)


def _title(options: SncReadingsOptions) -> str:
    return naming.title("Readings of SNC", options, _scale(options))


def _markdown(options: SncReadingsOptions, rows: Sequence[Row], images: int) -> str:
    header = ("reading", "sigma", "Avg.", "Min.", "CLN")
    cells = [
        (
            READINGS[row.setting.method],
            "" if row.setting == NONE else f"{row.setting.strength:g}",
            str(row.avg),
            str(row.min),
            str(row.clean),
        )
        for row in rows
    ]
    if paper := TABLE1.get((options.dataset, options.model), {}).get("snc"):
        published = (paper.strength, paper.avg, paper.min, paper.clean)
        sigma, *accuracies = published
        avg, worst, clean = (f"{value:.2f}" for value in accuracies)
        cells.append(("published", f"{sigma:g}", avg, worst, clean))
    train = "all" if options.train_examples is None else f"{options.train_examples:,}"
    seeds = ", ".join(map(str, options.seeds))
    spread = "; mean ± standard deviation over seeds" if len(options.seeds) > 1 else ""
    return "\n".join(
        [
            f"## {_title(options)}",
            "",
            *aligned(header, cells),
            "",
            "Accuracy in percent under the Single Fourier Attack, eps = 80/255, on "
            f"{images:,} test images: mean and minimum over all 784 frequencies, and "
            f"on clean images{spread}. {options.recipe().epochs} epochs on {train} "
            f"training images, seeds {seeds}.",
        ]
    )


def _record(row: Row) -> dict[str, Any]:
    return {
        "reading": row.setting.method,
        "description": READINGS[row.setting.method],
        "max_norm": row.setting.strength or None,
        **{
            name: dataclasses.asdict(getattr(row, name))
            for name in ("avg", "min", "max", "clean")
        },
    }


def _rows(outcomes: Sequence[Outcome]) -> list[Row]:
    return [summarize(*group) for group in by_setting(outcomes).items()]


def run(options: SncReadingsOptions) -> list[pathlib.Path]:
    """Trains, attacks, prints the table and writes it."""
    with opened(options, test_examples=options.test_examples) as workspace:
        runs = workspace.train(_settings(options), options.seeds)
        outcomes = attacked(workspace, runs)
    rows = _rows(outcomes)
    text = _markdown(options, rows, outcomes[0].test.images)
    print(f"\n{text}\n")
    stem = options.results_dir / naming.model_path(
        "snc-readings", options, _scale(options)
    )
    content = {
        "title": _title(options),
        "dataset": options.dataset,
        "epochs": options.recipe().epochs,
        "seeds": options.seeds,
        "train_examples": options.train_examples,
        "test_images": outcomes[0].test.images,
        "rows": [_record(row) for row in rows],
        "models": [outcome.as_dict() for outcome in outcomes],
        "provenance": provenance(),
    }
    return [
        files.write_json(stem.with_suffix(".json"), content),
        files.write_text(stem.with_suffix(".md"), text + "\n"),
    ]
