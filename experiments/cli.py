"""Commands and their options."""

import functools
import operator
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from experiments import demo, files, hosts, train
from experiments.errors import UsageError
from experiments.figures import (
    diagnostics,
    figure1,
    figure3,
    figure6a,
    figure6b,
    figure7,
    figure8,
    fourier_heatmaps,
    spectra,
)
from experiments.studies import models, snc_readings
from experiments.tables import table1, table2, table3, table4

_Run = Callable[[Any], list[pathlib.Path]]
_COMMANDS: dict[str, tuple[type, _Run]] = {
    "demo": (demo.DemoOptions, demo.run),
    "train": (train.TrainOptions, train.run),
    "table1": (table1.Table1Options, table1.run),
    "table2": (table2.Table2Options, table2.run),
    "table3": (table3.Table3Options, table3.run),
    "table4": (table4.Table4Options, table4.run),
    "figure1": (figure1.Figure1Options, figure1.run),
    "figure3": (figure3.Figure3Options, figure3.run),
    "figure6a": (figure6a.Figure6aOptions, figure6a.run),
    "figure6b": (figure6b.Figure6bOptions, figure6b.run),
    "figure7": (figure7.Figure7Options, figure7.run),
    "figure8": (figure8.Figure8Options, figure8.run),
    "fourier-heatmaps": (
        fourier_heatmaps.FourierHeatmapsOptions,
        fourier_heatmaps.run,
    ),
    "snc-readings": (snc_readings.SncReadingsOptions, snc_readings.run),
    "diagnostics": (diagnostics.DiagnosticsOptions, diagnostics.run),
    "spectra": (spectra.SpectraOptions, spectra.run),
    "models": (models.ModelsOptions, models.run),
}
_RUN = dict(_COMMANDS.values())
_Options: Any = functools.reduce(
    operator.or_,
    (
        Annotated[options, tyro.conf.subcommand(name)]
        for name, (options, _) in _COMMANDS.items()
    ),
)


def _check_folders(options: Any) -> None:
    for name in ("runs_dir", "results_dir"):
        if hasattr(options, name):
            option = "--" + name.replace("_", "-")
            files.writable_folder(getattr(options, name), option)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      arguments: the command line; None is the process's own.

    Returns:
      The exit code: 0; 2 for a mistake in the command or missing data; 1 where the
      system refuses, such as on a full disk.
    """
    try:
        options = tyro.cli(
            _Options,
            prog="python -m experiments",
            description="Tables and figures of Absum (Kanai et al., 2020).",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )
        if hasattr(options, "hosts"):
            options.hosts.join()
        hosts.everywhere(functools.partial(_check_folders, options))
        written = _RUN[type(options)](options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for path in written:
        print(f"wrote {path}")
    return 0
