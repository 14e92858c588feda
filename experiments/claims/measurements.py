"""Reads the evaluations of finished models from records, as numbers of images.

The penalties of Figure 8 come from the document that its command writes.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.config import RunConfig
from experiments.data import DATASETS, pgd_of
from experiments.data.recorded import RecordedSplit
from experiments.evaluation import clean, frequency, gradient, points, single_fourier
from experiments.jobs import files
from experiments.jobs.errors import UsageError, damage_named
from experiments.methods import ABSUM_AUTODIFF
from experiments.options import SweepOptions, both_ways, pairs
from experiments.published import SPECTRUM_EPS
from experiments.reporting.comparisons import Measured
from experiments.reporting.evaluated import sweep_workspace
from experiments.reproduce.items import FIGURE8_SEEDS
from experiments.training.runs import Run
from experiments.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Sample:
    """Holds the measurements of one data set's models, which are trained alike."""

    options: SweepOptions
    seeds: tuple[int, ...] = ()  # those with all models, which are evaluated
    # The missing methods of seeds that have some models, but not all.
    lacking: Mapping[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    unevaluated: tuple[int, ...] = ()  # seeds with all models, not all evaluated
    # Of each quantity, parts (units, methods).
    measured: Mapping[str, Measured] = dataclasses.field(default_factory=dict)
    broken: tuple[RunConfig, ...] = ()  # models that diverged or predict one class
    devices: frozenset[str] = frozenset()

    @property
    def is_complete(self) -> bool:
        """Checks whether all planned seeds have all models, which are evaluated."""
        return self.seeds == tuple(self.options.seeds)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Returns the planned pairs of seeds that both count."""
        planned = pairs(self.options.seeds)
        return [pair for pair in planned if set(pair) <= set(self.seeds)]

    def difference(self, quantity: str, larger: str, smaller: str) -> Measured:
        """Subtracts one method from another, unit by unit."""
        if quantity not in self.measured:
            return Measured(np.zeros(0, np.int64), 1)
        parts, whole = self.measured[quantity]
        first, second = (self.options.methods.index(m) for m in (larger, smaller))
        return Measured(parts[:, first] - parts[:, second], whole)


def numbers_of_images(
    runs: Sequence[Run], fractions: Sequence[Any] | np.ndarray, images: int
) -> np.ndarray:
    """Recovers numbers of images from fractions (runs, ...), rounded to float32."""
    values = np.asarray(fractions, float)
    numbers = np.rint(values * images)
    is_exact = (numbers / images).astype(np.float32) == values
    is_exact &= (numbers >= 0) & (numbers <= images)
    for run, exact, of_run in zip(runs, is_exact, values, strict=True):
        if not np.all(exact):
            raise UsageError(
                f"{run.folder}: {of_run[~exact].flat[0]!r} is not the share of a whole "
                f"number of {images:,} images in float32."
            )
    return numbers.astype(np.int64)


def _measured(
    workspace: Workspace, sample: Sample, runs: Sequence[Run], wanted: Collection[str]
) -> dict[str, Measured]:
    """Reads the wanted quantities of the models of complete seeds."""
    options, test = sample.options, workspace.test
    dataset = options.models.dataset
    images, methods = len(test.split), len(options.methods)
    shape = workspace.dataset.image_shape
    quarter = shape[1] / 4
    radii = [radius for radius in frequency.radii_of(shape) if radius <= quarter]
    steps = gradient.published_steps(dataset)

    def total(fractions: Sequence[Any] | np.ndarray) -> Measured:
        """Sums the correctly classified images of each run over all evaluations."""
        cells = numbers_of_images(runs, fractions, images).reshape(len(runs), -1)
        return Measured(cells.sum(axis=1), images * cells.shape[1])

    @functools.cache
    def grids() -> list[np.ndarray]:
        eps = DATASETS[dataset].conditions.single_fourier_eps
        stride = options.frequency_stride
        attacked = single_fourier.evaluate(test, runs, eps, stride=stride)
        return [robustness.grid for robustness in attacked]

    def pgd() -> Measured:
        eps = pgd_of(dataset).test_eps
        attacks = gradient.white_box(test, runs, eps, steps)
        return total([[attack[e].accuracy for e in eps] for attack in attacks])

    def high_share() -> Measured:
        spectra = gradient.power_spectra(test, runs, SPECTRUM_EPS, steps)
        return Measured(np.array([*map(gradient.high_frequency_fraction, spectra)]), 1)

    def transferred() -> Measured:
        """Attacks each model through its pair's; sums over both directions."""
        eps = pgd_of(dataset).transfer_eps
        of_seed = {
            seed: runs[i * methods : (i + 1) * methods]
            for i, seed in enumerate(sample.seeds)
        }
        both = [
            (target, substitute)
            for seed, other in both_ways(sample.pairs)
            for target, substitute in zip(of_seed[seed], of_seed[other], strict=True)
        ]
        accuracies = [
            gradient.transferred(test, [target], [substitute], eps, steps).item()
            for target, substitute in both
        ]
        numbers = numbers_of_images([target for target, _ in both], accuracies, images)
        return Measured(numbers.reshape(-1, 2, methods).sum(axis=1), 2 * images)

    read: dict[str, Callable[[], Measured]] = {
        "clean": lambda: total([m.accuracy for m in clean.evaluate(test, runs)]),
        "low-pass": lambda: total(
            frequency.evaluate(test, runs, "low-pass", [quarter])
        ),
        "high-pass": lambda: total(frequency.evaluate(test, runs, "high-pass", radii)),
        "pgd": pgd,
        "minimum": lambda: total([grid.min() for grid in grids()]),
        "mean": lambda: total(grids()),
        "high share": high_share,
        "transferred": transferred,
    }
    measured = {name: of_name() for name, of_name in read.items() if name in wanted}
    return {
        name: Measured(parts.reshape(-1, methods), whole)
        for name, (parts, whole) in measured.items()
        if parts.size
    }


def read(options: SweepOptions, quantities: Collection[str]) -> Sample:
    """Reads the records of the seeds that have all models; computes nothing.

    Seeds whose models lack an evaluation of the quantities are left out.

    Raises:
      UsageError: if the folder has runs, not records, or if a record is damaged or
        lacks attacks made on the other seed of a pair.
    """
    if not options.models.has_records:
        folder = options.models.runs_dir / options.models.dataset
        if folder.exists():
            raise UsageError(
                f"{folder} has no records: copy its models with the command record."
            )
        return Sample(options)
    with sweep_workspace(options) as workspace:
        split = workspace.training
        if isinstance(split, RecordedSplit) and not split.is_known:
            return Sample(options)  # all models are of other images
        complete, lacking, unevaluated = {}, {}, []
        for seed in options.seeds:
            of_seed = workspace.runs(options.settings(), [seed])
            missing = [run.config.method for run in of_seed if not run.is_complete]
            if 0 < len(missing) < len(of_seed):
                lacking[seed] = tuple(missing)
            if missing:
                continue
            alone = Sample(options, (seed,))
            try:
                _measured(workspace, alone, of_seed, quantities)
            except points.UnevaluatedError:
                unevaluated.append(seed)
            else:
                complete[seed] = of_seed
        sample = Sample(options, tuple(complete), lacking, tuple(unevaluated))
        if not complete:
            return sample
        runs = list(itertools.chain(*complete.values()))
        measured = _measured(workspace, sample, runs, quantities)
        results = zip(runs, clean.evaluate(workspace.test, runs), strict=True)
        broken = tuple(
            run.config
            for run, result in results
            if clean.is_degenerate(run, result.classes_predicted)
        )
    # The backend and the kind of device that finished training.
    devices = frozenset(
        f"{run.provenance.get('backend')} ({run.provenance.get('device')})"
        for run in runs
    )
    return dataclasses.replace(
        sample, measured=measured, broken=broken, devices=devices
    )


def penalty_saved(results_dir: pathlib.Path) -> Measured | None:
    """Reads by how much the proximal step's last penalty is smaller in Figure 8.

    It is a fraction of automatic differentiation's penalty for each planned seed; None
    if there is no figure of these seeds, or a model diverged.

    Raises:
      UsageError: if the figure's document is damaged.
    """
    path = results_dir / "figure8" / "mnist.json"
    fix = "make it again with the command figure8"
    document = files.read_json_if_there(path, fix)
    if document is None:
        return None
    with damage_named(path, fix):
        models = document["models"]
        has_diverged = any(model["diverged"] for model in models)
        if has_diverged or {model["seed"] for model in models} != {*FIGURE8_SEEDS}:
            return None
        last = {
            (model["seed"], model["method"]): float(model["regularization"][-1])
            for model in models
        }
        ratios = [last[s, "absum"] / last[s, ABSUM_AUTODIFF] for s in FIGURE8_SEEDS]
    return Measured(1 - np.array(ratios), 1)
