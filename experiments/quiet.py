"""What libraries say beside what is raised."""

import logging
import sys
from typing import Any


def quiet_threads() -> None:
    """Lets threads of orbax say nothing of what is raised here too.

    For a program, not a library: changes how the process logs and what it ignores.
    """
    logging.getLogger("absl").addFilter(
        lambda record: record.levelno < logging.ERROR or "orbax" not in record.pathname
    )
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # TensorStore answers to a loop that ended at the first of several errors.
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
