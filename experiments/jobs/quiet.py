"""What libraries say beside what is raised."""

import logging
import sys
import warnings
from typing import Any

# Before its logger is asked for: one that absl did not make names absl as the caller.
from absl import logging as absl_logging


def quiet_threads() -> None:
    """Lets threads of orbax say nothing of what is raised here too.

    For a program, not a library: changes how the process logs and what it ignores.
    """
    absl_logging.get_absl_logger().addFilter(
        lambda record: record.levelno < logging.ERROR or "orbax" not in record.pathname
    )
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # TensorStore answers to a loop that ended at the first of several errors.
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
