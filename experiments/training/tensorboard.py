"""Writes curves of training for TensorBoard, through tensorboardX, an option."""

import math
import pathlib
from typing import Any

from experiments.jobs.errors import UsageError


def _summary_writer() -> Any:
    try:
        import tensorboardX
    except ImportError:
        raise UsageError(
            "--tensorboard needs tensorboardX: `pip install tensorboardX`."
        ) from None
    return tensorboardX.SummaryWriter


def check_installed() -> None:
    """Checks that tensorboardX is installed."""
    _summary_writer()


class Curves:
    """The event files of one run; points of epochs that are not done are hidden."""

    def __init__(self, folder: pathlib.Path, epochs: int):
        self._writer = _summary_writer()(str(folder), purge_step=epochs + 1)

    def add(self, epoch: int, **values: float) -> None:
        """Adds a point to each curve, on disk at once, if it is finite."""
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Closes the files."""
        self._writer.close()
