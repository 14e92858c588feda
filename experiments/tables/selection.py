"""Each method at the strength that is best for it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.errors import UsageError
from experiments.evaluation import clean
from experiments.evaluation.single_fourier import Robustness
from experiments.options import SweepOptions
from experiments.outcomes import Outcome, attacked
from experiments.tables.statistics import Statistic
from experiments.training.config import RunConfig, Setting
from experiments.training.runs import Run
from experiments.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Row:
    """One method at the strength chosen for it."""

    setting: Setting
    avg: Statistic
    min: Statistic
    max: Statistic
    clean: Statistic
    top5: "Row | None" = None  # of the five largest logits, if images are streamed


def by_setting(outcomes: Sequence[Outcome]) -> dict[Setting, list[Outcome]]:
    """Outcomes of all seeds, for each method and strength."""
    grouped: dict[Setting, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.run.config.setting, []).append(outcome)
    return grouped


def summarize(setting: Setting, outcomes: Sequence[Outcome]) -> Row:
    """One setting's statistics over its seeds."""
    tests = [outcome.test for outcome in outcomes]
    top5 = [test.top5 for test in tests if test.top5 is not None]
    row = _summarized(setting, tests)
    if not top5:
        return row
    return dataclasses.replace(row, top5=_summarized(setting, top5))


def _summarized(setting: Setting, tests: Sequence[Robustness]) -> Row:
    images = tests[0].images
    frequencies = [test.frequencies for test in tests]
    return Row(
        setting,
        avg=Statistic.of([float(f.mean) for f in frequencies], images),
        min=Statistic.of([float(f.min) for f in frequencies], images),
        max=Statistic.of([float(f.max) for f in frequencies], images),
        clean=Statistic.of([test.clean for test in tests], images),
    )


def select(outcomes: Sequence[Outcome]) -> tuple[dict[str, Setting], list[Outcome]]:
    """Chooses each method's strength by the best mean accuracy under attack.

    A strength at which a model of any seed says nothing is left out, as in the paper.

    Returns:
      The setting of each method that has one, and the models that say nothing.
    """
    left_out = [outcome for outcome in outcomes if outcome.says_nothing]
    chosen: dict[str, Setting] = {}
    best: dict[str, float] = {}
    for setting, group in by_setting(outcomes).items():
        if any(outcome.says_nothing for outcome in group):
            continue
        avg = float(np.mean([outcome.selection.frequencies.mean for outcome in group]))
        if avg > best.get(setting.method, -1.0):
            best[setting.method], chosen[setting.method] = avg, setting
    return chosen, left_out


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Each method's models at the strength of Table 1."""

    runs: dict[str, list[Run]]  # of each method, a run a seed
    left_out: list[RunConfig]  # models that diverged or answer one class

    @property
    def settings(self) -> list[Setting]:
        """The setting of each method."""
        return [runs[0].config.setting for runs in self.runs.values()]

    @property
    def all_runs(self) -> list[Run]:
        """All runs, method by method."""
        return [run for runs in self.runs.values() for run in runs]


def choose(options: SweepOptions, workspace: Workspace) -> Chosen:
    """Trains and attacks what Table 1 needs, and chooses as it does.

    Where the paper chooses, nothing is attacked.

    Raises:
      UsageError: if all models diverged or answer one class.
    """
    runs = workspace.train(options.settings, options.seeds)
    by_choice: dict[Setting, list[Run]] = {}
    for run in runs:
        by_choice.setdefault(run.config.setting, []).append(run)
    if options.select_on == "paper":
        answers = clean.evaluate(workspace.test, runs)
        left_out = [
            run.config
            for run, answer in zip(runs, answers, strict=True)
            if clean.says_nothing(run, answer.classes_predicted)
        ]
        dropped = {config.setting for config in left_out}
        chosen = {s.method: s for s in by_choice if s not in dropped}
    else:
        outcomes = attacked(workspace, runs, options.frequency_stride)
        chosen, silent = select(outcomes)
        left_out = [outcome.run.config for outcome in silent]
    if not chosen:
        raise UsageError(
            f"all {len(runs)} models answer one class or diverged: nothing to "
            "compare; train for more --epochs or on more --train-examples."
        )
    return Chosen(
        {
            method: by_choice[chosen[method]]
            for method in options.methods
            if method in chosen
        },
        left_out,
    )
