"""Measures the runtime of training steps of ResNet-18 on one image."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import absum_jax
from experiments.runtimes import numpy_snc
from experiments.runtimes.log import Conditions, Log

ConvUses = Mapping[str, Sequence[absum_jax.ConvUse]]

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


class Network(NamedTuple):
    """A model in training mode, and its convolutions for a size of images."""

    graphdef: Any
    params: Any
    statistics: Any
    conv_uses: Callable[[int], ConvUses]

    @classmethod
    def of(cls, model: nnx.Module) -> "Network":
        """Splits a model in training mode."""
        evaluated = nnx.view(model, use_running_average=True)

        def conv_uses(size: int) -> ConvUses:
            x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
            return absum_jax.conv_input_shapes(lambda f, x: f(x), evaluated, x)

        return cls(*nnx.split(model, nnx.Param, nnx.BatchStat), conv_uses)


def _transformation(
    measurement: Measurement, uses: ConvUses
) -> optax.GradientTransformation:
    """Returns SGD with a regularization method; NumPy clips separately."""
    sgd = optax.sgd(_LEARNING_RATE, momentum=_MOMENTUM)
    strength: Any = measurement.strength
    if measurement.method == "weight_decay":
        decay = optax.add_decayed_weights(strength, mask=absum_jax.conv_kernels)
        return optax.chain(decay, sgd)
    if measurement.method in ("l1", "absum"):
        prox = absum_jax.l1 if measurement.method == "l1" else absum_jax.absum
        return optax.chain(sgd, prox(strength, learning_rate=_LEARNING_RATE))
    if measurement.method == "snc":
        assert measurement.clip is not None
        constraint = absum_jax.spectral_norm_constraint(
            strength, uses, every=1, method=measurement.clip
        )
        return optax.chain(sgd, constraint)
    return sgd


def _compiled_step(
    network: Network, measurement: Measurement
) -> tuple[Callable[[], Any], float]:
    """Returns a training step on one image, and the seconds of its compilation.

    Each call starts from the initial parameters, so that SNC always clips the same.
    """
    uses = network.conv_uses(measurement.size)
    tx = _transformation(measurement, uses)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((1, measurement.size, measurement.size, 3), np.float32))
    y = jnp.asarray(rng.integers(0, CLASSES, 1))

    def loss(params: Any, statistics: Any, x: jax.Array, y: jax.Array) -> Any:
        # A copy: statistics cannot be updated from inside the gradient's trace.
        model = nnx.merge(network.graphdef, params, statistics, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
        return losses.mean(), nnx.state(model, nnx.BatchStat)

    @jax.jit
    def step(
        params: Any, statistics: Any, state: Any, x: jax.Array, y: jax.Array
    ) -> Any:
        grads, statistics = jax.grad(loss, has_aux=True)(params, statistics, x, y)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), statistics, state

    arguments = network.params, network.statistics, tx.init(network.params), x, y
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
    network: Network, measurements: Sequence[Measurement], repeats: int, log: Log
) -> None:
    """Times training steps of several methods in turns, until each has enough.

    Timings of earlier runs in the log count; new ones are added as they are measured.
    """
    steps = {}
    for measurement in measurements:
        steps[measurement], seconds = _compiled_step(network, measurement)
        log.add(measurement, "compile_s", seconds)
        log.warm_up(measurement, "step_s", steps[measurement])
    log.time_in_turns(steps, "step_s", repeats)
