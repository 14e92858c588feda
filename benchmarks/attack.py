"""The Single Fourier Attack: one program over the grid against loops over it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from benchmarks import torch_peer
from benchmarks.timing import median_seconds
from experiments.evaluation.single_fourier import attacked_accuracies
from experiments.models import build

IMAGES = 1000
EPS = 80 / 255
# A part of the grid: enough frequencies that a call's fixed cost does not count.
FREQUENCIES = np.array([(l, m) for l in (0, 3, 9, 14) for m in range(0, 28, 4)])


def _batch_size() -> int:
    return 200 if jax.default_backend() == "cpu" else 500


def grid_speed() -> list[dict[str, Any]]:
    """Images a second of the attack on 1, 8 and 28 models, and of its peers."""
    classifier = build("small_cnn", (0.13,), (0.31,))
    rng = np.random.default_rng(0)
    x = rng.random((IMAGES, 28, 28, 1), np.float32)
    y = rng.integers(0, 10, IMAGES)
    on_device = jnp.asarray(x), jnp.asarray(y)
    batch_size = _batch_size()

    def together(models: int) -> Callable[[], jax.Array]:
        keys = jax.random.split(jax.random.key(0), models)
        variables = jax.jit(jax.vmap(classifier.init))(keys)
        return functools.partial(
            attacked_accuracies, classifier, variables, *on_device,
            jnp.asarray(FREQUENCIES), jnp.asarray(EPS), batch=batch_size,
        )  # fmt: skip

    params = classifier.init(jax.random.key(0))
    logits = jax.jit(classifier.logits)

    def python_loop() -> list[jax.Array]:
        accuracies = []
        for l, m in FREQUENCIES:
            pattern = absum_jax.single_fourier_perturbation(l, m, (28, 28), EPS)
            correct = jnp.zeros([], jnp.int32)
            for start in range(0, IMAGES, batch_size):
                part = slice(start, start + batch_size)
                batch = jnp.clip(on_device[0][part] + pattern[..., None], 0, 1)
                answers = logits(params, batch).argmax(axis=-1)
                correct += (answers == on_device[1][part]).sum()
            accuracies.append(correct / IMAGES)
        return accuracies

    candidates: dict[str, Callable[[], Any]] = {
        "1 model": together(1),
        "8 models": together(8),
        "28 models": together(28),
        "1 model, loops in Python": python_loop,
    }
    if torch_peer.is_installed():
        patterns = np.stack(
            [
                absum_jax.single_fourier_perturbation(l, m, (28, 28), EPS)
                for l, m in FREQUENCIES
            ]
        )
        candidates["1 model, PyTorch"] = torch_peer.attack(x, y, patterns, batch_size)
    seconds = median_seconds(candidates, rounds=3)
    rates = {
        name: int(name.split()[0]) * IMAGES * len(FREQUENCIES) / value
        for name, value in seconds.items()
    }
    reference = list(rates)[-1]
    return [
        {
            "benchmark": "Single Fourier Attack, small CNN",
            "case": name,
            "images_per_s": rate,
            "ratio": rate / rates[reference],
            "ratio_to": reference.removeprefix("1 model, "),
        }
        for name, rate in rates.items()
    ]
