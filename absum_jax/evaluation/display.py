"""How results, which are pytrees of arrays, are shown: in a line, in rows, as HTML."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from absum_jax import _validation as validation
from absum_jax import html


def are_numbers(*values: Any) -> bool:
    """Returns whether values are numbers that can be read now.

    A pytree may also hold what a transformation puts in their place, such as tracers.
    """
    kinds = np.ndarray | np.number | jax.Array | int | float
    return all(isinstance(v, kinds) and validation.is_concrete(v) for v in values)


def compact(value: Any) -> str:
    """Formats numbers with four digits; only the ends of a long list.

    Example:
      >>> import numpy as np
      >>> from absum_jax.evaluation import display
      >>> display.compact(np.float32(0.98333)), display.compact(np.arange(99) / 4)
      ('0.9833', '[0, 0.25, ..., 24.25, 24.5]')
    """
    text = np.array2string(
        np.asarray(value), separator=", ", threshold=10, edgeitems=2,
        max_line_width=10**6, formatter={"all": lambda number: f"{number:.4g}"},
    )  # fmt: skip
    # Rows of an array begin new lines.
    return " ".join(text.split())


def line(result: tuple[Any, ...], **shown: Any) -> str:
    """Formats a result as one line of the given numbers.

    Falls back to its fields if they are not numbers that can be read now.

    Example:
      >>> from absum_jax.evaluation import display
      >>> display.line((), mean=0.25, worst=(1, 3))
      'tuple(mean=0.25, worst=[1, 3])'
    """
    if are_numbers(*jax.tree.leaves(shown, is_leaf=lambda value: value is None)):
        texts = {name: compact(value) for name, value in shown.items()}
    else:
        texts = {name: repr(v) for name, v in result._asdict().items()}  # type: ignore[attr-defined]
    parts = ", ".join(f"{name}={text}" for name, text in texts.items())
    return f"{type(result).__name__}({parts})"


def for_each_top_k(value: Any, shape: tuple[int, ...], last: int) -> np.ndarray:
    """Repeats values along the axis of `top_k`, if a shape has one that they lack.

    It comes just before the `last` axes of the shape.

    Example:
      >>> import numpy as np
      >>> from absum_jax.evaluation import display
      >>> of_models = np.array([[1, 2], [3, 4]])  # (models, strengths)
      >>> display.for_each_top_k(of_models, (2, 3, 2), last=1)[:, 0].tolist()
      [[1, 2], [3, 4]]
    """
    end = len(shape) - last
    missing = tuple(range(end - len(shape) + np.ndim(value), end))
    return np.broadcast_to(np.expand_dims(value, missing), shape)


def rows(axes: Sequence[str | None], **columns: Any) -> list[dict[str, Any]]:
    """Lists the entries of arrays as Python's numbers.

    Args:
      axes: names of the last axes, None for an axis whose index is left out; axes
        before them are `axis_0`, `axis_1`, and so on.
      **columns: arrays of one shape by the names of their columns; None is left out.

    Returns:
      A row for each entry: its indices by the names of the axes, and its numbers.

    Example:
      >>> import numpy as np
      >>> from absum_jax.evaluation import display
      >>> display.rows(["l"], accuracy=np.array([0.5, 1.0]), nan_logits=None)
      [{'l': 0, 'accuracy': 0.5}, {'l': 1, 'accuracy': 1.0}]
    """
    arrays = {name: np.asarray(c) for name, c in columns.items() if c is not None}
    shape = next(iter(arrays.values())).shape
    names = [f"axis_{i}" for i in range(len(shape) - len(axes))] + [*axes]
    return [
        {name: i for name, i in zip(names, index, strict=True) if name is not None}
        | {name: array[index].item() for name, array in arrays.items()}
        for index in np.ndindex(shape)
    ]


def as_html(rows: Sequence[dict[str, Any]]) -> str:
    """Formats rows of the same columns as an HTML table.

    Example:
      >>> from absum_jax.evaluation import display
      >>> display.as_html([{"mean": 0.5, "worst": (1, 3)}]).count("<td ")
      2
    """
    header, *_ = rows
    cells = [[compact(number) for number in row.values()] for row in rows]
    return html.table(list(header), cells)
