"""New values compile nothing: compilations counted by jax's own monitoring."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.tree_util import Partial

import absum_jax

# Recorded for each program handed to the backend, from the persistent cache or not.
_COMPILED = "/jax/core/compile/backend_compile_duration"
_compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: _compiled.append(event) if event == _COMPILED else None
)


@contextlib.contextmanager
def counting():
    """A list with one entry for each compilation within the context."""
    counted, before = [], len(_compiled)
    yield counted
    counted.extend(_compiled[before:])


X = np.random.default_rng(0).uniform(size=(6, 4, 4, 1)).astype(np.float32)
Y = np.arange(6) % 3


def weights(seed):
    return np.random.default_rng(seed).normal(size=(16, 3)).astype(np.float32)


def apply(params, x):
    return x.reshape(len(x), -1) @ params


def test_the_counter_counts():
    @jax.jit
    def program(x):
        return jnp.sin(x) * 1.2345

    with counting() as first:
        program(np.ones(3, np.float32))
    with counting() as again:
        program(np.zeros(3, np.float32))
    with counting() as other_shape:
        program(np.ones(4, np.float32))
    assert (len(first), len(again), len(other_shape)) == (1, 0, 1)


@pytest.mark.parametrize("factory", [absum_jax.absum, absum_jax.l1])
def test_strength_and_learning_rate_of_a_step(factory):
    params = {"conv": {"kernel": np.ones((3, 3, 1, 2), np.float32)}}

    @jax.jit
    def step(params, strength, learning_rate):
        tx = optax.chain(
            optax.sgd(learning_rate), factory(strength, learning_rate=learning_rate)
        )
        updates, _ = tx.update(params, tx.init(params), params)
        return optax.apply_updates(params, updates)

    step(params, 0.1, 0.2)
    with counting() as compiled:
        step(params, 0.0, 0.2)
        step(params, 3.0, 0.5)
    assert compiled == []


@pytest.mark.parametrize("factory", [absum_jax.absum, absum_jax.l1])
def test_injected_hyperparams_of_a_step(factory):
    params = {"conv": {"kernel": np.ones((3, 3, 1, 2), np.float32)}}
    tx = optax.inject_hyperparams(factory)(strength=0.1, learning_rate=0.1)
    update, state = jax.jit(tx.update), tx.init(params)
    _, state = update(params, state, params)
    state.hyperparams["strength"] = jax.device_put(np.float32(2.0))
    with counting() as compiled:
        update(params, state, params)
    assert compiled == []


@pytest.mark.parametrize("prox", [absum_jax.prox_absum, absum_jax.prox_l1])
def test_threshold_of_a_prox(prox):
    kernel = jax.device_put(np.ones((3, 3, 1, 2), np.float32))
    prox(kernel, 0.1)
    with counting() as compiled:
        prox(kernel, 0.7)
    assert compiled == []


@pytest.mark.parametrize(
    ("eps", "frequencies", "seed"),
    [
        (0.5, [(0, 1), (2, 3)], 0),
        (0.1, [(3, 3), (1, 0)], 0),
        (0.1, [(0, 1), (2, 3)], 1),
    ],
    ids=["eps", "frequencies", "parameters in a Partial"],
)
def test_values_of_an_attack(eps, frequencies, seed):
    def mean(eps, frequencies, seed):
        model = Partial(apply, weights(seed))
        return absum_jax.single_fourier_accuracy(
            model, X, Y, eps, frequencies=frequencies
        ).mean

    mean(0.1, [(0, 1), (2, 3)], 0)
    with counting() as compiled:
        mean(eps, frequencies, seed)
    assert compiled == []


def test_another_number_of_frequencies_compiles_and_is_seen():
    model = Partial(apply, weights(0))
    with counting() as compiled:
        absum_jax.single_fourier_accuracy(model, X, Y, 0.1, frequencies=[(0, 1)] * 3)
    assert compiled


def test_images_and_labels_of_an_evaluation():
    model = Partial(apply, weights(0))
    absum_jax.accuracy(model, X, Y)
    with counting() as compiled:
        absum_jax.accuracy(model, X[::-1], Y[::-1])
        absum_jax.accuracy(Partial(apply, weights(1)), X, Y)
    assert compiled == []


class Model(nnx.Module):
    """One convolution, and dropout in evaluation mode."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.conv(x)).mean((1, 2))


def test_parameters_of_an_nnx_module():
    first, second = Model(nnx.Rngs(0)), Model(nnx.Rngs(1))
    absum_jax.accuracy(first, X, Y)
    absum_jax.single_fourier_accuracy(first, X, Y, 0.1, frequencies=[(0, 1)])
    with counting() as compiled:
        absum_jax.accuracy(second, X, Y)
        absum_jax.single_fourier_accuracy(second, X, Y, 0.1, frequencies=[(0, 1)])
    assert compiled == []
    first.conv.bias[...] = np.array([1e3, 0.0, 0.0], np.float32)
    with counting() as compiled:
        after = absum_jax.accuracy(first, X, Y)
    assert compiled == []
    # Not stale either: with this bias all six images are of class 0, as two are.
    assert after == np.float32(1 / 3)


def test_a_plain_function_is_compiled_at_each_call():
    logits_fn = Partial(apply, weights(0)).func

    def model(x):
        return logits_fn(weights(0), x)

    absum_jax.accuracy(model, X, Y)
    with counting() as compiled:
        absum_jax.accuracy(model, X, Y)
    assert compiled
