"""ResNet-18 at CIFAR's size: training and the Single Fourier Attack, beside PyTorch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import absum_jax
from benchmarks import torch_peer
from benchmarks.timing import median_seconds
from experiments.config import NONE, Setting
from experiments.data import DATASETS, Split
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.evaluation.single_fourier import attacked_accuracies
from experiments.models import Classifier, build
from experiments.training import optimization, programs, step
from experiments.training.constraints import constrained

_RECIPE = DATASETS["cifar10"].conditions.recipe
# Dense products a second at the precision that convolutions run in, in TFLOP/s, from
# the vendors' data sheets (without sparsity).
_PEAK_TFLOPS = {"NVIDIA H100 80GB HBM3": 989.0, "NVIDIA H200": 989.0}


def _is_on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _steps() -> int:
    """Of a timed part of an epoch; SNC clips once in a hundred."""
    return 2 if _is_on_cpu() else 100


def _classifier() -> Classifier:
    dtype = "float32" if _is_on_cpu() else "bfloat16"
    return build("resnet18", (0.49, 0.48, 0.45), (0.25, 0.24, 0.26), 10, dtype)


def _split(examples: int) -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, 32, 32, 3), dtype=np.uint8)
    return Split(images, rng.integers(0, 10, examples).astype(np.int32))


@functools.cache
def flops_an_image() -> float:
    """Operations of a forward pass of ResNet-18 on one image, as XLA counts them."""
    classifier = _classifier()
    variables = jax.eval_shape(classifier.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    costs: Any = jax.jit(classifier.logits).lower(variables, x).cost_analysis()
    return float(costs["flops"])


def _rows(
    benchmark: str, rates: dict[str, float], reference: str, passes: int
) -> list[dict[str, Any]]:
    """A row a case, with the share of the device's peak where that is known.

    Args:
      benchmark: the title.
      rates: images a second.
      reference: the case that others are compared with.
      passes: the forward passes that the work on an image amounts to.
    """
    peak = _PEAK_TFLOPS.get(jax.devices()[0].device_kind)
    rows = []
    for name, rate in rates.items():
        tflops = 1e-12 * passes * flops_an_image() * rate
        share = f", {100 * tflops / peak:.0f} % of peak" if peak else ""
        rows.append(
            {
                "benchmark": benchmark,
                "case": f"{name} ({tflops:.3g} TFLOP/s{share})",
                "images_per_s": rate,
                "ratio": rate / rates[reference],
                "ratio_to": reference,
            }
        )
    return rows


def training_speed() -> list[dict[str, Any]]:
    """Images a second in training, with crops and flips, under each method."""
    classifier, steps = _classifier(), _steps()
    split = _split(steps * _RECIPE.batch_size)
    images, labels = jnp.asarray(split.images), jnp.asarray(split.labels)
    seeds = jnp.array([0])

    def epoch(setting: Setting) -> Callable[[], Any]:
        h = optimization.hyperparameters(
            (setting,), _RECIPE.learning_rate, _RECIPE.momentum
        )
        h = optimization.without_unused(h, (setting,))
        spec = step.TrainSpec(
            classifier, _RECIPE.batch_size, steps, augmented=True,
            constrained=constrained((setting,)),
        )  # fmt: skip

        def run() -> Any:
            # The epoch consumes its state, hence a new one each time.
            state = step.init_sweep(classifier, seeds, h)
            return programs.train_steps(
                spec, state, seeds, h, images, labels, optimization.schedule(0, 1)
            )

        return run

    cases: dict[str, Callable[[], Any]] = {
        "no regularization": epoch(NONE),
        "Absum": epoch(Setting("absum", 1e-4)),
        "SNC": epoch(Setting("snc", 1.0)),
    }
    if torch_peer.is_installed():
        cases["PyTorch"] = torch_peer.resnet_epoch(
            split.images, split.labels, _RECIPE.batch_size, _RECIPE.learning_rate,
            _RECIPE.momentum,
        )  # fmt: skip
    seconds = median_seconds(cases, rounds=3)
    rates = {name: len(split) / value for name, value in seconds.items()}
    title = f"training ResNet-18, batch {_RECIPE.batch_size}, {steps} steps"
    return _rows(title, rates, "no regularization", passes=3)


def passes_speed() -> list[dict[str, Any]]:
    """Images a second forward, for the input's gradient, and in training, batch 64."""
    batch, steps = 64, 4
    classifier, split = _classifier(), _split(batch * steps)
    variables = jax.jit(classifier.init)(jax.random.key(0))
    images, labels = jnp.asarray(split.images), jnp.asarray(split.labels)
    x, y = images[:batch].astype(jnp.float32) / 255, labels[:batch]
    seeds = jnp.array([0])
    h = optimization.hyperparameters((NONE,), _RECIPE.learning_rate, _RECIPE.momentum)
    h = optimization.without_unused(h, (NONE,))
    spec = step.TrainSpec(classifier, batch, steps)
    state = step.init_sweep(classifier, seeds, h)

    def loss(x: jax.Array, variables: Any) -> jax.Array:
        logits = classifier.logits(variables, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).sum()

    forward = jax.jit(classifier.logits)
    gradient = jax.jit(absum_jax.canonical_convolutions(jax.grad(loss)))

    def training() -> Any:
        # The epoch consumes its state.
        nonlocal state
        state, metrics = programs.train_steps(
            spec, state, seeds, h, images, labels, optimization.schedule(0, 1)
        )
        return metrics

    cases: dict[str, Callable[[], Any]] = {
        "forward": lambda: forward(variables, x),
        "input gradient": lambda: gradient(x, variables),
        "training": training,
    }
    shown = {"forward": batch, "input gradient": batch, "training": len(split)}
    if torch_peer.is_installed():
        peers = torch_peer.resnet_passes(np.asarray(x), np.asarray(y))
        peers["training"] = torch_peer.resnet_epoch(
            split.images, split.labels, batch, _RECIPE.learning_rate, _RECIPE.momentum
        )
        cases |= {f"{name}, PyTorch": peer for name, peer in peers.items()}
    seconds = median_seconds(cases, rounds=7)
    rates = {n: shown[n.split(",")[0]] / value for n, value in seconds.items()}
    return [
        {
            "benchmark": f"ResNet-18, batch {batch}",
            "case": name,
            "images_per_s": rate,
            "ratio": rate / rates.get(f"{name}, PyTorch", rate),
            "ratio_to": "PyTorch",
        }
        for name, rate in rates.items()
    ]


def attack_speed() -> list[dict[str, Any]]:
    """Images a second under the Single Fourier Attack, a part of the grid."""
    classifier = _classifier()
    frequencies = np.array([(l, m) for l in (0, 5) for m in (3, 16)])
    images = EvaluationSet(classifier, _split(100 if _is_on_cpu() else 10_000), "test")
    variables = jax.tree.map(
        lambda leaf: leaf[None], jax.jit(classifier.init)(jax.random.key(0))
    )
    x, y = images.arrays()
    eps = DATASETS["cifar10"].conditions.single_fourier_eps
    batch = images.batch_size(1)

    def ours() -> jax.Array:
        return attacked_accuracies(
            classifier, variables, x, y, jnp.asarray(frequencies),
            jnp.asarray(eps), batch=batch,
        )  # fmt: skip

    cases: dict[str, Callable[[], Any]] = {"absum_jax": ours}
    if torch_peer.is_installed():
        patterns = np.stack(
            [
                absum_jax.single_fourier_perturbation(l, m, x.shape[1:3], eps)
                for l, m in frequencies
            ]
        )
        cases["PyTorch"] = torch_peer.resnet_attack(
            np.asarray(x), np.asarray(y), patterns, batch
        )
    seconds = median_seconds(cases, rounds=3)
    shown = len(images.split) * len(frequencies)
    rates = {name: shown / value for name, value in seconds.items()}
    return _rows("Single Fourier Attack, ResNet-18", rates, list(rates)[-1], passes=1)
