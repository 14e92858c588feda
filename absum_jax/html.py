"""HTML tables, as notebooks show them."""

import html
from collections.abc import Sequence


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    """Formats an HTML table; all text is escaped.

    Args:
      header: names of the columns. The first column is aligned to the left, the others
        to the right.
      rows: cells, as many in each row as in the header.
      notes: paragraphs below the table.

    Returns:
      The HTML.

    Example:
      >>> from absum_jax import html
      >>> print(html.table(("method", "epochs"), [("A & B", "100")]))
      <table>
      <tr><th style="text-align:left">method</th><th style="text-align:right">epochs</th></tr>
      <tr><td style="text-align:left">A &amp; B</td><td style="text-align:right">100</td></tr>
      </table>
    """  # noqa: E501

    def line(tag: str, cells: Sequence[str]) -> str:
        sides = ["left", *["right"] * (len(header) - 1)]
        aligned = (
            f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(aligned)}</tr>"

    lines = ["<table>", line("th", header), *(line("td", row) for row in rows)]
    paragraphs = [f"<p>{html.escape(note)}</p>" for note in notes]
    return "\n".join([*lines, "</table>", *paragraphs])
