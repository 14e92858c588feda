"""A process, and one that watches over it where it is one of several.

jax aborts a process that has lost another one. What is then to be said and done is for
one that is still there.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence

from experiments import xla_flags

_WATCHED = "ABSUM_JAX_WATCHED"
_OWN = ("absum_jax", "experiments")
# Exit code of a process that noticed itself.
_LOST = 75
_SECONDS_TO_SAY_GOODBYE = 1.0
# What is in errors of transfers, and of the service through which processes meet.
_OF_ANOTHER = (
    "Gloo",
    "gloo",
    "NCCL",
    "coordination",
    "DEADLINE_EXCEEDED:",
    "UNAVAILABLE:",
)

MESSAGE = (
    "error: another process ended, could not be reached or never came; its own output "
    "tells why. What was computed is kept: started again, on any number of hosts, the "
    "same command goes on from there."
)


def main() -> int:
    """Runs the command of this process's arguments.

    As one of several processes, under the eyes of another one.

    Returns:
      The exit code; 1 if another process was lost.
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
    # Not before the command has set XLA's flags.
    import jax

    has_joined = jax.distributed.is_initialized()
    if failure is not None:
        if has_joined and _is_of_another(failure):
            code = _LOST
        else:
            traceback.print_exception(failure)
    if code != 0 and has_joined:
        # Without waiting for the others, which wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        if jax.process_index() == 0:
            # With the first one jax ends them, who may have something to say.
            time.sleep(_SECONDS_TO_SAY_GOODBYE)
        os._exit(code)
    return code


def _command() -> int:
    if sys.stdout is None:  # closed by who started this
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    # As on stderr: what it has no code for, such as in a path, is escaped.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        xla_flags.turn_off_ynnpack_fusions()
        # Late, as one that only watches needs none of it.
        from experiments import cli
        from experiments.jobs.quiet import quiet_threads

        quiet_threads()
        return cli.main()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OWN:
            raise
        print(
            f"error: {sys.executable} has no {error.name}, which comes with "
            "absum-jax[experiments]: pip install -e '.[experiments]'",
            file=sys.stderr,
        )
        return 2


def _is_of_another(error: Exception) -> bool:
    """Whether an error is that of a transfer between processes."""
    text = str(error)
    return any(name in text for name in _OF_ANOTHER)


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
    # Not that signal itself, which jax catches and makes nothing of.
    signal.signal(signal.SIGTERM, lambda *_: child.kill())
    # A terminal interrupts both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = child.wait()
    if code in (_LOST, -signal.SIGABRT):
        print(MESSAGE, file=sys.stderr)
        return 1
    return code if code >= 0 else 128 - code
