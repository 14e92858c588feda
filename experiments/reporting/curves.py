"""Diagnostics of each convolution over the epochs of training."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.jobs.errors import UsageError
from experiments.training.diagnostics import epochs_with_spectral_norms
from experiments.training.runs import Run
from experiments.training.sweep import epochs_begun


class Curves(NamedTuple):
    """One kind of diagnostics of one model over training."""

    epochs: list[int]
    layers: dict[str, list[float | None]]  # values at those epochs


def _check_logged(run: Run, kind: str, epochs: int) -> None:
    """Refuses a model whose first `epochs` epochs lack a kind of diagnostics."""
    found = [line["epoch"] for line in run.diagnostics() if kind in line]
    wanted = list(range(1, epochs + 1))
    if kind == "spectral_norm":
        at = epochs_with_spectral_norms(run.config.recipe.epochs)
        wanted = [epoch for epoch in wanted if epoch in at]
    if [epoch for epoch in found if epoch <= epochs] != wanted:
        option = " (--diagnostics)" if kind == "spectral_norm" else ""
        raise UsageError(
            f"{run.folder} was trained, at least in part, without logging its "
            f"{kind.replace('_', ' ')}{option}; give another --runs-dir to train it "
            "anew."
        )


def check_logged(
    runs_dir: pathlib.Path, runs: Sequence[Run], kinds: Iterable[str]
) -> None:
    """Refuses models whose curves would lack epochs, before any is trained."""
    complete = [run for run in runs if run.is_complete]
    epochs = [len(run.metrics()) for run in complete]
    if incomplete := [run for run in runs if not run.is_complete]:
        epochs += epochs_begun(runs_dir, [run.config for run in incomplete])
    for run, done in zip(complete + incomplete, epochs, strict=True):
        for kind in kinds:
            _check_logged(run, kind, done)


def curves(run: Run, kind: str, layers: Sequence[str]) -> Curves:
    """Reads a kind of diagnostics of a trained model, which must be complete."""
    _check_logged(run, kind, len(run.metrics()))
    lines = [line for line in run.diagnostics() if kind in line]
    return Curves(
        [line["epoch"] for line in lines],
        {name: [line[kind][name] for line in lines] for name in layers},
    )
