"""Draws Figure 6(b): runtime of a step of ResNet-18 against the input size."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from experiments.jobs.errors import UsageError
from experiments.models.resnet import ResNet18
from experiments.options import check_at_least_1, check_choices, shown
from experiments.reporting import naming
from experiments.reporting.plots import runtimes
from experiments.reporting.plots.axes import legend_beside, log_scale
from experiments.reporting.plots.runtimes import TIMED_METHODS, TimedMethod
from experiments.runtimes.log import Log, is_enough
from experiments.runtimes.one_step import CLASSES, Measurement, measure
from experiments.training.constraints import CLIP_EVERY
from experiments.training.runs import provenance

_TITLE = "Figure 6(b), runtime of ResNet-18 against the input size"
_NAME = "figure6b"


@dataclasses.dataclass(frozen=True)
class Figure6bOptions:
    """Measure the runtime of a training step of ResNet-18 on one image against the
    image's size (Figure 6(b)): forward, backward, update, and with SNC one clip of all
    convolutions. A clip takes minutes on a CPU for large images (less with
    OPENBLAS_NUM_THREADS=1 if other programs use the CPU too). Timings are kept in
    figure6b/measurements.jsonl in the results folder; those of the same device are
    reused."""  # noqa: D205, D209

    sizes: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    """Sizes of the image, its height and width in pixels."""

    methods: tuple[TimedMethod, ...] = TIMED_METHODS
    """Regularization methods; snc-numpy is SNC as the paper computes it."""

    repeats: int = 9
    """Number of timings whose median is reported; fewer if they take a minute."""

    snc_method: Literal["polar", "eigh"] | None = None
    """Algorithm by which SNC clips; None is eigh on a CPU and polar elsewhere."""

    numpy_sizes_up_to: int = 128
    """Largest size at which SNC in NumPy is timed."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the table and the figure."""

    def __post_init__(self) -> None:
        check_choices("--sizes", self.sizes)
        check_choices("--methods", self.methods, TIMED_METHODS)
        if not all(size >= 32 and size % 8 == 0 for size in self.sizes):
            raise UsageError(
                f"--sizes must be multiples of 8 from 32 up, got {shown(self.sizes)}."
            )
        check_at_least_1("--repeats", self.repeats)
        if not self._cases():
            raise UsageError(
                f"--numpy-sizes-up-to {self.numpy_sizes_up_to} leaves nothing to "
                f"measure of --sizes {shown(self.sizes)}."
            )

    def _cases(self) -> list[tuple[int, TimedMethod]]:
        return [
            (size, method)
            for size in self.sizes
            for method in self.methods
            if method != "snc_numpy" or size <= self.numpy_sizes_up_to
        ]

    @property
    def scaled(self) -> list[str]:
        """Returns how the figure is scaled down from the published one."""
        parts = runtimes.without_methods(self.methods)
        if not set(Figure6bOptions.sizes) <= set(self.sizes):
            parts.append(f"only sizes {', '.join(map(str, self.sizes))}")
        if self.numpy_sizes_up_to < Figure6bOptions.numpy_sizes_up_to:
            parts.append(f"NumPy up to {self.numpy_sizes_up_to}")
        return parts

    @property
    def title(self) -> str:
        """Returns the title, with how the figure is scaled down."""
        return naming.scaled_title(_TITLE, self.scaled)

    def measurements(self) -> dict[int, list[Measurement]]:
        """Lists the measurements at each size, on this device."""
        measurements: dict[int, list[Measurement]] = {}
        for size, method in self._cases():
            clip = runtimes.clip_method(method, self.snc_method)
            measurement = Measurement(method, runtimes.strength(method), clip, size)
            measurements.setdefault(size, []).append(measurement)
        return measurements


def records(
    measurements: Mapping[int, Sequence[Measurement]], log: Log
) -> list[dict[str, Any]]:
    """Makes the rows of the table as plain values, in milliseconds."""
    rows = []
    for size, group in measurements.items():
        ms = {m.method: 1e3 * float(np.median(log[m].step_s)) for m in group}
        none = ms.get("none")
        for measurement in group:
            step, timings = ms[measurement.method], log[measurement]
            amortized = None
            if none is not None and measurement.clip is not None:
                amortized = none + (step - none) / CLIP_EVERY
            rows.append({
                "size": size,
                "method": measurement.method,
                "strength": measurement.strength,
                "clip": measurement.clip,
                "ms": step,
                "ratio_to_none": None if none is None else step / none,
                f"ms_clipping_every_{CLIP_EVERY}": amortized,
                "steps_timed": len(timings.step_s),
                "fastest_ms": 1e3 * min(timings.step_s),
                "slowest_ms": 1e3 * max(timings.step_s),
                "compile_s": timings.compile_s[0],
                "openblas_num_threads": measurement.openblas_num_threads,
            })  # fmt: skip
    return rows


def markdown(
    options: Figure6bOptions, rows: Sequence[Mapping[str, Any]], about: Mapping
) -> str:
    """Makes the table, a row for each size, with its conditions."""
    ms = {(row["size"], row["method"]): f"{row['ms']:,.1f}" for row in rows}
    header = ["input", *(runtimes.NAMES[method] for method in options.methods)]
    cells = [
        [f"{size} x {size}", *(ms.get((size, m), "") for m in options.methods)]
        for size in options.sizes
    ]
    note = (
        "Milliseconds of a training step on one image, without compilation: forward, "
        f"backward, update. Median of {options.repeats} steps, fewer where they take "
        "a minute."
    )
    note += runtimes.clip_note(
        rows,
        "With SNC each step also clips all convolutions once; training does so every "
        f"{CLIP_EVERY} steps.",
        "SNC, NumPy: by FFT and SVD, as in the paper, up to "
        f"{options.numpy_sizes_up_to} x {options.numpy_sizes_up_to}.",
    )
    return runtimes.markdown(options.title, header, cells, note, rows, about)


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the runtime of each method against the input size."""
    figure = Figure(figsize=(6.6, 3.6), layout="constrained")
    ax = figure.subplots()
    for method in dict.fromkeys(row["method"] for row in rows):
        points = sorted((r["size"], r["ms"]) for r in rows if r["method"] == method)
        ax.plot(*zip(*points, strict=True), **runtimes.timed_style(method))
    sizes = sorted({row["size"] for row in rows})
    ax.set_xscale("log", base=2)
    log_scale(ax)
    ax.set_xticks(sizes, list(map(str, sizes)))
    ax.set_xlabel("height and width of the image")
    ax.set_ylabel("runtime of a step (ms)")
    legend_beside(ax)
    return figure


def run(options: Figure6bOptions) -> list[pathlib.Path]:
    """Measures what is missing, prints the table and writes it with the figure."""
    repeats, measurements = options.repeats, options.measurements()

    @functools.cache
    def model() -> ResNet18:
        return nnx.jit(lambda: ResNet18(classes=CLASSES, rngs=nnx.Rngs(0)))()

    log = runtimes.measure_missing(
        options.results_dir / _NAME,
        measurements.values(),
        lambda m, log: is_enough(log[m].step_s, repeats),
        lambda group, log: measure(model(), group, repeats, log),
        "timing ResNet-18",
    )
    rows = records(measurements, log)
    table = markdown(options, rows, provenance())
    stem = options.results_dir / naming.folder(_NAME, options.scaled) / "resnet18"
    return runtimes.write(stem, options.title, options, rows, table, draw(rows))
