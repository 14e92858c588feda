"""What the records of finished models hold, as numbers of images."""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.config import RunConfig
from experiments.data import DATASETS, pgd_of
from experiments.data.recorded import RecordedSplit
from experiments.evaluation import clean, frequency, gradient, single_fourier
from experiments.jobs.errors import UsageError
from experiments.options import SweepOptions, pairs
from experiments.published import SPECTRUM_EPS
from experiments.reporting.outcomes import sweep_workspace
from experiments.training.runs import Run
from experiments.workspace import Workspace


class Measured(NamedTuple):
    """A quantity, or differences of it, unit by unit."""

    parts: np.ndarray  # integers, such as numbers of images; floats of shares of power
    whole: int  # how many parts are 100 %

    @property
    def mean(self) -> float | None:
        """The mean over all units as a fraction; None without units."""
        return float(self.parts.mean()) / self.whole if self.parts.size else None


_NOTHING = Measured(np.zeros(0, np.int64), 1)


@dataclasses.dataclass(frozen=True)
class Sample:
    """The models of one data set that are trained alike."""

    options: SweepOptions
    seeds: tuple[int, ...] = ()  # that have all models
    # Methods whose models seeds lack that have others.
    lacking: Mapping[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    # Of each quantity, parts (units, methods).
    measured: Mapping[str, Measured] = dataclasses.field(default_factory=dict)
    broken: tuple[RunConfig, ...] = ()  # models that diverged or predict one class
    devices: frozenset[str] = frozenset()

    @property
    def is_complete(self) -> bool:
        """Whether all seeds that are planned have all models."""
        return self.seeds == tuple(self.options.seeds)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The planned pairs of seeds of which both have all models."""
        return _complete_pairs(self.options, self.seeds)

    def difference(self, quantity: str, larger: str, smaller: str) -> Measured:
        """Subtracts one method from another, unit by unit."""
        if quantity not in self.measured:
            return _NOTHING
        parts, whole = self.measured[quantity]
        columns = [self.options.methods.index(m) for m in (larger, smaller)]
        ours, theirs = parts[:, columns].T
        return Measured(ours - theirs, whole)

    def is_broken(self, *methods: str) -> bool:
        """Whether a model of any of these methods is."""
        return any(config.method in methods for config in self.broken)


def _complete_pairs(
    options: SweepOptions, seeds: Sequence[int]
) -> list[tuple[int, int]]:
    return [pair for pair in pairs(options.seeds) if set(pair) <= set(seeds)]


def numbers_of_images(
    runs: Sequence[Run], shares: Sequence[Any] | np.ndarray, images: int
) -> np.ndarray:
    """Recovers numbers of images from their shares, which are rounded to float32.

    Args:
      runs: whose shares they are.
      shares: (runs, ...), each the float32 number that is nearest to a fraction.
      images: how many there are.

    Returns:
      Integers of the same shape.

    Raises:
      UsageError: if a share is not that of a whole number of these images.
    """
    values = np.asarray(shares, float)
    numbers = np.rint(values * images)
    is_exact = (numbers / images).astype(np.float32) == values
    is_exact &= (numbers >= 0) & (numbers <= images)
    for run, exact, own in zip(runs, is_exact, values, strict=True):
        if not np.all(exact):
            raise UsageError(
                f"{run.folder}: {own[~exact].flat[0]!r} is not the share of a whole "
                f"number of {images:,} images in float32."
            )
    return numbers.astype(np.int64)


def _transferred(
    workspace: Workspace, runs: Mapping[int, list[Run]], of_pairs: list[tuple[int, int]]
) -> np.ndarray:
    """Numbers of images (pairs, methods), summed over both directions."""
    dataset, images = workspace.options.dataset, workspace.test
    eps = pgd_of(dataset).transfer_eps
    steps = gradient.published_steps(dataset)

    def of_targets(seed: int, other: int) -> np.ndarray:
        targets, substitutes = runs[seed], runs[other]
        shares = [
            gradient.transferred(images, [target], [substitute], eps, steps).item()
            for target, substitute in zip(targets, substitutes, strict=True)
        ]
        return numbers_of_images(targets, shares, len(images.split))

    return np.array([of_targets(*pair) + of_targets(*pair[::-1]) for pair in of_pairs])


def _numbers(
    workspace: Workspace, runs: Sequence[Run], wanted: Collection[str]
) -> dict[str, np.ndarray]:
    """Reads numbers of images (runs, cells) of the evaluations that are wanted."""
    dataset, test = workspace.options.dataset, workspace.test
    shape = workspace.dataset.image_shape
    quarter = shape[1] / 4
    radii = [radius for radius in frequency.radii_of(shape) if radius <= quarter]
    eps = pgd_of(dataset).test_eps
    steps = gradient.published_steps(dataset)
    shares: dict[str, Callable[[], Any]] = {
        "clean": lambda: [model.accuracy for model in clean.evaluate(test, runs)],
        "low-pass": lambda: frequency.evaluate(test, runs, "low-pass", [quarter]),
        "high-pass": lambda: frequency.evaluate(test, runs, "high-pass", radii),
        "pgd": lambda: [
            [attack[e].accuracy for e in eps]
            for attack in gradient.white_box(test, runs, eps, steps)
        ],
    }
    images = len(test.split)
    return {
        name: numbers_of_images(runs, of_name(), images).reshape(len(runs), -1)
        for name, of_name in shares.items()
        if name in wanted
    }


def _measured(
    workspace: Workspace,
    of_seed: Mapping[int, list[Run]],
    options: SweepOptions,
    wanted: Collection[str],
) -> dict[str, Measured]:
    """Reads the quantities of complete seeds that are wanted."""
    dataset, test = options.dataset, workspace.test
    runs = list(itertools.chain(*of_seed.values()))
    images = len(test.split)
    parts: dict[str, tuple[np.ndarray, int]] = {
        name: (own.sum(axis=1), images * own.shape[1])
        for name, own in _numbers(workspace, runs, wanted).items()
    }
    if not {"minimum", "mean"}.isdisjoint(wanted):
        attack = DATASETS[dataset].conditions.single_fourier_eps
        attacked = single_fourier.evaluate(
            test, runs, attack, stride=options.frequency_stride
        )
        grids = [robustness.grid for robustness in attacked]
        frequencies = numbers_of_images(runs, grids, images).reshape(len(runs), -1)
        parts["minimum"] = frequencies.min(axis=1), images
        parts["mean"] = frequencies.sum(axis=1), images * frequencies.shape[1]
    if "high share" in wanted:
        steps = gradient.published_steps(dataset)
        spectra = gradient.power_spectra(test, runs, SPECTRUM_EPS, steps)
        parts["high share"] = (
            np.array([gradient.high_share(each) for each in spectra]),
            1,
        )
    measured = {
        name: Measured(own.reshape(len(of_seed), -1), whole)
        for name, (own, whole) in parts.items()
    }
    of_pairs = _complete_pairs(options, list(of_seed))
    if "transferred" in wanted and of_pairs:
        sums = _transferred(workspace, of_seed, of_pairs)
        measured["transferred"] = Measured(sums, 2 * images)
    return measured


def _device(run: Run) -> str:
    """Names the backend and the kind of device that finished training."""
    return f"{run.provenance.get('backend')} ({run.provenance.get('device')})"


def _broken(workspace: Workspace, runs: Sequence[Run]) -> tuple[RunConfig, ...]:
    """Finds the models that diverged or predict one class."""
    answers = clean.evaluate(workspace.test, runs)
    return tuple(
        run.config
        for run, answer in zip(runs, answers, strict=True)
        if clean.is_degenerate(run, answer.classes_predicted)
    )


def read(options: SweepOptions, quantities: Collection[str]) -> Sample:
    """Reads the records of a data set's models; computes nothing.

    Args:
      options: which models, and the folder of records.
      quantities: what is read of them; other evaluations need not be there.

    Returns:
      What the seeds hold that have all models.

    Raises:
      UsageError: if the folder has runs, not records, or if a record is damaged or
        lacks evaluations.
    """
    if not options.has_records:
        folder = options.runs_dir / options.dataset
        if folder.exists():
            raise UsageError(
                f"{folder} has no records: copy its models with the command record."
            )
        return Sample(options)
    with sweep_workspace(options) as workspace:
        split = workspace.training
        if isinstance(split, RecordedSplit) and not split.is_known:
            return Sample(options)  # all models are of other images
        complete, lacking = {}, {}
        for seed in options.seeds:
            runs = workspace.runs(options.settings, [seed])
            missing = [run.config.method for run in runs if not run.is_complete]
            if 0 < len(missing) < len(runs):
                lacking[seed] = tuple(missing)
            if not missing:
                complete[seed] = runs
        if not complete:
            return Sample(options, lacking=lacking)
        measured = _measured(workspace, complete, options, quantities)
        every = list(itertools.chain(*complete.values()))
        broken = _broken(workspace, every)
    devices = frozenset(map(_device, every))
    return Sample(options, tuple(complete), lacking, measured, broken, devices)
