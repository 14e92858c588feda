"""Commands and their options."""

import argparse
import errno
import importlib
import pathlib
import sys
import typing
from collections.abc import Sequence

import tyro

from experiments.jobs import agreement, files, paths
from experiments.jobs.errors import UsageError

_PROGRAM = "python -m experiments"
# The module of each command, whose `run` has its options for its argument, and what it
# makes. Only the one that is asked for is imported, as all of them take seconds.
_COMMANDS = {
    "demo": ("demo", "five CNNs on 4,000 digits, each attacked with all frequencies"),
    "reproduce": ("reproduce.command", "all tables and figures of the paper"),
    "train": ("train", "one model or a sweep, to keep"),
    "evaluate": ("evaluate", "models with all evaluations of the paper, to keep"),
    "table1": ("tables.table1", "the Single Fourier Attack, with Figures 2, 4 and 5"),
    "table2": ("tables.table2", "transferred PGD"),
    "table3": ("tables.table3", "low- and high-pass filters"),
    "table4": ("tables.table4", "PGD, with and without adversarial training"),
    "figure1": ("figures.figure1", "images perturbed by the Single Fourier Attack"),
    "figure3": ("figures.figure3", "the search spaces of Absum and L1"),
    "figure6a": ("figures.figure6a", "runtime of an epoch of each method"),
    "figure6b": ("figures.figure6b", "runtime of ResNet-18 against the input size"),
    "figure7": ("figures.figure7", "power spectra of PGD's perturbations"),
    "figure8": ("figures.figure8", "the proximal step against autodiff"),
    "fourier-heatmaps": (
        "figures.fourier_heatmaps",
        "accuracy under Fourier basis noise, beyond the paper",
    ),
    "snc-readings": ("studies.snc_readings", "readings of SNC, beyond the paper"),
    "diagnostics": ("figures.diagnostics", "convolutions over training"),
    "spectra": ("figures.spectra", "singular values of trained convolutions"),
    "record": ("record", "copies what finished models leave, but for weights"),
    "claims": ("claims.report", "verdicts on the paper's claims, from records"),
    "models": ("studies.models", "the networks and their sizes"),
}


# The system's errors where there is no room to write.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _path(
    type_info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Reads all options that are paths."""
    if type_info.type is not pathlib.Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda arguments: paths.expanded(*arguments),
        is_instance=lambda value: isinstance(value, pathlib.Path),
        str_from_instance=lambda path: [str(path)],
    )


def _command(arguments: Sequence[str]) -> str:
    """The command that the first argument names; leaves the process for none."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Tables and figures of Absum (Kanai et al., 2020).",
        epilog=f"The options of a command: {_PROGRAM} COMMAND --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, makes) in _COMMANDS.items():
        commands.add_parser(name, help=makes, add_help=False)
    return parser.parse_args(arguments[:1]).command


def _module(name: str) -> typing.Any:
    return importlib.import_module(f"experiments.{_COMMANDS[name][0]}")


def options_type(name: str) -> typing.Any:
    """Returns the class of a command's options."""
    return typing.get_type_hints(_module(name).run)["options"]


def parse(name: str, arguments: Sequence[str]) -> typing.Any:
    """Parses the options of a command; leaves the process for a mistake in them.

    Raises:
      UsageError: if an option is out of range.
    """
    return tyro.cli(
        options_type(name),
        prog=f"{_PROGRAM} {name}",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
        registry=_REGISTRY,
    )


def _check_folders(options: object) -> None:
    for name in ("runs_dir", "results_dir"):
        has_records = name == "runs_dir" and getattr(options, "has_records", False)
        if hasattr(options, name) and not has_records:
            option = "--" + name.replace("_", "-")
            files.writable_folder(getattr(options, name), option)


def _check_precision() -> None:
    # Late, as `--help` does without jax.
    if importlib.import_module("jax").config.jax_enable_x64:
        raise UsageError("commands compute in float32: unset JAX_ENABLE_X64.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      arguments: the command line; None is the process's own.

    Returns:
      The exit code: 0; 2 for a mistake in the command or missing data; 1 where the
      system refuses, such as on a full disk.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = _command(arguments)
    try:
        options = parse(name, arguments[1:])
        _check_precision()
        if hasattr(options, "hosts"):
            options.hosts.join()
            if getattr(options, "has_device_for_each_core", False):
                devices = importlib.import_module("experiments.training.devices")
                devices.one_for_each_core()
            agreement.check_alike({"command": name, **options.of_all_processes})
        # Figure 6(b) reports how long its programs take to compile; the other starts
        # processes that need the accelerator.
        if name not in ("figure6b", "reproduce"):
            importlib.import_module("experiments.compiled").keep_compiled()
        agreement.on_all_processes(lambda: _check_folders(options))
        written: list[pathlib.Path] = _module(name).run(options)
        for path in written:
            print(f"wrote {path}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.errno in _FULL:
            print(
                "What was written before is kept: once there is room, the same "
                "command goes on from there.",
                file=sys.stderr,
            )
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
