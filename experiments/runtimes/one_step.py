"""Measures the runtime of training steps of ResNet-18 on one image."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import absum_jax
from experiments.methods import METHODS
from experiments.runtimes import numpy_snc
from experiments.runtimes.log import Conditions, Log

CLASSES = 10
# The paper's training.
_LEARNING_RATE, _MOMENTUM = 0.1, 0.9


@dataclasses.dataclass(frozen=True)
class Measurement(Conditions):
    """Conditions that determine the runtime of a step on one image."""

    method: str
    strength: float | None  # lambda, for SNC sigma
    clip: str | None  # how SNC clips: "polar", "eigh" or "numpy"
    size: int  # height and width of the image
    model: str = "resnet18"


def _transformation(
    measurement: Measurement, uses: Mapping[str, Sequence[absum_jax.ConvUse]]
) -> optax.GradientTransformation:
    """Returns SGD with a regularization method; NumPy clips separately."""
    strength: Any = measurement.strength
    sgd = optax.sgd(_LEARNING_RATE, momentum=_MOMENTUM)
    if measurement.clip == "numpy":
        return sgd
    if measurement.clip is not None:
        constraint = absum_jax.spectral_norm_constraint(
            strength, uses, every=1, method=measurement.clip
        )
        return optax.chain(sgd, constraint)
    method = METHODS[measurement.method]
    parts = [sgd]
    if method.before_sgd is not None:
        parts.insert(0, method.before_sgd(strength, _LEARNING_RATE))
    if method.after_sgd is not None:
        parts.append(method.after_sgd(strength, _LEARNING_RATE))
    return optax.chain(*parts)


def _compiled_step(
    model: nnx.Module, measurement: Measurement
) -> tuple[Callable[[], Any], float]:
    """Returns a training step on one image, and the seconds of its compilation.

    Each call starts from the initial parameters, so that SNC always clips the same.
    """
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, statistics = states
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((1, measurement.size, measurement.size, 3), np.float32))
    evaluated = nnx.view(model, use_running_average=True)
    uses = absum_jax.conv_input_shapes(lambda f, x: f(x), evaluated, x)
    tx = _transformation(measurement, uses)
    y = jnp.asarray(rng.integers(0, CLASSES, 1))

    def loss(params: Any, statistics: Any, x: jax.Array, y: jax.Array) -> Any:
        # A copy: statistics cannot be updated from inside the gradient's trace.
        model = nnx.merge(graphdef, params, statistics, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
        return losses.mean(), nnx.state(model, nnx.BatchStat)

    @jax.jit
    def step(
        params: Any, statistics: Any, state: Any, x: jax.Array, y: jax.Array
    ) -> Any:
        grads, statistics = jax.grad(loss, has_aux=True)(params, statistics, x, y)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), statistics, state

    arguments = params, statistics, tx.init(params), x, y
    started = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    seconds = time.perf_counter() - started
    if measurement.clip != "numpy":
        return functools.partial(compiled, *arguments), seconds
    max_norm: Any = measurement.strength

    def step_and_clip() -> Any:
        params, *others = compiled(*arguments)
        return numpy_snc.clip_kernels(params, max_norm, uses), others

    return step_and_clip, seconds


def measure(
    model: nnx.Module, measurements: Sequence[Measurement], repeats: int, log: Log
) -> None:
    """Times training steps of a model by several methods in turns.

    Timings of earlier runs in the log count; new ones are added as they are measured.
    """
    steps = {}
    for measurement in measurements:
        steps[measurement], seconds = _compiled_step(model, measurement)
        log.add(measurement, "compile_s", seconds)
        log.warm_up(measurement, "step_s", steps[measurement])
    log.time_in_turns(steps, "step_s", repeats)
