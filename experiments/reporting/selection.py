"""Selection of each method's strength by the accuracy under attack."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from experiments.config import Adversary, RunConfig, Setting
from experiments.evaluation import clean
from experiments.jobs.errors import UsageError
from experiments.options import SweepOptions
from experiments.published import TABLE1, Table
from experiments.reporting.evaluated import (
    EvaluatedModel,
    SingleFourierModel,
    under_single_fourier,
)
from experiments.training.runs import Run
from experiments.workspace import Workspace

_Model = TypeVar("_Model", bound=EvaluatedModel[Any])


def by_setting(models: Iterable[_Model]) -> dict[Setting, list[_Model]]:
    """Groups models of all seeds by method and strength."""
    groups: dict[Setting, list[_Model]] = {}
    for model in models:
        groups.setdefault(model.run.config.setting, []).append(model)
    return groups


def select(
    models: Sequence[_Model], methods: Sequence[str]
) -> tuple[dict[Setting, list[_Model]], list[_Model]]:
    """Selects each method's strength by the best mean score over seeds.

    A strength with a degenerate model of any seed is left out, as in the paper. The
    others are compared on the seeds that all of them have.

    Returns:
      All models of each selected setting, and the degenerate models.

    Raises:
      UsageError: if the strengths of a method have no seed in common.
    """
    degenerate = [model for model in models if model.is_degenerate]
    left_out = {model.run.config.setting for model in degenerate}
    candidates = {s: g for s, g in by_setting(models).items() if s not in left_out}
    selected = {}
    for method in methods:
        groups = [g for setting, g in candidates.items() if setting.method == method]
        if not groups:
            continue
        common = set.intersection(*({m.run.config.seed for m in g} for g in groups))
        if not common:
            raise UsageError(
                f"the strengths of {method} have no seed in common, on which they "
                "could be compared."
            )
        means = [
            np.mean([m.selection_score for m in g if m.run.config.seed in common])
            for g in groups
        ]
        best = groups[int(np.argmax(means))]
        selected[best[0].run.config.setting] = best
    return selected, degenerate


def train_and_evaluate(
    options: SweepOptions,
    workspace: Workspace,
    evaluate: Callable[[Sequence[Run]], list[_Model]],
    adversary: Adversary | None = None,
    table: Table[Any] = TABLE1,
) -> list[_Model]:
    """Trains and evaluates all strengths, and the selected ones with all seeds.

    In a part of the models only those that strengths are selected by. Returns the
    models, seed by seed. The table has the strengths of --select-on paper.
    """
    seeds = options.trial_seeds
    models = evaluate(workspace.train(options.settings(table), seeds, adversary))
    others = [seed for seed in options.seeds if seed not in seeds]
    if workspace.part is not None or not others:
        return models
    # If a selected strength has a degenerate model among them, the next best follows.
    while missing := [
        setting
        for setting, group in select(models, options.methods)[0].items()
        if len(group) < len(options.seeds)
    ]:
        models += evaluate(workspace.train(missing, others, adversary))
    return sorted(models, key=lambda model: options.seeds.index(model.run.config.seed))


def models_of_table1(
    options: SweepOptions, workspace: Workspace
) -> list[SingleFourierModel]:
    """Trains the models of Table 1, and attacks them with every frequency."""
    stride = options.frequency_stride
    return train_and_evaluate(
        options, workspace, lambda runs: under_single_fourier(workspace, runs, stride)
    )


@dataclasses.dataclass(frozen=True)
class Selected:
    """Each method's models at its strength in Table 1."""

    runs: dict[str, list[Run]]  # of each method, one for each seed
    left_out: list[RunConfig]  # models that diverged or predict one class

    @property
    def settings(self) -> list[Setting]:
        """Returns the setting of each method."""
        return [runs[0].config.setting for runs in self.runs.values()]

    @property
    def all_runs(self) -> list[Run]:
        """Returns all models, method by method."""
        return [run for runs in self.runs.values() for run in runs]

    def by_method(self, values: ArrayLike) -> np.ndarray:
        """Reshapes values (models, ...) of `all_runs` to (methods, seeds, ...)."""
        of_runs = np.asarray(values)
        return of_runs.reshape(len(self.runs), -1, *of_runs.shape[1:])


def selected_by(
    options: SweepOptions,
    workspace: Workspace,
    evaluate: Callable[[Sequence[Run]], list[_Model]],
    adversary: Adversary | None = None,
    table: Table[Any] = TABLE1,
) -> Selected:
    """Trains the models of a table and selects strengths by their scores.

    With the paper's strengths the models are not evaluated, but on clean images.

    Raises:
      UsageError: as `select` does, or if all models diverged or predict one class.
    """
    models: Sequence[EvaluatedModel[Any]]
    if options.select_on == "paper":
        runs = workspace.train(options.settings(table), options.seeds, adversary)
        results = clean.evaluate(workspace.test, runs)
        models = [EvaluatedModel(*model) for model in zip(runs, results, strict=True)]
    else:
        scored: list[_Model] = train_and_evaluate(
            options, workspace, evaluate, adversary, table
        )
        models = scored
    selected, degenerate = select(models, options.methods)
    if not selected:
        raise UsageError(
            f"all {len(models)} models answer one class or diverged: nothing to "
            "compare; train for more --epochs or on more --train-examples."
        )
    return Selected(
        {s.method: [model.run for model in group] for s, group in selected.items()},
        [model.run.config for model in degenerate],
    )


def select_as_table1(options: SweepOptions, workspace: Workspace) -> Selected:
    """Trains and evaluates the models of Table 1, and selects strengths as it does.

    Does what `selected_by` does, with the Single Fourier Attack.
    """
    stride = options.frequency_stride
    return selected_by(
        options, workspace, lambda runs: under_single_fourier(workspace, runs, stride)
    )
