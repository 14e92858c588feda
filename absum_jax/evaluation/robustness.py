"""A model's robustness as rows, which are shown as a table."""

import dataclasses
import json
import math
from typing import Any, NamedTuple

import numpy as np

from absum_jax import html
from absum_jax.markdown import aligned

_HEADER = ("attack", "strength", "accuracy (%)", "95 % interval")


class ReportRow(NamedTuple):
    """One accuracy, as a fraction, with its 95 % binomial interval.

    Example:
      >>> import absum_jax
      >>> low, high = absum_jax.wilson_interval(0.9, 100)
      >>> absum_jax.ReportRow("clean", None, 0.9, low, high, nan_logits=0.0).accuracy
      0.9
    """

    attack: str
    strength: float | None  # in units of the pixels or cycles per image; None if clean
    accuracy: float
    low: float
    high: float
    # Fraction of images with a NaN logit, which count as wrong; None for AutoAttack, of
    # which only the number of such images in all of its attacks together is known.
    nan_logits: float | None
    measure: str | None = None  # of strength: "eps" or "radius"; None if clean
    # Of PGD, by how much its accuracy exceeds AutoAttack's, if that was run.
    overestimate: float | None = None


@dataclasses.dataclass(frozen=True)
class RobustnessReport:
    """A model's robustness, from :func:`robustness_report`.

    `print` and notebooks show it as a table; `pandas.DataFrame` accepts its `rows`.
    """

    images: int
    rows: tuple[ReportRow, ...]
    grid: np.ndarray | None  # (h, w) accuracies under every frequency, if all were
    conditions: dict[str, Any]  # the options of the attacks

    def _cells(self) -> list[tuple[str, ...]]:
        """Returns the cells of the table, in percent."""
        return [
            (
                row.attack
                if row.overestimate is None
                else f"{row.attack}, {100 * row.overestimate:.2f} above AutoAttack",
                "" if row.strength is None else f"{row.strength:.4g}",
                f"{100 * row.accuracy:.2f}",
                f"{100 * row.low:.2f} to {100 * row.high:.2f}",
            )
            for row in self.rows
        ]

    def _notes(self) -> list[str]:
        """Returns the sentences below the table."""
        notes = [
            f"{self.images:,} images. The single frequency is the worst of "
            f"{self.conditions['frequencies']:,}.",
            *self.conditions.get("auto_attack_problems", ()),
        ]
        return notes + [
            f"NaN logits, counted as wrong: {100 * row.nan_logits:.2f} % of the images "
            f"({row.attack}{'' if row.strength is None else f' {row.strength:.4g}'})."
            for row in self.rows
            if row.nan_logits
        ]

    def __str__(self) -> str:
        """Formats the rows as a Markdown table, in percent."""
        cells = [
            # A bar or a line break ends a cell.
            (" ".join(attack.replace("|", "\\|").splitlines()), *numbers)
            for attack, *numbers in self._cells()
        ]
        return "\n".join([*aligned(_HEADER, cells), "", *self._notes()])

    def __repr__(self) -> str:
        """Formats the clean and the lowest accuracy in a line, without the grid."""
        lowest = min(self.rows, key=lambda row: row.accuracy, default=None)
        shown = [
            f"{f'{attack} {strength}'.rstrip()}: {accuracy} %"
            for row, (attack, strength, accuracy, _) in zip(
                self.rows, self._cells(), strict=True
            )
            if row.strength is None or row is lowest
        ]
        return f"RobustnessReport({', '.join([f'{self.images:,} images', *shown])})"

    def _repr_html_(self) -> str:
        return html.table(_HEADER, self._cells(), self._notes())

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as values for JSON, with accuracies as fractions."""
        return {
            "images": self.images,
            "rows": [row._asdict() for row in self.rows],
            "grid": None if self.grid is None else self.grid.tolist(),
            "conditions": self.conditions,
        }

    def to_json(self) -> str:
        """Returns the report as JSON, where numbers that are not finite are text."""

        def finite(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: finite(part) for name, part in value.items()}
            if isinstance(value, list | tuple):
                return [finite(part) for part in value]
            is_number = not isinstance(value, float) or math.isfinite(value)
            return value if is_number else str(value)

        return json.dumps(finite(self.as_dict()), indent=2, allow_nan=False)

    def plot(self) -> np.ndarray:
        """Draws the report by :func:`plot_report`, and returns its axes.

        Needs matplotlib.
        """
        from absum_jax.evaluation.report_plots import plot_report

        return plot_report(self)
