"""Reads tables of Markdown."""

from collections.abc import Iterable


def cells(lines: Iterable[str]) -> list[list[str]]:
    """Returns the cells of the lines that are rows: header, alignment and content."""
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]
