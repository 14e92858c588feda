"""Finds the readings of SNC that explain the published rows (results/CRITERIA.md).

A constraint that never acted leaves a model bit for bit as it is without: with the same
parameters as the model with no constraint and the same seed. Models of one program can
be compared in this way. On CPUs, so can models of different programs that ran under the
same conditions: each device computes its models one after the other, so that the other
models of a program change no bit of a model. The number of devices does.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config import NONE
from experiments.methods import SNC_NUMPY_AXES
from experiments.published import Published
from experiments.statistics.intervals import Interval, prediction_interval
from experiments.studies.snc_constraints import READINGS
from experiments.training.runs import Run

# In percent; 95 % for two accuracies on two data sets together (Bonferroni).
CONFIDENCE = 98.75
# The accuracies to explain.
ACCURACIES = ("avg", "clean")

Model = Mapping[str, Any]  # in a document of snc-readings


def _conditions(run: Run) -> dict[str, Any]:
    """Returns what the last digits of a run depend on besides its configuration."""
    left_out = {"checksum", "digests", "seconds"}
    provenance, config = run.provenance, run.config
    steps = config.recipe.epoch_steps(config.train_examples)
    # A run that was interrupted may have begun under other conditions.
    at_once = provenance["steps_in_these_seconds"] == config.recipe.epochs * steps
    if provenance["backend"] == "cpu" and at_once:
        left_out |= {"seeds_in_one_program", "settings_in_one_program"}
    return {name: value for name, value in provenance.items() if name not in left_out}


def has_acted(run: Run, unconstrained: Run | None) -> bool | None:
    """Checks whether a constraint ever changed a model; None if that is unknown.

    It is unknown where the runs differ, but so do their conditions, or lack digests.
    """
    if run.config.setting == NONE:
        return False
    if unconstrained is None or None in (
        run.parameters_digest, unconstrained.parameters_digest
    ):  # fmt: skip
        return None
    if run.parameters_digest == unconstrained.parameters_digest:
        return False
    return _conditions(run) == _conditions(unconstrained) or None


def acts(models: Sequence[Model]) -> bool | None:
    """Checks whether a reading acted in any model; None if that is unknown."""
    acted = [model["acted"] for model in models]
    return True if True in acted else None if None in acted else False


def intervals(models: Sequence[Model]) -> dict[str, Interval]:
    """Computes the prediction interval of each of `ACCURACIES`, as fractions."""
    return {
        name: prediction_interval([model[name] for model in models], CONFIDENCE / 100)
        for name in ACCURACIES
    }


def contains(interval: Interval, percent: float) -> bool:
    """Checks whether a published accuracy in percent lies in an interval."""
    return interval.low <= percent / 100 <= interval.high


def explains(models: Sequence[Model], published: Published) -> bool:
    """Checks whether the published accuracies lie in the prediction intervals."""
    return all(
        contains(interval, getattr(published, name))
        for name, interval in intervals(models).items()
    )


def _by_reading(document: Mapping[str, Any]) -> dict[str, list[Model]]:
    """Groups the models at the published bound, and with no constraint, by reading."""
    where = document["title"]
    if document["published"] is None:
        raise ValueError(f"documents must have a published row, {where} has none.")
    sigma = document["published"]["strength"]
    models: dict[str, list[Model]] = {name: [] for name in READINGS}
    for model in document["models"]:
        if model["method"] == NONE.method or model["strength"] == sigma:
            models[model["method"]].append(model)
    if missing := [name for name, group in models.items() if not group]:
        raise ValueError(
            f"documents must have all readings at sigma = {sigma:g}, {where} lacks "
            f"{', '.join(missing)}."
        )
    return models


class UndecidedError(ValueError):
    """Says why it is not decided which SNC is the published one."""


def explaining_readings(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Finds the readings that explain the published rows of several data sets.

    A reading explains them if on each data set the published mean and clean accuracy
    lie in its prediction intervals. Readings that acted in no model count as `none`;
    for them a single model on each data set is enough. The documents are the JSON that
    `snc-readings` writes, one for each data set.
    """
    by_reading = [_by_reading(document) for document in documents]
    names = []
    for name in READINGS:
        groups = [models[name] for models in by_reading]
        if name != NONE.method and all(acts(models) is False for models in groups):
            continue
        for model in itertools.chain(*groups):
            if model["diverged"] or model["answers_one_class"]:
                raise UndecidedError(
                    f"{model['run']} diverged or predicts a single class."
                )
        if all(
            explains(models, Published(**document["published"]))
            for models, document in zip(groups, documents, strict=True)
        ):
            names.append(name)
    return names


def snc_as_published(documents: Sequence[Mapping[str, Any]]) -> str:
    """Returns the method that represents the published SNC.

    It is the ninth reading if this alone explains the published rows, otherwise SNC as
    the paper defines it.
    """
    is_ninth = explaining_readings(documents) == [SNC_NUMPY_AXES]
    return SNC_NUMPY_AXES if is_ninth else "snc"
