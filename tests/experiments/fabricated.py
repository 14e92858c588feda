"""Records of models that were never trained, with numbers as one wants them."""

import hashlib
import itertools
from typing import NamedTuple

import numpy as np

from experiments.claims.statements import SAMPLES
from experiments.data import recorded
from experiments.evaluation.points import Points
from experiments.jobs import digests, files
from experiments.options import SweepOptions, pairs
from experiments.reporting.evaluated import sweep_workspace

IMAGES = 10_000
# Of ten seeds in order, without a mean, so that differences keep the means they have.
NOISE = (3, -7, 12, -1, 8, -14, 5, -9, 2, 1)
_PGD = {"seed": 0, "step_size": 0.01, "steps": 40, "init_radius": 2 / 255}
_EPS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


class Numbers(NamedTuple):
    """Numbers of correctly classified images of 10,000, and what else is recorded."""

    minimum: int = 8000  # at one frequency
    others: int = 9500  # at each of the 783 others
    more: int = 0  # at one of the others
    clean: int = 9900
    low: int = 9000
    high: int = 5000  # at each radius
    pgd: int = 3000  # at each eps
    transferred: int = 6000
    share: float = 0.5
    classes: int = 10
    has_diverged: bool = False


def _share(number: int) -> float:
    """As evaluations have it: rounded to float32."""
    return float(np.float32(number / IMAGES))


def _digest(run):
    return hashlib.sha256(str(run.config.path).encode()).hexdigest()


def _write_run(run, own, device):
    run.begin(0)
    run.log(100, 0.1, 0.99, diverged_at=7 if own.has_diverged else 0)
    names = ("config.json", "metrics.jsonl", "diagnostics.jsonl")
    found = digests.of_files([run.folder / name for name in names]) | {
        "parameters": _digest(run)
    }
    provenance = {"backend": "cpu", "device": device, "digests": found}
    files.write_json(run.folder / "provenance.json", provenance)


def _evaluate(run, images, own, substitute):
    grid = np.full((28, 28), own.others)
    grid[3, 4], grid[5, 6] = own.minimum, own.others + own.more
    spectrum = np.zeros((28, 28))
    spectrum[14, 14], spectrum[0, 0] = 1 - own.share, own.share
    clean = {
        "accuracy": _share(own.clean), "classes_predicted": own.classes,
        "nan_logits": 0.0,
    }  # fmt: skip
    rows = {l: [_share(number) for number in row] for l, row in enumerate(grid)}
    evaluations = [
        ("clean", {}, {"clean": clean}),
        ("single-fourier", {"eps": 80 / 255, "scale": "linf", "stride": 1}, rows),
        ("low-pass", {}, {7.0: _share(own.low), 8.0: 0.0}),
        ("high-pass", {}, {float(r): _share(own.high) for r in range(8)}),
        ("pgd", _PGD, {eps: [_share(own.pgd), 0.0] for eps in _EPS}),
        ("power-spectrum", _PGD, {8 / 255: spectrum.tolist()}),
    ]
    if substitute is not None:
        name = f"{substitute.config.path}@{_digest(substitute)[:12]}"
        values = {name: _share(own.transferred)}
        evaluations.append(("transfer", {"eps": 0.2, **_PGD}, values))
    for attack, conditions, values in evaluations:
        points = Points(run, images.evaluation(attack, **conditions))
        points.begin()
        for point, value in values.items():
            points.append({"point": point, "value": value})


def write(runs_dir, name, numbers, device="cpu", **changes):
    """Writes the records of a sample.

    Args:
      runs_dir: their folder.
      name: one of `SAMPLES`.
      numbers: from a method and a seed to its `Numbers`; None leaves the model out.
      device: the kind that it says it was trained on.
      **changes: of the sample's options.
    """
    options = SweepOptions(runs_dir=runs_dir, **SAMPLES[name] | changes)
    sizes = {"train": 60_000, "test": IMAGES, "held_in": 54_000, "held_out": 6_000}
    description = {
        "classes": 10, "image_shape": [28, 28, 1], "mean": [0.1], "std": [0.3],
        "splits": {
            kind: {"total": size, "fingerprints": {str(size): f"{name} {kind}"}}
            for kind, size in sizes.items()
        },
    }  # fmt: skip
    path = files.write_json(recorded.file_of(runs_dir, name), description)
    with sweep_workspace(options) as workspace:
        runs, images = workspace.runs(options.settings, options.seeds), workspace.test
    path.unlink()  # nothing is added to records
    own = {run: numbers(run.config.method, run.config.seed) for run in runs}
    known = {run: of_run for run, of_run in own.items() if of_run is not None}
    for run, of_run in known.items():
        _write_run(run, of_run, device)
    of_pairs = pairs(options.seeds)
    others = dict(of_pairs) | {second: first for first, second in of_pairs}
    by_name = {(run.config.method, run.config.seed): run for run in known}
    for run, of_run in known.items():
        other = by_name.get((run.config.method, others.get(run.config.seed)))
        _evaluate(run, images, of_run, other)
    files.write_json(path, description)


def exact_p(differences):
    """Computes the sign-flip test by all sign patterns, half of the units at a time."""

    def sums(part):
        signs = np.array(list(itertools.product((1, -1), repeat=len(part))))
        return signs @ part

    half = len(differences) // 2
    every = np.add.outer(sums(differences[:half]), sums(differences[half:]))
    return np.mean(abs(every) >= abs(sum(differences)))
