"""Commands and their options."""

import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from experiments import demo, files
from experiments.errors import UsageError
from experiments.figures import figure1, figure3, figure6b, spectra
from experiments.studies import snc_readings
from experiments.tables import table1

_COMMANDS: dict[type, Callable[[Any], list[pathlib.Path]]] = {
    demo.DemoOptions: demo.run,
    table1.Table1Options: table1.run,
    figure1.Figure1Options: figure1.run,
    figure3.Figure3Options: figure3.run,
    figure6b.Figure6bOptions: figure6b.run,
    snc_readings.SncReadingsOptions: snc_readings.run,
    spectra.SpectraOptions: spectra.run,
}

Options = (
    Annotated[demo.DemoOptions, tyro.conf.subcommand("demo")]
    | Annotated[table1.Table1Options, tyro.conf.subcommand("table1")]
    | Annotated[figure1.Figure1Options, tyro.conf.subcommand("figure1")]
    | Annotated[figure3.Figure3Options, tyro.conf.subcommand("figure3")]
    | Annotated[figure6b.Figure6bOptions, tyro.conf.subcommand("figure6b")]
    | Annotated[snc_readings.SncReadingsOptions, tyro.conf.subcommand("snc-readings")]
    | Annotated[spectra.SpectraOptions, tyro.conf.subcommand("spectra")]
)


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
            Options,
            prog="python -m experiments",
            description="Tables and figures of Absum (Kanai et al., 2020).",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )
        for name in ("runs_dir", "results_dir"):
            if hasattr(options, name):
                option = "--" + name.replace("_", "-")
                files.writable_folder(getattr(options, name), option)
        written = _COMMANDS[type(options)](options)
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
