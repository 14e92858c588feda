"""PGD on trained models: white box and transferred, and the power of perturbations.

Auto-PGD is transferred as well.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from absum_jax.evaluation.auto_attack_result import STEPS
from experiments.data import pgd_of
from experiments.evaluation import evaluator
from experiments.evaluation.attack import (
    SEED,
    Attack,
    Models,
    image_keys,
    on_stacked_models,
    register,
)
from experiments.evaluation.batches import map_batches
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.models import Classifier
from experiments.training import devices
from experiments.training.runs import Run


@dataclasses.dataclass(frozen=True)
class Steps:
    """The parameters of PGD except eps."""

    step_size: float
    steps: int
    init_radius: float


@dataclasses.dataclass(frozen=True)
class AutoSteps:
    """The parameters of Auto-PGD except eps; it chooses its own step sizes."""

    steps: int = STEPS


def published_steps(dataset: str) -> Steps:
    """Returns the parameters of the paper's PGD in evaluation."""
    pgd = pgd_of(dataset)
    return Steps(pgd.step_size, pgd.test_steps, pgd.init_radius)


def budget_of(eps: float, steps: Steps | AutoSteps) -> dict[str, Any]:
    """Returns the parameters of PGD or Auto-PGD as arrays."""
    fields = {"eps": eps} | dataclasses.asdict(steps)
    return {name: jnp.asarray(value) for name, value in fields.items()}


class PgdAccuracy(NamedTuple):
    """Accuracy of a model under one attack."""

    accuracy: float
    nan_logits: float  # fraction of images with a NaN logit, which count as wrong


@on_stacked_models
def white_box_accuracies(
    logits_fn: Any, x: jax.Array, y: jax.Array, budget: Mapping[str, Any], *,
    batch: int,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Computes accuracies and fractions of NaN logits (models,) of stacked models."""
    result = absum_jax.pgd_accuracy(
        logits_fn, x, y, key=jax.random.key(SEED), batch_size=batch, **budget
    )
    return result.accuracy, result.nan_logits


# No attack here is streamable: an image's random start depends on its index among all.
def _conditions(steps: Steps | AutoSteps) -> dict[str, Any]:
    return {"seed": SEED} | dataclasses.asdict(steps)


@register("pgd")
def _white_box(images: EvaluationSet, eps: Sequence[float], steps: Steps) -> Attack:
    def measure(models: Models, eps: float) -> tuple[jax.Array, jax.Array]:
        return models.apply(white_box_accuracies, budget_of(eps, steps))

    return Attack("attack", eps, measure, _conditions(steps))


def white_box(
    images: EvaluationSet, runs: Sequence[Run], eps: Sequence[float], steps: Steps
) -> list[dict[float, PgdAccuracy]]:
    """Evaluates each run under PGD on itself, with each eps."""
    return [
        {point: PgdAccuracy(*value) for point, value in zip(eps, values, strict=True)}
        for values in evaluator.run("pgd", images, runs, eps=eps, steps=steps)
    ]


def known_white_box(
    images: EvaluationSet, runs: Sequence[Run], eps: Sequence[float], steps: Steps
) -> np.ndarray | None:
    """Reads accuracies (runs, eps) under PGD; None if they were not all evaluated."""
    known = evaluator.on_disk("pgd", images, runs, eps=eps, steps=steps)
    if known is None:
        return None
    return np.array([[value[0] for value in values] for values in known])


@functools.partial(jax.jit, static_argnames=("classifier", "batch", "method"))
def _attacked(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    budget: Mapping[str, Any], *, batch: int,
    method: Callable[..., jax.Array] = absum_jax.pgd,
) -> jax.Array:  # fmt: skip
    """Attacks all images through one model, batch by batch."""
    logits_fn = jax.tree_util.Partial(classifier.logits, variables)

    def attack(part: tuple[Any, Any, Any]) -> jax.Array:
        x, y, index = part
        return method(logits_fn, x, y, key=image_keys(index), **budget)

    return map_batches(attack, (x, y, jnp.arange(y.shape[0])), batch)


@on_stacked_models
def _accuracies(logits_fn: Any, x: jax.Array, y: jax.Array, *, batch: int) -> jax.Array:
    return absum_jax.accuracy(logits_fn, x, y, batch_size=batch)


def _name_of(substitute: Run) -> str:
    """Identifies a substitute by its folder and, if known, its parameters."""
    digest = substitute.parameters_digest
    path = str(substitute.config.path)
    return path if digest is None else f"{path}@{digest[:12]}"


def _transfer(
    images: EvaluationSet, substitutes: Sequence[Run], eps: float,
    steps: Steps | AutoSteps,
) -> Attack:  # fmt: skip
    method = absum_jax.apgd if isinstance(steps, AutoSteps) else absum_jax.pgd
    by_name = {_name_of(run): run for run in substitutes}
    # Made once for all targets, which large networks are one by one; off the device.
    attacked: dict[str, np.ndarray] = {}

    def measure(models: Models, name: str) -> jax.Array:
        if name not in attacked:
            variables = images.variables([by_name[name]])
            first = jax.tree.map(lambda leaf: leaf[0], variables)
            batch, budget = images.batch_size(1), budget_of(eps, steps)
            made = _attacked(
                images.classifier, first, models.x, models.y, budget, batch=batch,
                method=method,
            )  # fmt: skip
            attacked[name] = devices.to_numpy(made)
        x = devices.put(attacked[name], models.x.sharding)
        return models._replace(x=x).apply(_accuracies)

    conditions = {"eps": eps} | _conditions(steps)
    return Attack("substitute", list(by_name), measure, conditions)


register("transfer")(_transfer)
register("apgd-transfer")(_transfer)


def transferred(
    images: EvaluationSet, targets: Sequence[Run], substitutes: Sequence[Run],
    eps: float, steps: Steps | AutoSteps,
) -> np.ndarray:  # fmt: skip
    """Computes accuracies (targets, substitutes) on images attacked through each.

    The attack is PGD or Auto-PGD, as the steps are.
    """
    name = "apgd-transfer" if isinstance(steps, AutoSteps) else "transfer"
    parameters = {"substitutes": substitutes, "eps": eps, "steps": steps}
    return np.array(evaluator.run(name, images, targets, **parameters))


@functools.partial(jax.jit, static_argnames=("classifier", "batch"))
def _spectra(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    budget: Mapping[str, Any], *, batch: int,
) -> jax.Array:  # fmt: skip
    """Computes spectra (models, h, w), one by one, as each model needs all images."""

    def one(variables: Any) -> jax.Array:
        attacked = _attacked(classifier, variables, x, y, budget, batch=batch)
        return absum_jax.power_spectrum(attacked - x)

    return jax.lax.map(one, variables)


@register("power-spectrum")
def _power_spectrum(images: EvaluationSet, eps: float, steps: Steps) -> Attack:
    def measure(models: Models, eps: float) -> jax.Array:
        _, *arrays = models
        batch, budget = images.batch_size(1), budget_of(eps, steps)
        return _spectra(images.classifier, *arrays, budget, batch=batch)

    return Attack("attack", [eps], measure, _conditions(steps))


def power_spectra(
    images: EvaluationSet, runs: Sequence[Run], eps: float, steps: Steps
) -> np.ndarray:
    """Computes power spectra (runs, h, w) of PGD's perturbations, mean over images."""
    values = evaluator.run("power-spectrum", images, runs, eps=eps, steps=steps)
    return np.array([spectrum for [spectrum] in values])


def high_frequency_fraction(spectrum: np.ndarray) -> float:
    """Returns the fraction of a centered spectrum's power beyond a quarter of width."""
    distance = np.fft.fftshift(absum_jax.frequency_radius(spectrum.shape))
    beyond = distance > spectrum.shape[1] / 4
    return float(spectrum[beyond].sum() / spectrum.sum())
