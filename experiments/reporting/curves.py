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


def _is_logged(run: Run, kind: str, epochs: int) -> bool:
    """Checks whether the first epochs of a model have a kind of diagnostics."""
    found = [line["epoch"] for line in run.diagnostics() if kind in line]
    wanted = list(range(1, epochs + 1))
    if kind == "spectral_norm":
        at = epochs_with_spectral_norms(run.config.recipe.epochs)
        wanted = [epoch for epoch in wanted if epoch in at]
    return [epoch for epoch in found if epoch <= epochs] == wanted


def lacking(runs_dir: pathlib.Path, runs: Sequence[Run], kind: str) -> list[Run]:
    """Finds models that are or will be trained with epochs without diagnostics.

    Models that are not complete resume after the epochs that they have done.
    """
    complete = [run for run in runs if run.is_complete]
    epochs = [len(run.metrics()) for run in complete]
    if incomplete := [run for run in runs if not run.is_complete]:
        epochs += epochs_begun(runs_dir, [run.config for run in incomplete])
    return [
        run
        for run, done in zip(complete + incomplete, epochs, strict=True)
        if not _is_logged(run, kind, done)
    ]


def check_logged(
    runs_dir: pathlib.Path, runs: Sequence[Run], kinds: Iterable[str]
) -> None:
    """Refuses models whose curves would lack epochs, before any is trained."""
    for kind in kinds:
        for run in lacking(runs_dir, runs, kind):
            raise UsageError(
                f"{run.folder} was trained, at least in part, without logging its "
                f"{kind.replace('_', ' ')}; give another --runs-dir to train it anew."
            )


def curves(run: Run, kind: str, layers: Sequence[str]) -> Curves:
    """Reads a kind of diagnostics of a trained model, which must be complete."""
    check_logged(run.runs_dir, [run], [kind])
    lines = [line for line in run.diagnostics() if kind in line]
    return Curves(
        [line["epoch"] for line in lines],
        {name: [line[kind][name] for line in lines] for name in layers},
    )
