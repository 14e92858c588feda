"""PGD: against foolbox on the same weights, and what it adds to a training step."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from benchmarks import torch_peer
from benchmarks.timing import median_seconds
from experiments.config import NONE, Adversary, Setting
from experiments.data import Split, load, pgd_of
from experiments.evaluation.gradient import Steps, budget_of, white_box_accuracies
from experiments.models import build
from experiments.published import TABLE4
from experiments.training import optimization, programs, step

_PAPER = pgd_of("mnist")
_DRAWS = 5
_TIMED_IMAGES = 200
_EPOCHS, _BATCH, _LEARNING_RATE, _MOMENTUM = 10, 64, 0.01, 0.5


def _batch_size() -> int:
    return 200 if jax.default_backend() == "cpu" else 1000


@functools.cache
def _trained() -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """The classifier, its variables after ten epochs on mnist5k, and its test set."""
    dataset = load("mnist5k")
    train, test = dataset.train, dataset.test
    assert isinstance(train, Split)
    assert isinstance(test, Split)
    classifier = build("small_cnn", dataset.mean, dataset.std)
    seeds = jnp.array([0])
    h = optimization.hyperparameters((NONE,), _LEARNING_RATE, _MOMENTUM)
    state = step.init_sweep(classifier, seeds, h)
    spec = step.TrainSpec(classifier, _BATCH, len(train) // _BATCH)
    for epoch in range(_EPOCHS):
        state, _ = programs.train_steps(
            spec, state, seeds, h, jnp.asarray(train.images),
            jnp.asarray(train.labels), optimization.schedule(epoch, _EPOCHS),
        )  # fmt: skip
    variables = jax.tree.map(lambda leaf: leaf[0, 0], state.variables)
    return classifier, variables, test.images / np.float32(255), test.labels


def _ours(eps: float, draw: int = 0) -> Callable[[], jax.Array]:
    classifier, variables, x, y = _trained()
    logits_fn = jax.tree_util.Partial(classifier.logits, variables)
    on_device = jnp.asarray(x), jnp.asarray(y)

    def run() -> jax.Array:
        return absum_jax.pgd_accuracy(
            logits_fn, *on_device, key=jax.random.key(draw), eps=eps,
            step_size=_PAPER.step_size, steps=_PAPER.test_steps,
            batch_size=_batch_size(),
        ).accuracy  # fmt: skip

    return run


def _foolbox(eps: float, images: int | None = None) -> Callable[[], float]:
    _, variables, x, y = _trained()
    dataset = load("mnist5k")
    return torch_peer.pgd(
        variables, dataset.mean, dataset.std, x[:images], y[:images], eps,
        _PAPER.step_size, _PAPER.test_steps, _batch_size(),
    )  # fmt: skip


def pgd_speed() -> list[dict[str, Any]]:
    """Images a second of PGD with 40 steps on 1, 8 and 28 models, and of foolbox."""
    eps = 0.1
    classifier, variables, *data = _trained()
    x, y = (jnp.asarray(array[:_TIMED_IMAGES]) for array in data)
    steps = Steps(_PAPER.step_size, _PAPER.test_steps, eps)

    def together(models: int) -> Callable[[], Any]:
        return functools.partial(
            white_box_accuracies, classifier,
            jax.tree.map(lambda leaf: jnp.stack([leaf] * models), variables),
            x, y, budget_of(eps, steps), batch=_batch_size(),
        )  # fmt: skip

    candidates: dict[str, Callable[[], Any]] = {
        "1 model": together(1),
        "8 models": together(8),
        "28 models": together(28),
    }
    if torch_peer.has_foolbox():
        candidates["1 model, foolbox, PyTorch"] = _foolbox(eps, _TIMED_IMAGES)
    seconds = median_seconds(candidates, rounds=3)
    rates = {
        name: int(name.split()[0]) * _TIMED_IMAGES / value
        for name, value in seconds.items()
    }
    reference = list(rates)[-1]
    return [
        {
            "benchmark": f"PGD, {_PAPER.test_steps} steps, small CNN",
            "case": name,
            "images_per_s": rate,
            "ratio": rate / rates[reference],
            "ratio_to": reference.removeprefix("1 model, "),
        }
        for name, rate in rates.items()
    ]


def pgd_agreement() -> list[dict[str, Any]]:
    """Accuracy under PGD of the same weights, by each library.

    The mean over several draws of the random starts, which alone differ.
    """
    rows = []
    for eps in _PAPER.test_eps[:4]:
        ours = [float(_ours(eps, draw)()) for draw in range(_DRAWS)]
        accuracies = {"absum_jax": float(np.mean(ours))}
        if torch_peer.has_foolbox():
            attack = _foolbox(eps)
            accuracies["foolbox"] = float(np.mean([attack() for _ in range(_DRAWS)]))
        reference = list(accuracies)[-1]
        rows += [
            {
                "benchmark": f"accuracy under PGD of the same weights, {_DRAWS} draws",
                "case": f"eps = {eps:g}, {name}",
                "percent": 100 * value,
                "ratio": value / accuracies[reference],
                "ratio_to": reference,
            }
            for name, value in accuracies.items()
        ]
    return rows


def adversarial_step_cost() -> list[dict[str, Any]]:
    """A step of adversarial training of all methods, in steps of plain training."""
    steps = 5
    dataset = load("mnist5k")
    train = dataset.train
    assert isinstance(train, Split)
    classifier = build("small_cnn", dataset.mean, dataset.std)
    settings = tuple(
        Setting(method, cell.strength)
        for method, cell in TABLE4["mnist", "small_cnn"].items()
    )
    examples = slice(steps * _BATCH)
    images = jnp.asarray(train.images[examples])
    labels = jnp.asarray(train.labels[examples])
    seeds, h = (
        jnp.array([0]),
        optimization.hyperparameters(settings, _LEARNING_RATE, _MOMENTUM),
    )
    spec = step.TrainSpec(classifier, _BATCH, steps)
    attacks = _PAPER.train_steps

    def epoch(adversary: Adversary | None) -> Callable[[], Any]:
        budget = adversary and adversary.as_arrays()

        def run() -> Any:
            # The epoch consumes its state, hence a new one each time.
            state = step.init_sweep(classifier, seeds, h)
            return programs.train_steps(
                spec, state, seeds, h, images, labels, optimization.schedule(0, 1),
                budget=budget,
            )  # fmt: skip

        return run

    eps, step_size, radius = _PAPER.train_eps, _PAPER.step_size, _PAPER.init_radius
    seconds = median_seconds(
        {
            "plain": epoch(None),
            f"PGD, {attacks} steps": epoch(Adversary(eps, step_size, attacks, radius)),
            "fast, 1 step": epoch(Adversary(eps, 1.25 * eps, 1, eps)),
        },
        rounds=5,
    )
    passes = {name: attacks + 1 if "PGD" in name else 1 for name in seconds}
    passes["fast, 1 step"] = 2
    return [
        {
            "benchmark": f"training step, {len(settings)} models in one program",
            "case": name,
            "ms": 1e3 * value / steps,
            "ratio": value / (passes[name] * seconds["plain"]),
            "ratio_to": "(attack steps + 1) plain steps",
        }
        for name, value in seconds.items()
    ]
