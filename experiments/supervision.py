"""Runs a command, and in a multi-process run watches over it.

When a process dies, jax aborts the others. Each process of several therefore runs as
the child of a small watchdog, which prints what happened.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence

from experiments import xla_flags
from experiments.jobs.errors import report

_WATCHED = "ABSUM_JAX_WATCHED"
_PROJECT = ("absum_jax", "experiments")
# Exit code of a process that noticed by itself that another one is lost.
_LOST = 75
_SECONDS_TO_SAY_GOODBYE = 1.0
# In errors of transfers, and of the service through which processes meet.
_OF_ANOTHER = re.compile("[Gg]loo|NCCL|coordination|DEADLINE_EXCEEDED:|UNAVAILABLE:")

MESSAGE = (
    "another process ended, could not be reached or never started; see its "
    "output for the reason. To resume from the last checkpoint, run the same command "
    "again, on any number of hosts."
)


def main() -> int:
    """Runs the command of this process's arguments, and returns its exit code.

    With --distributed, it runs in a child process under a watchdog.
    """
    if "--distributed" not in sys.argv:
        return _command()
    if _WATCHED not in os.environ:
        return _watch(sys.argv[1:])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    failure = None
    try:
        code = _command()
    except Exception as error:
        code, failure = 1, error
    # Imported here, after the command has set XLA's flags.
    import jax

    has_joined = jax.distributed.is_initialized()
    if failure is not None:
        if has_joined and _OF_ANOTHER.search(str(failure)):
            code = _LOST
        else:
            traceback.print_exception(failure)
    if code != 0 and has_joined:
        # Exits without waiting for the other processes, which wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        if jax.process_index() == 0:
            # jax ends the others with process 0; they may have messages to print.
            time.sleep(_SECONDS_TO_SAY_GOODBYE)
        os._exit(code)
    return code


def _command() -> int:
    if sys.stdout is None:  # closed by the parent
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    # As on stderr: characters that cannot be encoded, as in a path, are escaped.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        xla_flags.turn_off_ynnpack_fusions()
        # Imported here, as a watchdog needs none of it.
        from experiments import cli

        _silence_duplicates()
        return cli.main()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _PROJECT:
            raise
        report(
            f"{sys.executable} has no {error.name}, which comes with "
            "absum-jax[experiments]: pip install -e '.[experiments]'",
            *sys.argv[1:2],
        )
        return 2


def _silence_duplicates() -> None:
    """Silences log output of orbax that duplicates raised errors."""
    # absl must make its logger: otherwise absl would be reported as the caller.
    from absl import logging as absl_logging

    absl_logging.get_absl_logger().addFilter(
        lambda record: record.levelno < logging.ERROR or "orbax" not in record.pathname
    )
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        # TensorStore replies to an event loop that ended at the first error.
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _end_with_parent() -> None:
    """Ends this process when the pipe from its parent closes."""
    os.read(0, 1)
    os._exit(1)


def _watch(arguments: Sequence[str]) -> int:
    child = subprocess.Popen(
        [sys.executable, "-m", "experiments", *arguments],
        env=os.environ | {_WATCHED: "1"},
        stdin=subprocess.PIPE,
    )
    # Not forwarded: jax catches the signal and ignores it.
    signal.signal(signal.SIGTERM, lambda *_: child.kill())
    # A terminal interrupts both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = child.wait()
    if code in (_LOST, -signal.SIGABRT):
        report(MESSAGE, *arguments[:1])
        return 1
    return code if code >= 0 else 128 - code
