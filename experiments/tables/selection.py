"""Each method at the strength that is best for it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.outcomes import Outcome
from experiments.tables.statistics import Statistic
from experiments.training.config import Setting


@dataclasses.dataclass(frozen=True)
class Row:
    """One method at the strength chosen for it."""

    setting: Setting
    avg: Statistic
    min: Statistic
    max: Statistic
    clean: Statistic


def by_setting(outcomes: Sequence[Outcome]) -> dict[Setting, list[Outcome]]:
    """Outcomes of all seeds, for each method and strength."""
    grouped: dict[Setting, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.run.config.setting, []).append(outcome)
    return grouped


def summarize(setting: Setting, outcomes: Sequence[Outcome]) -> Row:
    """One setting's statistics over its seeds."""
    images = outcomes[0].test.images
    frequencies = [outcome.test.frequencies for outcome in outcomes]
    return Row(
        setting,
        avg=Statistic.of([float(f.mean) for f in frequencies], images),
        min=Statistic.of([float(f.min) for f in frequencies], images),
        max=Statistic.of([float(f.max) for f in frequencies], images),
        clean=Statistic.of([outcome.test.clean for outcome in outcomes], images),
    )


def select(outcomes: Sequence[Outcome]) -> tuple[dict[str, Setting], list[Outcome]]:
    """Chooses each method's strength by the best mean accuracy under attack.

    A strength at which a model of any seed answers one class is left out, as in the
    paper.

    Returns:
      The setting of each method that has one, and the models that answer one class.
    """
    constant = [outcome for outcome in outcomes if outcome.is_constant]
    chosen: dict[str, Setting] = {}
    best: dict[str, float] = {}
    for setting, group in by_setting(outcomes).items():
        if any(outcome.is_constant for outcome in group):
            continue
        avg = float(np.mean([outcome.selection.frequencies.mean for outcome in group]))
        if avg > best.get(setting.method, -1.0):
            best[setting.method], chosen[setting.method] = avg, setting
    return chosen, constant
