"""What is logged of each convolution while models train, over the epochs."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.jobs.errors import UsageError
from experiments.training.diagnostics import epochs_with_spectral_norms
from experiments.training.runs import Run
from experiments.training.sweep import epochs_begun


class Curves(NamedTuple):
    """What one kind of diagnostics of one model has been over training."""

    epochs: list[int]
    layers: dict[str, list[float | None]]  # values at those epochs


def _check_logged(run: Run, kind: str, epochs: int) -> None:
    """Refuses a model whose first so many epochs lack a kind of diagnostics."""
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
    """Refuses models before any is trained whose curves would lack epochs.

    Args:
      runs_dir: the folder of all runs.
      runs: the models, of which some are trained, and some begun and interrupted.
      kinds: of diagnostics.

    Raises:
      UsageError: if one was trained without them, be it in part.
    """
    complete = [run for run in runs if run.is_complete]
    epochs = [len(run.metrics()) for run in complete]
    if incomplete := [run for run in runs if not run.is_complete]:
        epochs += epochs_begun(runs_dir, [run.config for run in incomplete])
    for run, done in zip(complete + incomplete, epochs, strict=True):
        for kind in kinds:
            _check_logged(run, kind, done)


def curves(run: Run, kind: str, layers: Sequence[str]) -> Curves:
    """The diagnostics of a trained model.

    Args:
      run: the model.
      kind: `"zero_share"`, `"penalty"` or `"spectral_norm"`.
      layers: which, in order.

    Raises:
      UsageError: if it was trained without them, be it in part.
    """
    _check_logged(run, kind, len(run.metrics()))
    lines = [line for line in run.diagnostics() if kind in line]
    return Curves(
        [line["epoch"] for line in lines],
        {name: [line[kind][name] for line in lines] for name in layers},
    )
