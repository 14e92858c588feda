"""Training: what a regularizer costs, and what one program for many models gains."""

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
from experiments.config import NONE
from experiments.models import Variables, build
from experiments.training import devices, optimization, programs, step

BATCH = 64
STEPS = 100  # of which one is SNC's
LEARNING_RATE, MOMENTUM = 0.01, 0.5


def _data(examples: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, 28, 28, 1), dtype=np.uint8)
    return jnp.asarray(images), jnp.asarray(rng.integers(0, 10, examples))


def regularizer_cost() -> list[dict[str, Any]]:
    """One training step of the small CNN under each regularizer, against none."""
    classifier = build("small_cnn", (0.13,), (0.31,))
    sgd = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    decay = optax.add_decayed_weights(1e-4, mask=absum_jax.conv_kernels)
    uses = classifier.conv_uses((28, 28, 1))
    chains = {
        "none": sgd,
        "weight_decay": optax.chain(decay, sgd),
        "l1": optax.chain(sgd, absum_jax.l1(1e-4, learning_rate=LEARNING_RATE)),
        "absum": optax.chain(sgd, absum_jax.absum(1e-4, learning_rate=LEARNING_RATE)),
        "snc, every 100 steps": optax.chain(
            sgd, absum_jax.spectral_norm_constraint(0.1, uses, method="eigh")
        ),
    }
    images, labels = _data(BATCH)
    x = images / jnp.float32(255)
    key = jax.random.key(0)
    params = classifier.init(key).params

    def steps(tx: optax.GradientTransformation) -> Callable[[], Any]:
        def loss(params: Any) -> jax.Array:
            logits, _ = classifier.train_logits(Variables(params, {}), x, key)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean()

        def body(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        @jax.jit
        def run(params: Any) -> Any:
            carry = params, tx.init(params)
            return jax.lax.scan(body, carry, length=STEPS)[0]

        return functools.partial(run, params)

    seconds = median_seconds({name: steps(tx) for name, tx in chains.items()})
    return [
        {
            "benchmark": "training step, small CNN, batch 64",
            "case": name,
            "ms": 1e3 * value / STEPS,
            "ratio": value / seconds["none"],
            "ratio_to": "none",
        }
        for name, value in seconds.items()
    ]


def models_in_one_program() -> list[dict[str, Any]]:
    """Steps a second of 1, 8 and 28 models in one program, and of PyTorch."""
    classifier = build("small_cnn", (0.13,), (0.31,))
    images, labels = _data(BATCH * STEPS)

    def epoch(models: int) -> Callable[[], Any]:
        placement = devices.joint_placement(1, models, BATCH, None)
        padded = placement.padded(models)
        h = optimization.hyperparameters((NONE,) * padded, LEARNING_RATE, MOMENTUM)
        spec = step.TrainSpec(classifier, BATCH, STEPS, placement=placement)
        held = images, labels, jnp.array([0]), optimization.schedule(0, 1)
        x, y, seeds, at = devices.put(held, placement.replicated)
        state = devices.put(
            step.init_sweep(classifier, jnp.array([0]), h), placement.state
        )
        h = devices.put(h, placement.settings)

        def run() -> Any:
            # The epoch consumes its state, and the next one goes on from there.
            nonlocal state
            state, metrics = programs.train_steps(spec, state, seeds, h, x, y, at)
            return metrics

        return run

    candidates = {str(models): epoch(models) for models in (1, 8, 28)}
    if torch_peer.is_installed():
        candidates["PyTorch, 1"] = torch_peer.training_epoch(
            np.asarray(images), np.asarray(labels), BATCH, LEARNING_RATE, MOMENTUM
        )
    seconds = median_seconds(candidates, rounds=3)
    rates = {
        name: STEPS * int(name.split()[-1]) / value for name, value in seconds.items()
    }
    reference = list(rates)[-1]
    return [
        {
            "benchmark": f"small CNNs trained in one program, batch {BATCH}",
            "case": name,
            "model_steps_per_s": rate,
            "ratio": rate / rates[reference],
            "ratio_to": reference,
        }
        for name, rate in rates.items()
    ]
