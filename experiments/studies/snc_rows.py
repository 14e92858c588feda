"""The rows of the table of readings of SNC."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config import NONE, Setting
from experiments.published import Published
from experiments.reporting.evaluated import ACCURACIES, SingleFourierModel
from experiments.statistics.intervals import Interval
from experiments.statistics.summary import Statistic
from experiments.studies import snc_explaining as explaining
from experiments.studies.snc_constraints import READINGS

_ACTS = {True: "yes", False: "never", None: "unknown"}
HEADER = (
    "reading", "sigma", "seeds", "acts", "Avg.", "Min.", "CLN", "predicted Avg.",
    "predicted CLN", "explains",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """A reading at a bound."""

    setting: Setting
    attacked: Sequence[SingleFourierModel]
    models: Sequence[Mapping[str, Any]]  # of the document, in the same order

    @property
    def seeds(self) -> list[int]:
        """Returns the seeds of the models."""
        return [model["seed"] for model in self.models]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Returns the intervals of `explaining.intervals`; empty for a single model."""
        return explaining.intervals(self.models) if len(self.models) > 1 else {}

    @property
    def statistics(self) -> dict[str, Statistic]:
        """Returns accuracies under attack and on clean images over seeds."""
        tests = [model.test for model in self.attacked]
        return {
            name: Statistic.of([accuracy(test) for test in tests], tests[0].images)
            for name, accuracy in ACCURACIES.items()
        }

    def explains(self, published: Published | None) -> bool | None:
        """Checks whether it explains the published row.

        None where the paper has no row, at other bounds, and for a single model.
        """
        if published is None or not self.intervals:
            return None
        at_bound = Setting(self.setting.method, published.strength)
        if self.setting not in (NONE, at_bound):
            return None
        return explaining.explains(self.models, published)

    def cells(self, published: Published | None) -> tuple[str, ...]:
        """Returns the cells below `HEADER`, accuracies in percent."""
        statistics = self.statistics
        is_none = self.setting == NONE
        intervals = [
            f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"
            for interval in self.intervals.values()
        ] or [""] * len(explaining.ACCURACIES)
        explains = self.explains(published)
        return (
            READINGS[self.setting.method],
            "" if is_none else f"{self.setting.strength:g}",
            " ".join(map(str, self.seeds)),
            "" if is_none else _ACTS[explaining.acts(self.models)],
            *(str(statistics[name]) for name in ("avg", "min", "clean")),
            *intervals,
            "" if explains is None else "yes" if explains else "no",
        )  # fmt: skip

    def as_dict(self, published: Published | None) -> dict[str, Any]:
        """Returns the row for JSON, accuracies as fractions."""
        intervals = {name: i._asdict() for name, i in self.intervals.items()}
        if self.explains(published) is not None:
            for name, interval in self.intervals.items():
                holds = explaining.contains(interval, getattr(published, name))
                intervals[name]["holds_published"] = holds
        return {
            "reading": self.setting.method,
            "description": READINGS[self.setting.method],
            "max_norm": self.setting.strength or None,
            "seeds": self.seeds,
            "acts": explaining.acts(self.models),
            **{name: dataclasses.asdict(s) for name, s in self.statistics.items()},
            "prediction": intervals,
            "explains": self.explains(published),
        }
