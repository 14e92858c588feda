"""Each method at the strength that is best for it."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from experiments.config import Adversary, RunConfig, Setting
from experiments.evaluation import clean
from experiments.evaluation.single_fourier import Robustness
from experiments.jobs.errors import UsageError
from experiments.options import SweepOptions
from experiments.reporting.outcomes import Outcome, attacked
from experiments.statistics.summary import Statistic
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


class Model(Protocol):
    """A trained model that was evaluated."""

    @property
    def run(self) -> Run:
        """The model."""

    @property
    def is_degenerate(self) -> bool:
        """Whether it diverged, or answers one class whatever it sees."""


_Model = TypeVar("_Model", bound=Model)


def by_setting(models: Iterable[_Model]) -> dict[Setting, list[_Model]]:
    """Groups models of all seeds by method and strength."""
    grouped: dict[Setting, list[_Model]] = {}
    for model in models:
        grouped.setdefault(model.run.config.setting, []).append(model)
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


def best(
    models: Sequence[_Model], score: Callable[[_Model], float]
) -> tuple[dict[str, list[_Model]], list[_Model]]:
    """Chooses each method's strength by the best mean score over seeds.

    A strength at which a model of any seed says nothing is left out, as in the paper.
    The others are compared on the seeds that all of them have.

    Args:
      models: all of them, some strengths with more seeds than others.
      score: of a model, at least zero.

    Returns:
      All models of each method at its strength, and the models that say nothing.

    Raises:
      UsageError: if the strengths of a method have no seed in common.
    """
    left_out = [model for model in models if model.is_degenerate]
    dropped = {model.run.config.setting for model in left_out}
    candidates: dict[str, list[list[_Model]]] = {}
    for setting, group in by_setting(models).items():
        if setting not in dropped:
            candidates.setdefault(setting.method, []).append(group)
    chosen = {}
    for method, groups in candidates.items():
        common = set.intersection(*({m.run.config.seed for m in g} for g in groups))
        if not common:
            raise UsageError(
                f"the strengths of {method} have no seed in common, on which they "
                "could be compared."
            )
        means = [
            float(np.mean([score(m) for m in group if m.run.config.seed in common]))
            for group in groups
        ]
        chosen[method] = groups[int(np.argmax(means))]
    return chosen, left_out


def _score(outcome: Outcome) -> float:
    """The mean accuracy under attack."""
    return float(outcome.selection.frequencies.mean)


def select(outcomes: Sequence[Outcome]) -> tuple[dict[str, Setting], list[Outcome]]:
    """Chooses each method's strength by the best mean accuracy under attack.

    Returns:
      The setting of each method that has one, and the models that say nothing.

    Raises:
      UsageError: as `best` does.
    """
    chosen, left_out = best(outcomes, _score)
    settings = {method: group[0].run.config.setting for method, group in chosen.items()}
    return settings, left_out


def tried(
    options: SweepOptions,
    workspace: Workspace,
    evaluate: Callable[[Sequence[Run]], list[_Model]],
    score: Callable[[_Model], float],
    adversary: Adversary | None = None,
) -> list[_Model]:
    """Trains and evaluates all strengths, and those that are chosen with all seeds.

    Of a part of the models, those that strengths are chosen by.

    Args:
      options: of the sweep.
      workspace: where to train.
      evaluate: what to do with trained models.
      score: what `best` chooses by.
      adversary: of adversarial training; None trains on clean images.

    Returns:
      The models, seed by seed.
    """
    seeds = options.trial_seeds
    models = evaluate(workspace.train(options.settings, seeds, adversary))
    others = [seed for seed in options.seeds if seed not in seeds]
    if workspace.part is not None or not others:
        return models
    # Where a chosen strength says nothing with another seed, the next best follows.
    while lacking := [
        group[0].run.config.setting
        for group in best(models, score)[0].values()
        if len(group) < len(options.seeds)
    ]:
        models += evaluate(workspace.train(lacking, others, adversary))
    return sorted(models, key=lambda model: options.seeds.index(model.run.config.seed))


def tried_under_attack(options: SweepOptions, workspace: Workspace) -> list[Outcome]:
    """Trains and attacks what Table 1 needs."""
    stride = options.frequency_stride
    return tried(
        options, workspace, lambda runs: attacked(workspace, runs, stride), _score
    )


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
      UsageError: as `best` does, or if all models diverged or answer one class.
    """
    if options.select_on == "paper":
        runs = workspace.train(options.settings, options.seeds)
        answers = clean.evaluate(workspace.test, runs)
        left_out = [
            run.config
            for run, answer in zip(runs, answers, strict=True)
            if clean.is_degenerate(run, answer.classes_predicted)
        ]
        dropped = {config.setting for config in left_out}
        chosen = {s.method: s for s in options.settings if s not in dropped}
    else:
        outcomes = tried_under_attack(options, workspace)
        runs = [outcome.run for outcome in outcomes]
        chosen, silent = select(outcomes)
        left_out = [outcome.run.config for outcome in silent]
    if not chosen:
        raise UsageError(
            f"all {len(runs)} models answer one class or diverged: nothing to "
            "compare; train for more --epochs or on more --train-examples."
        )
    return Chosen(
        {
            method: [run for run in runs if run.config.setting == chosen[method]]
            for method in options.methods
            if method in chosen
        },
        left_out,
    )
