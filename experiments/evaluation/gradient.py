"""PGD on trained runs: on themselves, transferred, and its power spectrum."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from experiments.data import pgd_of
from experiments.evaluation.batches import mapped
from experiments.evaluation.kept import EvaluationSet, kept
from experiments.models import Classifier
from experiments.models.stacked import over_models
from experiments.training import devices
from experiments.training.runs import Run

# Of the random starts; the attack of a published number is drawn once.
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Steps:
    """How PGD goes about it, whatever eps."""

    step_size: float
    steps: int
    init_radius: float


def published_steps(dataset: str) -> Steps:
    """How the paper's PGD goes about it in evaluation."""
    pgd = pgd_of(dataset)
    return Steps(pgd.step_size, pgd.test_steps, pgd.init_radius)


class PgdAccuracy(NamedTuple):
    """Accuracy of a model under one attack."""

    accuracy: float
    nan_logits: float  # share of images with a NaN logit, which count as wrong


@functools.partial(jax.jit, static_argnames=("classifier", "batch"))
def white_box_accuracies(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    budget: Mapping[str, Any], *, batch: int,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Accuracies and shares of NaN logits (models,) of stacked models."""

    def one(variables: Any) -> tuple[jax.Array, jax.Array]:
        logits_fn = jax.tree_util.Partial(classifier.logits, variables)
        result = absum_jax.pgd_accuracy(
            logits_fn, x, y, key=jax.random.key(_SEED), batch_size=batch, **budget
        )
        return result.accuracy, result.nan_logits

    return over_models(one, (0,))(variables)


def budget_of(eps: float, steps: Steps) -> dict[str, Any]:
    """Returns what PGD may do, as data: eps, and how it goes about it."""
    fields = {"eps": eps} | dataclasses.asdict(steps)
    return {name: jnp.asarray(value) for name, value in fields.items()}


def white_box(
    images: EvaluationSet, runs: Sequence[Run], eps: Sequence[float], steps: Steps
) -> list[dict[float, PgdAccuracy]]:
    """Accuracy of each run under PGD on itself, for each eps."""

    def compute(
        variables: Any, x: jax.Array, y: jax.Array, eps: float
    ) -> list[tuple[float, float]]:
        batch = images.batch_size(jax.tree.leaves(variables)[0].shape[0])
        results = white_box_accuracies(
            images.classifier, variables, x, y, budget_of(eps, steps), batch=batch
        )
        return np.stack(devices.to_numpy(results), axis=1).tolist()

    evaluation = images.evaluation("pgd", seed=_SEED, **dataclasses.asdict(steps))
    return [
        {point: PgdAccuracy(*value) for point, value in values.items()}
        for values in kept(images, runs, evaluation, eps, compute, "attack")
    ]


@functools.partial(jax.jit, static_argnames=("classifier", "batch"))
def _attacked(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    budget: Mapping[str, Any], *, batch: int,
) -> jax.Array:  # fmt: skip
    """All images, attacked through one model batch by batch."""
    logits_fn = jax.tree_util.Partial(classifier.logits, variables)

    def attack(part: tuple[Any, Any, Any]) -> jax.Array:
        x, y, index = part
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
            jax.random.key(_SEED), index
        )
        return absum_jax.pgd(logits_fn, x, y, key=keys, **budget)

    return mapped(attack, (x, y, jnp.arange(y.shape[0])), batch)


def _through(
    images: EvaluationSet,
    run: Run,
    x: jax.Array,
    y: jax.Array,
    budget: Mapping[str, Any],
) -> jax.Array:
    """All images, attacked through one run."""
    variables = jax.tree.map(lambda leaf: leaf[0], images.variables([run]))
    batch = images.batch_size(1)
    return _attacked(images.classifier, variables, x, y, budget, batch=batch)


@functools.partial(jax.jit, static_argnames=("classifier", "batch"))
def _accuracies(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array, *, batch: int
) -> jax.Array:
    def one(variables: Any) -> jax.Array:
        logits_fn = jax.tree_util.Partial(classifier.logits, variables)
        return absum_jax.accuracy(logits_fn, x, y, batch_size=batch)

    return over_models(one, (0,))(variables)


def _named(substitute: Run) -> str:
    """Names a substitute by its folder and, where it is known, its parameters."""
    digest = substitute.parameters_digest
    path = str(substitute.config.path)
    return path if digest is None else f"{path}@{digest[:12]}"


def transferred(
    images: EvaluationSet,
    targets: Sequence[Run],
    substitutes: Sequence[Run],
    eps: float,
    steps: Steps,
) -> np.ndarray:
    """Accuracy of each target on images attacked through each substitute.

    Returns:
      Accuracies (targets, substitutes).
    """
    by_path = {_named(run): run for run in substitutes}
    # Made once for all targets, which large networks are one by one; off the device.
    attacked: dict[str, np.ndarray] = {}

    def compute(variables: Any, x: jax.Array, y: jax.Array, path: str) -> list[float]:
        if path not in attacked:
            made = _through(images, by_path[path], x, y, budget_of(eps, steps))
            attacked[path] = devices.to_numpy(made)
        shown = devices.put(attacked[path], x.sharding)
        batch = images.batch_size(jax.tree.leaves(variables)[0].shape[0])
        accuracies = _accuracies(images.classifier, variables, shown, y, batch=batch)
        return devices.to_numpy(accuracies).tolist()

    evaluation = images.evaluation(
        "transfer", eps=eps, seed=_SEED, **dataclasses.asdict(steps)
    )
    values = kept(images, targets, evaluation, list(by_path), compute, "substitute")
    return np.array([[row[path] for path in by_path] for row in values])


@functools.partial(jax.jit, static_argnames=("classifier", "batch"))
def _spectra(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    budget: Mapping[str, Any], *, batch: int,
) -> jax.Array:  # fmt: skip
    """Spectra (models, h, w), one model after the other, as each needs all images."""

    def one(variables: Any) -> jax.Array:
        attacked = _attacked(classifier, variables, x, y, budget, batch=batch)
        return absum_jax.power_spectrum(attacked - x)

    return jax.lax.map(one, variables)


def power_spectra(
    images: EvaluationSet, runs: Sequence[Run], eps: float, steps: Steps
) -> np.ndarray:
    """Power spectra (runs, h, w) of PGD's perturbations, averaged over the images."""

    def compute(variables: Any, x: jax.Array, y: jax.Array, eps: float) -> list[Any]:
        spectra = _spectra(
            images.classifier,
            variables,
            x,
            y,
            budget_of(eps, steps),
            batch=images.batch_size(1),
        )
        return devices.to_numpy(spectra).tolist()

    evaluation = images.evaluation(
        "power-spectrum", seed=_SEED, **dataclasses.asdict(steps)
    )
    values = kept(images, runs, evaluation, [eps], compute, "attack")
    return np.array([value[eps] for value in values])


def high_share(spectrum: np.ndarray) -> float:
    """The share of a centred spectrum's power beyond a quarter of the width."""
    distance = np.fft.fftshift(absum_jax.frequency_radius(spectrum.shape))
    beyond = distance > spectrum.shape[1] / 4
    return float(spectrum[beyond].sum() / spectrum.sum())
