"""Measures on an accelerator, piece by piece: `python -m benchmarks.accelerator`.

First speed beside PyTorch, where that is installed, then ResNet-18 on CIFAR-10 at the
published schedule: trained, and evaluated as in Tables 1 to 3, method by method. It
needs neither tyro nor TFDS nor grain. What is done is not done again, so a machine may
be lent for ten minutes at a time, and start anew with what the last one left:

    MODULE=benchmarks.accelerator experiments/reproduce/piece.sh 9 STATE OUT \
      --cifar10 FILE.npz

The file has uint8 images `x_train` (50000, 32, 32, 3) and `x_test`, and labels
`y_train` and `y_test`; without one, only speed is measured.
"""

import argparse
import dataclasses
import importlib.metadata
import os
import pathlib
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from experiments import xla_flags

xla_flags.turn_off_ynnpack_fusions()

from benchmarks import (  # noqa: E402
    attack,
    auto_attack,
    resnet,
    spectral,
    torch_peer,
    training,
)
from experiments import evaluate  # noqa: E402
from experiments.data import DATASETS, npz  # noqa: E402
from experiments.data.split import check  # noqa: E402
from experiments.jobs import files  # noqa: E402
from experiments.jobs.errors import UsageError, damage_named, report  # noqa: E402
from experiments.options import ModelOptions, SweepOptions  # noqa: E402
from experiments.reporting import document  # noqa: E402

# The most important first.
SPEEDS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "passes": resnet.passes_speed,
    "training": resnet.training_speed,
    "single_fourier": resnet.attack_speed,
    "apgd": auto_attack.resnet_speed,
    "sweep": training.models_in_one_program,
    "sweep_single_fourier": attack.grid_speed,
    "clip": spectral.clip_speed,
    "norms": spectral.norm_speed,
}
_METHODS = "none", "absum", "weight_decay", "l1", "snc", "snc-numpy-axes"
# Of `sysexits.h`, as `reproduce` exits.
_STOPPED = 75


def measure(folder: pathlib.Path) -> list[str]:
    """Measures what has no file yet, writes a file each, and returns what failed."""
    failed, has_torch = [], torch_peer.is_installed()
    for name, benchmark in SPEEDS.items():
        if files.exists(folder / f"{name}.json"):
            continue
        try:
            rows = benchmark()
        except Exception:  # the others still run
            traceback.print_exc()
            failed.append(name)
        else:
            version = importlib.metadata.version("torch") if has_torch else None
            document.write(folder / name, {"rows": rows, "torch": version})
            for row in rows:
                print(name, row, flush=True)
    return failed


def use_cifar10(path: pathlib.Path) -> None:
    """Reads CIFAR-10 from a file of arrays from now on."""
    known = DATASETS["cifar10"]
    with damage_named(path, "give a file of CIFAR-10"):
        splits = npz.read(path)
        for split, examples in zip(splits, (known.train_examples, 10_000), strict=True):
            check(split, known.image_shape, known.classes, examples)
    DATASETS["cifar10"] = dataclasses.replace(known, source=lambda: splits)


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what is left; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, help="ends after so many, with 75")
    parser.add_argument("--runs-dir", type=pathlib.Path, required=True)
    parser.add_argument("--results-dir", type=pathlib.Path, required=True)
    parser.add_argument("--cifar10", type=pathlib.Path, help="the file of arrays")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args(arguments)
    if options.minutes is not None:
        # From a thread, as a signal waits for the end of a program. Runs resume from
        # their last checkpoints.
        timer = threading.Timer(60 * options.minutes, os._exit, (_STOPPED,))
        timer.daemon = True
        timer.start()
    failed = measure(options.results_dir / "speed")
    if options.cifar10 is not None:
        use_cifar10(options.cifar10)
        models = ModelOptions("cifar10", runs_dir=options.runs_dir)
        for method in _METHODS:
            sweep = SweepOptions(
                models, (method,), seeds=tuple(options.seeds), select_on="paper"
            )
            evaluate.run(evaluate.EvaluateOptions(sweep))
    return int(bool(failed))


if __name__ == "__main__":
    try:
        code = main()
    except UsageError as error:
        report(error)
        code = 2
    raise SystemExit(code)
