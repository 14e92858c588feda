"""Paths as users write them, in options and in the environment."""

import pathlib

from experiments.jobs.errors import UsageError


def expanded(text: str) -> pathlib.Path:
    """Returns a path with `~` replaced by the home folder.

    Shells leave the `~` of `--option=~/folder` and of most variables as it is.

    Raises:
      UsageError: if the path is empty, or no home folder is known.
    """
    if not text:
        raise UsageError("a path must not be empty; the current folder is `.`")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"the home folder of {text} is unknown: set HOME, or give the whole path "
            "by its option"
        ) from error
