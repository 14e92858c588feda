"""Band filters, corruptions and Fourier basis noise, beyond the paper."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from experiments.config import NONE
from experiments.evaluation import clean, corruption, frequency, single_fourier
from experiments.evaluation.frequency import Band
from experiments.methods import METHODS
from experiments.options import SweepOptions, check_fourier_noise
from experiments.reporting import columns, comparisons, document, naming
from experiments.reporting.columns import METHOD, STRENGTH, Column, Table
from experiments.reporting.comparisons import Comparison
from experiments.reporting.document import Document
from experiments.reporting.evaluated import sweep_workspace
from experiments.reporting.selection import Selected, select_as_table1
from experiments.statistics.summary import Statistic


@dataclasses.dataclass(frozen=True)
class FrequenciesOptions:
    """Measure every method's accuracy on images without a band of frequencies, or with
    only that band; on corrupted images, with the severities of CIFAR-10-C or MNIST-C;
    and under Fourier basis noise (beyond the paper). Models of Table 1 are reused."""  # noqa: D205, D209

    sweep: SweepOptions = dataclasses.field(default_factory=SweepOptions)

    norm: float = 4.0
    """L2 norm of Fourier basis noise, for pixels in [0, 1]."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the table."""

    def __post_init__(self) -> None:
        check_fourier_noise(self.sweep, self.norm)


def run(options: FrequenciesOptions) -> list[pathlib.Path]:
    """Trains, evaluates, prints the table and writes it."""
    with sweep_workspace(options.sweep) as workspace:
        selected = select_as_table1(options.sweep, workspace)
        runs, shape = selected.all_runs, workspace.dataset.image_shape
        test = workspace.test
        bands = frequency.bands_of(shape)
        benchmark = corruption.benchmark_of(shape)
        passed, stopped = (
            selected.by_method(frequency.evaluate_bands(test, runs, kind, bands))
            for kind in ("band-pass", "band-stop")
        )
        corrupted = corruption.evaluate(test, runs, benchmark)
        noise = single_fourier.noise_grids(test, runs, options.norm)
        accuracies = [result.accuracy for result in clean.evaluate(test, runs)]
        images = len(test.split)
    found = Frequencies(
        bands, passed, stopped, benchmark,
        selected.by_method(corrupted), options.norm,
        selected.by_method(noise.reshape(len(runs), -1)),
        selected.by_method(accuracies),
    )  # fmt: skip
    table = dataclasses.replace(
        frequencies(options.sweep, selected, found, images),
        variant=naming.variant(options, "norm"),
    )
    return table.print_and_write(options.results_dir)


@dataclasses.dataclass(frozen=True)
class Frequencies:
    """Accuracies as fractions, and what they are under."""

    bands: Sequence[Band]
    passed: np.ndarray  # (methods, seeds, bands), on images of a band
    stopped: np.ndarray  # likewise, without it
    benchmark: str
    corrupted: np.ndarray  # (methods, seeds, kinds, severities)
    norm: float
    noise: np.ndarray  # (methods, seeds, frequencies)
    clean: np.ndarray  # (methods, seeds)


Row: TypeAlias = columns.Row[Mapping[str, np.ndarray], float]


def frequencies(
    options: SweepOptions, selected: Selected, found: Frequencies, images: int
) -> Document[Row]:
    """Summarizes the seeds."""
    means = {
        "band_stop": found.stopped.mean(axis=-1),
        "band_pass": found.passed.mean(axis=-1),
        "corrupted": found.corrupted.mean(axis=(-2, -1)),
        "noise_avg": found.noise.mean(axis=-1),
        "noise_min": found.noise.min(axis=-1),
        "clean": found.clean,
    }
    rows = [
        Row(setting, {name: mean[i] for name, mean in means.items()}, {})
        for i, setting in enumerate(selected.settings)
    ]
    kinds = corruption.kinds_of(found.benchmark)
    return Document(
        "frequencies",
        "Frequencies and corruptions",
        options,
        table=Table([METHOD, *COLUMNS, STRENGTH], rows, images),
        notes=[
            f"Accuracy in percent on {images:,} test images, beyond the paper: without "
            "a band of frequencies and with that band alone, means over the bands "
            "below; corrupted, mean over the kinds below and severities 1 to 5; under "
            f"Fourier basis noise of norm {found.norm:g} with random signs, mean and "
            "minimum over all frequencies; and on clean images"
            f"{document.spread_note(options)}. Filtered images are not clipped. "
            f"Corruptions have the severities of {_NAMES[found.benchmark]}, but are "
            "not its published arrays: they have other random numbers and no 8-bit "
            "values.",
            *document.common_notes(options, "Avg.", selected.left_out),
        ],
        claims=_claims(rows),
        conditions={"test_images": images, "benchmark": found.benchmark},
        details={
            "methods": list(selected.runs),
            "bands": found.bands,
            "band_stop": found.stopped.tolist(),
            "band_pass": found.passed.tolist(),
            "kinds": kinds,
            "corrupted": found.corrupted.tolist(),
            "noise_avg": means["noise_avg"].tolist(),
            "noise_min": means["noise_min"].tolist(),
        },
        appendix=[
            "Without the frequencies r1 < d <= r2, in cycles per image, and with these "
            "alone:",
            "",
            *_by_method(
                selected,
                {
                    f"{what} {low:g} to {high:g}": accuracies[..., i]
                    for what, accuracies in (
                        ("without", found.stopped), ("only", found.passed),
                    )
                    for i, (low, high) in enumerate(found.bands)
                },
                images,
            ),
            "",
            "By the kind of corruption, means over severities 1 to 5:",
            "",
            *_by_method(
                selected,
                {
                    _title(kind): found.corrupted[:, :, i].mean(axis=-1)
                    for i, kind in enumerate(kinds)
                },
                images,
            ),
        ],
        more_options={"norm": found.norm},
    )  # fmt: skip


def _title(kind: str) -> str:
    return kind.replace("_", " ").replace("gaussian", "Gaussian")


_NAMES = {"cifar10-c": "CIFAR-10-C", "mnist-c": "MNIST-C"}

# A column added here appears in Markdown, CSV and JSON.
COLUMNS: list[Column[Row]] = [
    Column(key, title, lambda row, key=key: row.results[key])  # type: ignore[misc]
    for key, title in (
        ("band_stop", "band-stop"),
        ("band_pass", "band-pass"),
        ("corrupted", "corrupted"),
        ("noise_avg", "Fourier noise, Avg."),
        ("noise_min", "Min."),
        ("clean", "CLN"),
    )
]


def _by_method(
    selected: Selected, accuracies: Mapping[str, np.ndarray], images: int
) -> list[str]:
    """Makes the lines of a table of accuracies (methods, seeds) by their titles."""
    cells = [
        [
            METHODS[method].label,
            *(str(Statistic.of(each[i], images)) for each in accuracies.values()),
        ]
        for i, method in enumerate(selected.runs)
    ]
    return columns.aligned(["method", *accuracies], cells)


def _claims(rows: Sequence[Row]) -> list[Comparison]:
    """Compares the methods that the paper compares under its attacks."""
    results = {row.setting.method: row.results for row in rows}
    noisy, corrupted = (
        {method: result[key] for method, result in results.items()}
        for key in ("noise_avg", "corrupted")
    )
    return [
        *comparisons.compare(
            noisy, comparisons.ROBUST, comparisons.STANDARD, "Fourier noise",
            is_beyond=True,
        ),
        *comparisons.compare(
            corrupted, ["absum"], [*comparisons.STANDARD, NONE.method], "corrupted",
            is_beyond=True,
        ),
    ]  # fmt: skip
