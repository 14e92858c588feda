"""Rows of results in a file of JSON lines, each written as soon as it is computed."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from experiments.jobs import files


def stored(
    path: pathlib.Path, key: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the last row of a file that has all items of a key, or computes it.

    Args:
      path: the file, which a computed row is appended to.
      key: the columns by which a row is found.
      compute: returns the other columns.
    """
    known = [row for row in files.read_json_lines(path) if row.items() >= key.items()]
    if known:
        return known[-1]
    row = {**key, **compute()}
    files.append_json_line(path, row)
    return row
