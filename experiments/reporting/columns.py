"""Tables as lists of columns, from which Markdown, CSV and JSON are generated."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np

from absum_jax.markdown import aligned as aligned
from experiments.config import NONE, Setting
from experiments.methods import METHODS
from experiments.statistics.summary import Statistic

Output = Literal["markdown", "csv", "json"]
OUTPUTS: tuple[Output, ...] = ("markdown", "csv", "json")
RECORDED: tuple[Output, ...] = ("csv", "json")
# Fractions, one for each seed or pair of seeds, become a statistic over them.
Value: TypeAlias = Sequence[float] | np.ndarray | str | float | None
# In percent; N/A where the paper has numbers, but not of this method.
Published: TypeAlias = float | Literal["N/A"] | None

_Row = TypeVar("_Row", contravariant=True)
_TableRow = TypeVar("_TableRow")
_Results = TypeVar("_Results")
_Cells = TypeVar("_Cells")


@dataclasses.dataclass(frozen=True)
class Column(Generic[_Row]):
    """A column of a table, in every output that shows it."""

    key: str  # in CSV and JSON
    title: str  # in Markdown
    value: Callable[[_Row], Value]
    published: Callable[[_Row], Published] | None = None
    outputs: Sequence[Output] = OUTPUTS
    records_published: bool = True  # in CSV and JSON; in any case it is printed
    text: Callable[[_Row], str] | None = None  # in Markdown; None is the value's
    published_format: str = ".2f"
    group: str = ""  # columns of a group are adjacent in CSV and JSON

    def summary(self, row: _Row, images: int) -> Statistic | str | float | None:
        """Returns the value of a row; fractions become a statistic over seeds."""
        value = self.value(row)
        if value is None or isinstance(value, str | float | int):
            return value
        return Statistic.of(value, images)

    def cell(self, row: _Row, images: int) -> str:
        """Returns the cell in Markdown, with the published value in brackets."""
        if self.text:
            text = self.text(row)
        else:
            summary = self.summary(row, images)
            text = "" if summary is None else str(summary)
        published = self.published(row) if self.published else None
        if published is None:
            return text
        shape = "" if isinstance(published, str) else self.published_format
        return f"{text} ({published:{shape}})"


@dataclasses.dataclass(frozen=True)
class Table(Generic[_TableRow]):
    """A table, as it is printed and recorded."""

    columns: Sequence[Column[_TableRow]]
    rows: Sequence[_TableRow]
    images: int = 0  # how many fractions refer to, if there are any

    def _shown(self, output: Output) -> list[Column[_TableRow]]:
        return [column for column in self.columns if output in column.outputs]

    def markdown(self) -> list[str]:
        """Returns the lines of the table in Markdown."""
        shown = self._shown("markdown")
        return aligned(
            [column.title for column in shown],
            [[column.cell(row, self.images) for column in shown] for row in self.rows],
        )

    def records(self, output: Output) -> list[dict[str, Any]]:
        """Returns a record for each row: fractions measured, percent published.

        In each group of columns plain values come first, then the four fields of each
        statistic, then published values.
        """
        shown = self._shown(output)
        groups = [
            [column for column in shown if column.group == group]
            for group in dict.fromkeys(column.group for column in shown)
        ]
        return [
            {k: v for group in groups for k, v in self._record(row, group).items()}
            for row in self.rows
        ]

    def _record(
        self, row: _TableRow, columns: Sequence[Column[_TableRow]]
    ) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        statistics: dict[str, Any] = {}
        published: dict[str, Any] = {}
        for column in columns:
            summary = column.summary(row, self.images)
            if isinstance(summary, Statistic):
                fields = dataclasses.asdict(summary)
                statistics |= {f"{column.key}_{name}": fields[name] for name in fields}
            else:
                plain[column.key] = summary
            if column.published and column.records_published:
                value = column.published(row)
                published[f"paper_{column.key}"] = None if value == "N/A" else value
        return plain | statistics | published


@dataclasses.dataclass(frozen=True)
class Row(Generic[_Results, _Cells]):
    """A method at one strength, with what the paper publishes in the same table."""

    setting: Setting
    results: _Results
    published: Mapping[str, _Cells]  # the cells of each method

    def published_value(self, read: Callable[[_Cells], float]) -> Published:
        """Reads a number from the published cells of this method."""
        method = self.setting.method
        if method in self.published:
            return read(self.published[method])
        return "N/A" if self.published and method != NONE.method else None


def _published_strength(row: Row[Any, Any]) -> Published:
    if row.setting == NONE:
        return None
    return row.published_value(lambda cells: cells.strength)


METHOD: Column[Row[Any, Any]] = Column(
    "method",
    "method",
    lambda row: row.setting.method,
    text=lambda row: METHODS[row.setting.method].label,
)
STRENGTH: Column[Row[Any, Any]] = Column(
    "strength",
    "lambda / sigma",
    lambda row: row.setting.strength,
    text=lambda row: "" if row.setting == NONE else f"{row.setting.strength:g}",
)
STRENGTH_AND_PUBLISHED = dataclasses.replace(
    STRENGTH, published=_published_strength, published_format="g"
)
