"""Parses the command line and runs the command."""

import argparse
import contextlib
import errno
import importlib
import io
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, get_type_hints

import tyro

from experiments import arguments as command_line
from experiments import composed
from experiments.jobs import files, processes
from experiments.jobs.errors import UsageError, report
from experiments.names import suggestion

_PROGRAM = "python -m experiments"
# The module of each command and its help. The argument of the module's `run` has the
# options as its type. Only this module is imported: importing all takes seconds.
_COMMANDS = {
    "demo": (
        "demo",
        "train five CNNs on 4,000 digits and attack each with all frequencies",
    ),
    "reproduce": ("reproduce.command", "make all tables and figures of the paper"),
    "train": ("train", "train one model, or a sweep"),
    "evaluate": (
        "evaluate",
        "train models and run all evaluations of the paper on each",
    ),
    "table1": (
        "tables.table1",
        "accuracy under the Single Fourier Attack; Figures 2, 4 and 5",
    ),
    "table2": ("tables.table2", "accuracy under transferred PGD"),
    "table3": ("tables.table3", "accuracy on low- and high-pass filtered images"),
    "table4": (
        "tables.table4",
        "accuracy under PGD, with and without adversarial training",
    ),
    "frequencies": (
        "tables.frequencies",
        "accuracy under band filters, corruptions and Fourier noise (beyond the paper)",
    ),
    "figure1": ("figures.figure1", "images perturbed by the Single Fourier Attack"),
    "figure3": ("figures.figure3", "the search spaces of Absum and L1"),
    "figure6a": ("figures.figure6a", "runtime of an epoch of each method"),
    "figure6b": ("figures.figure6b", "runtime of ResNet-18 against the input size"),
    "figure7": ("figures.figure7", "power spectra of PGD's perturbations"),
    "figure8": (
        "figures.figure8",
        "Absum by its proximal step and by automatic differentiation",
    ),
    "fourier-heatmaps": (
        "figures.fourier_heatmaps",
        "accuracy under Fourier basis noise (beyond the paper)",
    ),
    "snc-readings": (
        "studies.snc_readings",
        "compare readings of SNC (beyond the paper)",
    ),
    "diagnostics": (
        "figures.diagnostics",
        "draw how convolutions change during training",
    ),
    "spectra": ("figures.spectra", "draw the singular values of trained convolutions"),
    "record": ("record", "copy the records of finished models, without weights"),
    "restore": ("restore", "make runs from records and weights, to evaluate them anew"),
    "claims": ("claims.report", "judge the paper's claims from records"),
    "report": ("report", "write the report on the paper's claims from their results"),
    "models": ("studies.models", "list the networks and their sizes"),
}
_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _path(
    type_info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Parses options that are paths."""
    if type_info.type is not pathlib.Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda arguments: files.expanded(*arguments),
        is_instance=lambda value: isinstance(value, pathlib.Path),
        str_from_instance=lambda path: [str(path)],
    )


def _version() -> str:
    """Returns the versions that results depend on most."""
    packages = ("absum_jax", "jax")  # imported late, because they take a second
    return ", ".join(
        f"{name} {importlib.import_module(name).__version__}" for name in packages
    )


def _command(arguments: Sequence[str]) -> str:
    """Returns the command that the first argument names.

    Raises:
      UsageError: if there is none.
      SystemExit: after help or the version is printed.
    """
    first = arguments[0] if arguments else ""
    if first in _COMMANDS:
        return first
    if first == "--version":
        print(_version())
        raise SystemExit(0)
    if first not in ("-h", "--help"):
        known = f"{_PROGRAM} --help lists them"
        if not first:
            raise UsageError(f"a command is missing; {known}.")
        close = suggestion(first, _COMMANDS)
        end = f"; {known}." if close == "." else close
        raise UsageError(f"there is no command {first}{end}")
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Makes the tables and figures of Absum (Kanai et al., 2020).",
        epilog=f"The options of a command: {_PROGRAM} COMMAND --help",
    )
    parser.add_argument(
        "--version", action="store_true", help="show the versions and exit"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, text) in _COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    parser.print_help()
    raise SystemExit(0)


def _module(name: str) -> Any:
    return importlib.import_module(f"experiments.{_COMMANDS[name][0]}")


def options_type(name: str) -> Any:
    """Returns the class of a command's options."""
    return get_type_hints(_module(name).run)["options"]


def parse(name: str, arguments: Sequence[str]) -> Any:
    """Parses the options of a command.

    Raises:
      UsageError: if they cannot be parsed, or do not fit together.
      SystemExit: after help is printed.
    """
    options = options_type(name)
    if not {"-h", "--help"} & set(arguments):
        command_line.check(options, arguments)
    parsed = stopped = None
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        try:
            parsed = tyro.cli(
                options,
                prog=f"{_PROGRAM} {name}",
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes,),
                registry=_REGISTRY,
            )
        except SystemExit as error:
            # What an option's class raises, tyro shows with the names of classes.
            if (cause := _usage_error(error)) is not None:
                raise UsageError(str(cause)) from None
            stopped = error
    sys.stderr.write(shown.getvalue())
    if stopped is not None:
        raise stopped
    return parsed


def _usage_error(error: BaseException | None) -> UsageError | None:
    """Returns the error that led to another one, which was raised while handling it."""
    while error is not None and not isinstance(error, UsageError):
        error = error.__context__
    return error


def _check_folders(options: Any) -> None:
    # The folder of runs is first: whether it has records is a collective, which every
    # process must call before a folder is refused on one of them.
    for name in ("runs_dir", "results_dir"):
        for part in composed.parts(options):
            has_records = name == "runs_dir" and getattr(part, "has_records", False)
            if hasattr(part, name) and not has_records:
                files.writable_folder(getattr(part, name), composed.flag(name))


def _run(name: str, arguments: Sequence[str]) -> list[pathlib.Path]:
    """Runs a command, and returns the files that it has written."""
    options = parse(name, arguments)
    # Imported late, because `--help` works without jax.
    if importlib.import_module("jax").config.jax_enable_x64:
        raise UsageError("commands compute in float32: unset JAX_ENABLE_X64.")
    for models in composed.parts(options):
        if not hasattr(models, "hosts"):
            continue
        models.hosts.join()
        if models.has_device_for_each_core:
            devices = importlib.import_module("experiments.training.devices")
            devices.one_for_each_core()
        values = composed.flat(options, composed.OF_A_PROCESS)
        processes.check_equal({"command": name, **values})
    # Figure 6(b) measures compilation, and the processes that `reproduce` starts need
    # the accelerator.
    if name not in ("figure6b", "reproduce"):
        importlib.import_module("experiments.compiled").keep_compiled()
    processes.on_all_processes(lambda: _check_folders(options))
    written: list[pathlib.Path] = _module(name).run(options)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, by default that of the process, and returns its exit code.

    It is 1 for an error of the system, such as a full disk; 2 for a mistake in the
    command or missing data; 130 if interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = ""
    try:
        name = _command(arguments)
        for path in _run(name, arguments[1:]):
            print(f"wrote {path}")
    except UsageError as error:
        report(error, name)
        return 2
    except OSError as error:
        report(error, name)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(
                "Finished work is on disk: free some space, then rerun the same "
                "command to resume.",
                file=sys.stderr,
            )
        return 1
    except RuntimeError as error:
        # jax's, for what JAX_PLATFORMS names and is not there, from any first use.
        if not str(error).startswith("Unable to initialize backend"):
            raise
        report(error, name)
        return 2
    except KeyboardInterrupt:
        report("stopped; rerun the same command to resume.", name)
        return 130
    return 0
