"""Draws Figure 6(a): runtime of an epoch of each method, on each data set."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments.config import NONE
from experiments.data import DATASETS, NamedDataset
from experiments.models import ARCHITECTURES, networks_for
from experiments.options import (
    ComputeOptions,
    ModelOptions,
    check_at_least_1,
    check_choices,
)
from experiments.reporting import naming
from experiments.reporting.plots import runtimes
from experiments.reporting.plots.axes import legend_beside, log_scale
from experiments.reporting.plots.runtimes import TIMED_METHODS, TimedMethod
from experiments.runtimes.log import Log, is_enough
from experiments.runtimes.one_epoch import Measurement, measure
from experiments.training.constraints import CLIP_EVERY
from experiments.training.runs import provenance

_TITLE = "Figure 6(a), runtime of an epoch"
_NAME = "figure6a"


@dataclasses.dataclass(frozen=True)
class Figure6aOptions:
    """Measure the runtime of an epoch of training with each method on each data set
    (Figure 6(a)). The images are noise, as many and as large as those of the data set,
    which is not read. For ImageNet there are only as many as the timed steps need, and
    decoding is not timed. An epoch of ResNet-18 takes about ten minutes on two cores:
    see --timed-steps. Timings are kept in figure6a/measurements.jsonl in the results
    folder; those of the same device are reused."""  # noqa: D205, D209

    datasets: tuple[NamedDataset, ...] = (
        "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped",
    )  # fmt: skip
    """Data sets, with the paper's first network for each."""

    methods: tuple[TimedMethod, ...] = TIMED_METHODS
    """Regularization methods; snc-numpy is SNC as the paper computes it."""

    # Files name it steps.
    steps: Annotated[int | None, tyro.conf.arg(name="timed-steps")] = None
    """Time only the first N steps and scale the time up; None is the whole epoch. On
    ImageNet at most 100, the steps from one clip of SNC to the next."""

    repeats: int = 3
    """Number of timings whose median is reported; fewer if they take a minute."""

    dtype: Literal["float32", "bfloat16"] | None = None
    """Precision of the convolutions of large networks; None is float32 on a CPU and
    bfloat16 elsewhere."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the table and the figure."""

    def __post_init__(self) -> None:
        check_choices("--datasets", self.datasets, DATASETS)
        check_choices("--methods", self.methods, TIMED_METHODS)
        check_at_least_1("--timed-steps", self.steps)
        check_at_least_1("--repeats", self.repeats)

    @property
    def scaled(self) -> list[str]:
        """Returns how the figure is scaled down from the published one."""
        parts = runtimes.without_methods(self.methods)
        if not set(Figure6aOptions.datasets) <= set(self.datasets):
            labels = (DATASETS[dataset].label for dataset in self.datasets)
            parts.append(f"only {', '.join(labels)}")
        every = [m for group in self.measurements().values() for m in group]
        if short := [m.steps for m in every if m.steps < m.epoch_steps]:
            parts.append(f"{max(short)} steps timed")
        return parts

    @property
    def title(self) -> str:
        """Returns the title, with how the figure is scaled down."""
        return naming.scaled_title(_TITLE, self.scaled)

    def measurements(self) -> dict[str, list[Measurement]]:
        """Lists the measurements on each data set, on this device."""
        measurements: dict[str, list[Measurement]] = {}
        for dataset in self.datasets:
            is_small = ARCHITECTURES[networks_for(dataset)[0]].is_small
            compute = ComputeOptions(dtype=None if is_small else self.dtype)
            model = ModelOptions(dataset=dataset, compute=compute)
            group = []
            for method in self.methods:
                whole = Measurement(
                    method, runtimes.strength(method), runtimes.clip_method(method),
                    dataset, model.model, model.dtype, steps=1,
                )  # fmt: skip
                steps = min(self.steps or whole.most_steps, whole.most_steps)
                group.append(dataclasses.replace(whole, steps=steps))
            measurements[dataset] = group
        return measurements


def records(
    measurements: Mapping[str, Sequence[Measurement]], log: Log
) -> list[dict[str, Any]]:
    """Makes the rows of the table as plain values, in seconds."""
    rows = []
    for dataset, group in measurements.items():
        seconds = {}
        for m in group:
            timed = log[m].epoch_s
            clip_s = float(np.median(log[m].clip_s)) if m.clip else 0.0
            seconds[m.method] = [
                m.epoch_seconds(steps_s, clip_s)
                for steps_s in (min(timed), float(np.median(timed)), max(timed))
            ]
        for m in group:
            (fastest, epoch, slowest), timings = seconds[m.method], log[m]
            rows.append({
                "dataset": dataset,
                "examples": DATASETS[dataset].train_examples,
                "model": m.model,
                "dtype": m.dtype,
                "held": m.is_held,
                "batch_size": m.recipe.batch_size,
                "method": m.method,
                "strength": m.strength,
                "clip": m.clip,
                "epoch_s": epoch,
                "fastest_epoch_s": fastest,
                "slowest_epoch_s": slowest,
                **{f"ratio_to_{n}": epoch / seconds[n][1] if n in seconds else None
                   for n in ("none", "absum")},
                "steps_of_the_epoch": m.epoch_steps,
                "steps_timed": m.steps,
                "clips_in_the_steps_timed": m.clips_timed,
                "timings": len(timings.epoch_s),
                "fastest_s": min(timings.epoch_s),
                "slowest_s": max(timings.epoch_s),
                "clip_s": float(np.median(timings.clip_s)) if m.clip else None,
                "clips_timed_alone": len(timings.clip_s),
                "openblas_num_threads": m.openblas_num_threads,
            })  # fmt: skip
    return rows


def _cell(row: Mapping[str, Any]) -> str:
    seconds, ratio = row["epoch_s"], row["ratio_to_none"]
    text = f"{seconds:,.0f}" if seconds >= 1e3 else f"{seconds:.3g}"
    if ratio is None or row["method"] == NONE.method:
        return text
    return f"{text} ({ratio:.2f}x)"


def markdown(
    options: Figure6aOptions, rows: Sequence[Mapping[str, Any]], about: Mapping
) -> str:
    """Makes the table, a row for each data set, with its conditions."""
    cells = []
    for dataset in options.datasets:
        by_method = {row["method"]: row for row in rows if row["dataset"] == dataset}
        row = by_method[options.methods[0]]
        timed = f"{row['steps_timed']:,} of {row['steps_of_the_epoch']:,}"
        network = f"{ARCHITECTURES[row['model']].label}, {row['dtype']}"
        seconds = (_cell(by_method[method]) for method in options.methods)
        cells.append([DATASETS[dataset].label, network, timed, *seconds])
    names = [runtimes.NAMES[method] for method in options.methods]
    header = ["data set", "network", "steps timed", *names]
    note = (
        "Seconds of an epoch of training, without compilation, and in brackets the "
        "ratio to no regularization: the paper's batches, with its crops and flips "
        "where it has them, on images of noise, as many and as large as the data "
        f"set's. Median of {options.repeats} timings, fewer where they take a minute."
    )
    if not all(row["held"] for row in rows):
        note += (
            " Of ImageNet's there are as many as the timed steps take: its images are "
            "decoded, cropped and flipped by other processes, which is not timed."
        )
    if any(row["steps_timed"] < row["steps_of_the_epoch"] for row in rows):
        note += " Where not all steps were timed, those are scaled up to the epoch."
    note += runtimes.clip_note(
        rows,
        f"SNC clips every {CLIP_EVERY} steps. A clip was timed by itself, and is added "
        "for as many as an average epoch has and the timed steps had not.",
        "SNC, NumPy: by FFT and SVD on the CPU, as in the paper.",
    )
    return runtimes.markdown(options.title, header, cells, note, rows, about)


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the runtime of each method on each data set."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(3.0 + 1.4 * len(datasets), 3.6), layout="constrained")
    ax = figure.subplots()
    for i, method in enumerate(methods):
        of_method = [row for row in rows if row["method"] == method]
        seconds = np.array([row["epoch_s"] for row in of_method])
        interval = [
            seconds - [row["fastest_epoch_s"] for row in of_method],
            [row["slowest_epoch_s"] for row in of_method] - seconds,
        ]
        ax.errorbar(
            np.arange(len(datasets)) + 0.8 * ((i + 0.5) / len(methods) - 0.5), seconds,
            interval, **runtimes.timed_style(method) | {"linestyle": "none"},
        )  # fmt: skip
    log_scale(ax)
    labels = {row["dataset"]: ARCHITECTURES[row["model"]].label for row in rows}
    ax.set_xticks(
        range(len(datasets)),
        [f"{DATASETS[name].label}\n{network}" for name, network in labels.items()],
    )
    ax.set_title("bars: fastest to slowest timing", fontsize=9)
    ax.set_xlim(-0.5, len(datasets) - 0.5)
    ax.set_ylabel("runtime of an epoch (s)")
    legend_beside(ax)
    return figure


def run(options: Figure6aOptions) -> list[pathlib.Path]:
    """Measures what is missing, prints the table and writes it with the figure."""
    repeats, measurements = options.repeats, options.measurements()
    log = runtimes.measure_missing(
        options.results_dir / _NAME,
        measurements.values(),
        lambda m, log: (
            is_enough(log[m].epoch_s, repeats)
            and (m.clip is None or is_enough(log[m].clip_s, repeats))
        ),
        lambda group, log: measure(group, repeats, log),
        "timing epochs",
    )
    rows = records(measurements, log)
    table = markdown(options, rows, provenance())
    stem = options.results_dir / naming.folder(_NAME, options.scaled) / "epochs"
    return runtimes.write(stem, options.title, options, rows, table, draw(rows))
