"""New values compile nothing: compilations counted by jax's own monitoring."""

import contextlib
import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.tree_util import Partial

import absum_jax

pytestmark = pytest.mark.slow

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
@pytest.mark.parametrize("top_k", [1, (1, 2)], ids=str)
def test_values_of_an_attack(eps, frequencies, seed, top_k):
    def mean(eps, frequencies, seed):
        model = Partial(apply, weights(seed))
        return absum_jax.single_fourier_accuracy(
            model, X, Y, eps, frequencies=frequencies, top_k=top_k
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


KEY = jax.random.key(0)
BUDGET = {"key": KEY, "eps": [0.1, 0.2], "step_size": 0.05, "steps": 2}
ATTACKS = {
    "fgsm": lambda model, key, eps, **_: absum_jax.fgsm(model, X, Y, eps=eps),
    "pgd": lambda model, **budget: absum_jax.pgd(model, X, Y, **budget),
    "early stop": lambda model, **budget: absum_jax.pgd(
        model, X, Y, **budget, early_stop=True, restarts=2, loss=absum_jax.margin_loss
    ),
    "l2": lambda model, **budget: absum_jax.pgd(model, X, Y, **budget, norm="l2"),
    "apgd": lambda model, key, eps, steps, **_: absum_jax.apgd(
        model, X, Y, key=key, eps=eps, steps=steps
    ),
    "square": lambda model, key, eps, steps, **_: absum_jax.square(
        model, X, Y, key=key, eps=eps, queries=steps
    ),
    "pgd_accuracy": lambda model, **budget: absum_jax.pgd_accuracy(
        model, X, Y, **budget, batch_size=4
    ),
    "transfer": lambda model, **budget: absum_jax.pgd_accuracy(
        Partial(apply, weights(5)), X, Y, **budget, substitute=model
    ),
}


@pytest.mark.parametrize(
    ("name", "several"),
    [*((name, True) for name in ATTACKS), ("fgsm", False), ("pgd", False)],
)
def test_values_of_a_gradient_attack(name, several):
    def attack(seed=0, **changed):
        budget = BUDGET | changed
        if not several:
            budget["eps"] = budget["eps"][0]
        return ATTACKS[name](Partial(apply, weights(seed)), **budget)

    first, key = attack(init_radius=0.1), jax.random.key(1)
    with counting() as compiled:
        attack(eps=[0.0, 0.3], init_radius=0.1)
        attack(step_size=0.2, init_radius=0.1)
        attack(steps=5, init_radius=0.1)
        attack(init_radius=0.0)
        attack(key=key, init_radius=0.1)
        attack(seed=1, init_radius=0.1)
        again = attack(init_radius=0.1)
    assert compiled == []
    jax.tree.map(np.testing.assert_array_equal, again, first)


def test_one_program_for_each_attack_of_autoattack_and_batch_size():
    traced = []

    def counted(params, x):
        traced.append(x.shape)
        return apply(params, x)

    def attack(images=6, **changed):
        options = {"key": KEY, "eps": [0.0, 0.01], "steps": 2, "queries": 3}
        options |= {"batch_size": 4, "components": ("apgd-ce", "fab-t", "square")}
        x, model = np.tile(X, (9, 1, 1, 1))[:images], Partial(counted, weights(0))
        y = np.asarray(apply(weights(0), x).argmax(axis=-1))
        return absum_jax.auto_attack(model, x, y, **(options | changed))

    attack()
    attack(images=5)
    with counting() as compiled:
        attack(eps=[0.05, 0.0], steps=3)
        attack(queries=5, key=jax.random.key(1))
    assert compiled == []
    traced.clear()
    attack(images=9)
    # Without an attack there are three batches of three, and no attack has these.
    assert {shape[0] for shape in traced} == {9, 3}


def test_bounds_of_an_attack():
    model = Partial(apply, weights(0))
    absum_jax.pgd(model, X, Y, **BUDGET)
    with counting() as compiled:
        absum_jax.pgd(model, X, Y, **BUDGET, bounds=(-0.5, 1.5))
    assert compiled == []


def test_another_number_of_restarts_compiles_and_is_seen():
    model = Partial(apply, weights(0))
    with counting() as compiled:
        absum_jax.pgd(model, X, Y, **BUDGET, restarts=3)
    assert compiled


def test_values_of_fourier_noise():
    def mean(norm=0.1, key=KEY, pair=(0, 1), seed=0):
        return absum_jax.fourier_noise_accuracy(
            Partial(apply, weights(seed)), X, Y, norm, key=key, frequencies=[pair]
        ).mean

    mean()
    key = jax.random.key(1)
    with counting() as compiled:
        mean(norm=0.7)
        mean(key=key)
        mean(pair=(3, 2))
        mean(seed=1)
    assert compiled == []


@pytest.mark.parametrize(
    "function", [absum_jax.low_pass_accuracy, absum_jax.high_pass_accuracy]
)
def test_values_of_filtered_accuracies(function):
    def evaluate(seed, radii, bounds):
        model = Partial(apply, weights(seed))
        return function(model, X, Y, radii, bounds=bounds)

    evaluate(0, [0.0, 1.0], (0.0, 1.0))
    with counting() as compiled:
        evaluate(1, [2.0, 3.5], (-1.0, 0.5))
    assert compiled == []


@pytest.mark.parametrize("function", [absum_jax.low_pass, absum_jax.high_pass])
def test_radius_of_a_filter(function):
    function(X, 1.0)
    with counting() as compiled:
        function(X, 2.5)
        function(X[::-1], 0.0)
    assert compiled == []


@pytest.mark.parametrize("function", [absum_jax.band_pass, absum_jax.band_stop])
def test_radii_of_a_band(function):
    function(X, 0.5, 1.0)
    with counting() as compiled:
        function(X, 1.0, 2.5)
        function(X[::-1], 0.0, 0.0)
    assert compiled == []


@pytest.mark.parametrize("kind", ["shot_noise", "gaussian_blur", "brightness"])
def test_severity_of_a_corruption(kind):
    def evaluate(severity=1, seed=0, key=KEY):
        absum_jax.corrupt(X, kind, severity, key=key)
        model = Partial(apply, weights(seed))
        absum_jax.corruption_accuracy(model, X, Y, kind, [severity, 1], key=key)

    evaluate()
    other = jax.random.key(1)
    with counting() as compiled:
        evaluate(severity=5)
        evaluate(seed=1)
        evaluate(key=other)
    assert compiled == []


def test_values_of_a_sensitivity():
    loss = absum_jax.margin_loss
    absum_jax.fourier_sensitivity(Partial(apply, weights(0)), X, Y, loss=loss)
    with counting() as compiled:
        absum_jax.fourier_sensitivity(Partial(apply, weights(1)), X, Y[::-1], loss=loss)
    assert compiled == []


def test_parameters_of_an_attacked_nnx_module():
    first, second = Model(nnx.Rngs(2)), Model(nnx.Rngs(3))
    absum_jax.pgd(first, X, Y, **BUDGET)
    absum_jax.pgd_accuracy(first, X, Y, **BUDGET)
    with counting() as compiled:
        absum_jax.pgd(second, X, Y, **BUDGET)
        absum_jax.pgd_accuracy(second, X, Y, **BUDGET)
    assert compiled == []


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class WithStaticData:
    """A linear model with a constant that is no leaf."""

    function: object = dataclasses.field(metadata={"static": True})
    constant: object = dataclasses.field(metadata={"static": True})
    params: np.ndarray

    def __call__(self, x):
        return self.function(self.constant, self.params, x)


@dataclasses.dataclass(frozen=True)
class Constant:
    """A number, or an array, which has no hash."""

    value: object


class Sign:
    """A sign that can be changed unnoticed, in an object with a hash."""

    def __init__(self):
        self.value = np.array([1.0, 1.0])

    def __hash__(self):  # noqa: D105
        return 7

    def apply(self, params, x):
        return self.value[0] * apply(params, x)

    def loss(self, logits, y):
        return self.value[0] * absum_jax.margin_loss(logits, y)


def _reading_an_array(sign):
    constant = Constant(sign.value)
    return Partial(lambda c, p, x: c.value[0] * apply(p, x), constant, weights(0))


@pytest.mark.parametrize(
    "make",
    [
        _reading_an_array,
        lambda sign: WithStaticData(
            lambda c, p, x: c.value[0] * apply(p, x), Constant(sign.value), weights(0)
        ),
        lambda sign: Partial(sign.apply, weights(0)),
        lambda sign: Partial(
            lambda c, p, x: c.value.apply(p, x), Constant(sign), weights(0)
        ),
    ],
    ids=["argument", "static data", "method", "inside a value"],
)
def test_what_can_change_unnoticed_is_read_anew(make):
    y = np.asarray(apply(weights(0), X).argmax(axis=1))
    sign = Sign()
    model = make(sign)
    assert absum_jax.accuracy(model, X, y) == 1
    sign.value[:] = -1
    assert absum_jax.accuracy(model, X, y) < 1


def test_a_loss_that_can_change_unnoticed_is_read_anew():
    model, sign = Partial(apply, weights(0)), Sign()
    x = 0.25 + X / 2
    up = absum_jax.fgsm(model, x, Y, eps=0.1, loss=sign.loss)
    slope = absum_jax.fourier_sensitivity(model, X, Y, loss=sign.loss)
    sign.value[:] = -2
    down = absum_jax.fgsm(model, x, Y, eps=0.1, loss=sign.loss)
    np.testing.assert_allclose(up + down, 2 * x, atol=1e-6)
    steeper = absum_jax.fourier_sensitivity(model, X, Y, loss=sign.loss)
    np.testing.assert_allclose(steeper, 4 * slope, rtol=1e-4)


def test_members_of_an_enum_are_constants():
    precise = jax.lax.Precision.HIGHEST
    first, second = (
        WithStaticData(lambda _, p, x: apply(p, x), (precise, None), weights(seed))
        for seed in (0, 1)
    )
    second = dataclasses.replace(second, function=first.function)
    absum_jax.accuracy(first, X, Y)
    with counting() as compiled:
        absum_jax.accuracy(second, X, Y)
    assert compiled == []


@pytest.mark.parametrize("make", [Partial, WithStaticData])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (True, 1), (1, 1.0), (0.0, -0.0), (np.float32(0), np.float32(-0.0)),
        ((2, (1,)), (2, (True,))), (Constant(0.0), Constant(-0.0)),
    ],
    ids=str,
)  # fmt: skip
def test_equal_constants_of_a_pytree_are_told_apart(make, first, second):
    y = np.asarray(apply(weights(0), X).argmax(axis=1))

    def signed(constant, params, x):
        is_first = repr(constant) == repr(first)
        return apply(params, x) * (1 if is_first else -1)

    for constant in (first, second):
        found = absum_jax.accuracy(make(signed, constant, weights(0)), X, y)
        assert (found == 1) == (repr(constant) == repr(first))


def test_a_pytree_is_traced_once():
    traces = []

    def traced(params, x):
        traces.append(x.shape)
        return apply(params, x)

    def evaluate(seed):
        model = Partial(traced, weights(seed))
        absum_jax.accuracy(model, X, Y)
        absum_jax.pgd(model, X, Y, **BUDGET)
        absum_jax.pgd_accuracy(model, X, Y, **BUDGET)
        absum_jax.low_pass_accuracy(model, X, Y, 1.0)

    evaluate(0)
    traced_before = len(traces)
    assert traced_before > 0
    evaluate(1)
    # Not even for the shape of its logits.
    assert len(traces) == traced_before


class EquinoxModel(eqx.Module):
    """A dense layer after an activation, which is no array."""

    dense: eqx.nn.Linear
    activation: object = eqx.field(static=True)

    def __call__(self, x):
        return jax.vmap(self.dense)(self.activation(x.reshape(len(x), -1)))


class LinenModel(linen.Module):
    """Likewise."""

    activation: object

    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(self.activation(x.reshape(len(x), -1)))


class NnxModel(nnx.Module):
    """Likewise."""

    def __init__(self, activation, seed):
        self.dense = nnx.Linear(16, 3, rngs=nnx.Rngs(seed))
        self.activation = activation

    def __call__(self, x):
        return self.dense(self.activation(x.reshape(len(x), -1)))


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "partial": functools.partial(jax.nn.leaky_relu, negative_slope=0.1),
}
# Bound methods are equal only if they are of one object.
LINEN_MODELS = {
    activation: LinenModel(activation) for activation in ACTIVATIONS.values()
}


def _linen(activation, seed):
    model = LINEN_MODELS[activation]
    return Partial(model.apply, model.init(jax.random.key(seed), X))


FRAMEWORKS = {
    "equinox": lambda activation, seed: EquinoxModel(
        eqx.nn.Linear(16, 3, key=jax.random.key(seed)), activation
    ),
    "equinox, as a leaf": lambda activation, seed: eqx.nn.Sequential(
        [
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(16, 3, key=jax.random.key(seed)),
            eqx.nn.Lambda(activation),
        ]
    ),
    "linen": _linen,
    "nnx": NnxModel,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parameters_of_any_framework(framework, activation):
    def evaluate(seed):
        model = FRAMEWORKS[framework](ACTIVATIONS[activation], seed)
        if "leaf" in framework:
            model = Partial(call_each, model)
        return model, absum_jax.accuracy(model, X, Y)

    evaluate(0)
    jax.block_until_ready(evaluate(1))
    with counting() as before:
        FRAMEWORKS[framework](ACTIVATIONS[activation], 2)
    with counting() as compiled:
        model, result = evaluate(2)
    assert len(compiled) == len(before)
    assert result == np.mean(np.argmax(model(X), -1) == Y)


def call_each(model, x):
    return jax.vmap(model)(x)


def test_a_plain_function_is_attacked_anew():
    def model(x):
        return apply(weights(0), x)

    for _ in range(2):
        with counting() as compiled:
            absum_jax.pgd(model, X, Y, **BUDGET)
        assert compiled
