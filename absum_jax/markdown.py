"""Markdown tables that read well as plain text."""

from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    r"""Formats a Markdown table whose columns line up as plain text.

    Args:
      header: names of the columns. The first column is aligned to the left, the others
        to the right.
      rows: cells, as many in each row as in the header.

    Returns:
      The lines of the table.

    Example:
      >>> from absum_jax.markdown import aligned
      >>> print("\n".join(aligned(("method", "epochs"), [("Absum", "100")])))
      | method | epochs |
      | ------ | -----: |
      | Absum  |    100 |
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(header), line(rule), *map(line, rows)]
