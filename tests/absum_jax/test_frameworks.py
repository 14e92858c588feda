"""Training steps on the parameter trees of flax nnx and linen, haiku and equinox."""

import functools

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import absum_jax

LEARNING_RATE = 0.5
STRENGTH = 0.25
IMAGES = np.random.default_rng(0).uniform(size=(2, 4, 4, 1)).astype(np.float32)


def prox(kernel, axes):
    """Eq. 13 in float64."""
    kernel = np.asarray(kernel, np.float64)
    threshold = LEARNING_RATE * STRENGTH
    mean = kernel.mean(axis=axes, keepdims=True)
    return kernel - np.sign(mean) * np.minimum(abs(mean), threshold)


def sgd_with_absum(**options):
    return optax.chain(
        optax.sgd(LEARNING_RATE),
        absum_jax.absum(STRENGTH, learning_rate=LEARNING_RATE, **options),
    )


def assert_one_step(before, grads, after, conv, axes=(0, 1)):
    """The leaves whose path contains `conv` take a proximal step, others plain SGD."""
    paths = [
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(before)
    ]
    assert sum(conv in path for path in paths) == 1
    trees = zip(
        paths, *(jax.tree.leaves(tree) for tree in (before, grads, after)), strict=True
    )
    for path, p, g, result in trees:
        expected = np.asarray(p, np.float64) - LEARNING_RATE * np.asarray(g, np.float64)
        if conv in path:
            shrunk = prox(expected, axes)
            assert abs(shrunk - expected).max() > 1e-3
            expected = shrunk
        np.testing.assert_allclose(result, expected, atol=1e-6, err_msg=path)


def transformation_step(tx, params, loss):
    grads = jax.grad(loss)(params)
    updates, _ = tx.update(grads, tx.init(params), params)
    return grads, optax.apply_updates(params, updates)


class NnxModel(nnx.Module):
    """One convolution, a norm and a head."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(2, use_running_average=True, rngs=rngs)
        self.head = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(self.conv(x)).mean((1, 2)))


def nnx_loss(model):
    return (model(IMAGES) ** 2).sum()


@pytest.mark.parametrize("jit", [nnx.jit, lambda step: step], ids=["jit", "eager"])
def test_nnx_optimizer(jit):
    model = NnxModel(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, sgd_with_absum(), wrt=nnx.Param)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))

    @jit
    def step(model, optimizer):
        grads = nnx.grad(nnx_loss)(model)
        optimizer.update(model, grads)
        return grads

    grads = nnx.to_pure_dict(step(model, optimizer))
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert_one_step(before, grads, after, "['conv']['kernel']")


@pytest.mark.parametrize("pure", [False, True])
def test_nnx_state(pure):
    graph, params, rest = nnx.split(NnxModel(nnx.Rngs(0)), nnx.Param, ...)
    params = nnx.as_pure(params) if pure else params
    loss = jax.jit(lambda params: nnx_loss(nnx.merge(graph, params, rest)))
    grads, after = transformation_step(sgd_with_absum(), params, loss)
    assert jax.tree.structure(after) == jax.tree.structure(params)
    assert_one_step(params, grads, after, "['conv']['kernel']")


def test_nnx_state_with_apply_proximal_updates():
    params = nnx.state(NnxModel(nnx.Rngs(0)), nnx.Param)
    updates = jax.tree.map(lambda p: -LEARNING_RATE * p, params)
    after = absum_jax.apply_proximal_updates(
        params, updates, absum_jax.prox_absum, LEARNING_RATE * STRENGTH
    )
    assert_one_step(params, params, after, "['conv']['kernel']")


class LinenModel(linen.Module):
    """One convolution and a head."""

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(2, (3, 3))(x)
        return linen.Dense(3)(x.mean((1, 2)))


def test_linen_params():
    model = LinenModel()
    params = jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]
    grads, after = transformation_step(
        sgd_with_absum(),
        params,
        jax.jit(lambda params: (model.apply({"params": params}, IMAGES) ** 2).sum()),
    )
    assert_one_step(params, grads, after, "['Conv_0']['kernel']")


def test_haiku_params():
    def forward(x):
        return hk.Linear(3)(hk.Conv2D(2, 3)(x).mean((1, 2)))

    model = hk.without_apply_rng(hk.transform(forward))
    params = jax.jit(model.init)(jax.random.key(0), IMAGES)
    grads, after = transformation_step(
        sgd_with_absum(),
        params,
        jax.jit(lambda params: (model.apply(params, IMAGES) ** 2).sum()),
    )
    assert_one_step(params, grads, after, "['conv2_d']['w']")


class EquinoxModel(eqx.Module):
    """One convolution and a head, and a function among the leaves."""

    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear
    activation: object

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(1, 2, 3, key=key)
        self.head = eqx.nn.Linear(2, 3, key=key)
        self.activation = jax.nn.relu

    def __call__(self, x):
        x = self.activation(self.conv(jnp.moveaxis(x, -1, 0)))
        return self.head(x.mean((1, 2)))


def test_equinox_with_oihw_kernels_and_none_leaves():
    model = EquinoxModel(jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    tx = sgd_with_absum(spatial_axes=(2, 3))

    @jax.jit
    def step(params):
        def loss(params):
            return (jax.vmap(eqx.combine(params, static))(IMAGES) ** 2).sum()

        grads = eqx.filter_grad(loss)(params)
        updates, _ = tx.update(grads, tx.init(params), params)
        return grads, eqx.apply_updates(params, updates)

    grads, after = step(params)
    assert_one_step(params, grads, after, ".conv.weight", axes=(2, 3))


def equinox_params():
    return eqx.partition(EquinoxModel(jax.random.key(0)), eqx.is_inexact_array)[0]


WITHOUT_AXES = {
    "absum": lambda params: sgd_with_absum().init(params),
    "absum without init": lambda params: absum_jax.absum(
        STRENGTH, learning_rate=LEARNING_RATE, mask=absum_jax.conv_kernels
    ).update(params, optax.MaskedState(optax.EmptyState()), params),
    "proximal": lambda params: absum_jax.proximal(
        jax.tree_util.Partial(absum_jax.prox_absum),
        STRENGTH,
        learning_rate=LEARNING_RATE,
        mask=absum_jax.conv_kernels,
    ).init(params),
    "apply_proximal_updates": lambda params: absum_jax.apply_proximal_updates(
        params, params, absum_jax.prox_absum, 0.1
    ),
    "apply_proximal_updates of a compiled operator": lambda params: (
        absum_jax.apply_proximal_updates(
            params, params, jax.jit(absum_jax.prox_absum), 0.1
        )
    ),
}


@pytest.mark.parametrize("name", WITHOUT_AXES)
def test_the_layout_of_a_leaf_named_weight_must_be_told(name):
    message = r"^`spatial_axes` must be given for `conv/weight`.*\(2, 3\).*\(0, 1\)"
    with pytest.raises(ValueError, match=message):
        WITHOUT_AXES[name](equinox_params())


def test_the_layout_of_a_leaf_of_other_ranks():
    with pytest.raises(ValueError, match=r"`conv/weight`.*\(2,\).*\(0,\)"):
        sgd_with_absum().init({"conv": {"weight": np.ones((3, 2, 2), np.float32)}})
    with pytest.raises(ValueError, match=r"`weight`.*\(2, 3, 4\).*\(0, 1, 2\)"):
        sgd_with_absum().init({"weight": np.ones((3, 3, 3, 2, 2), np.float32)})


@pytest.mark.parametrize("axes", [(2, 3), (0, 1), (-2, -1)])
def test_either_layout_of_a_leaf_named_weight(axes):
    params = {"conv": {"weight": np.ones((3, 3, 3, 3), np.float32)}}
    updates = jax.tree.map(jnp.zeros_like, params)
    apply = absum_jax.apply_proximal_updates
    prox_with_axes = functools.partial(absum_jax.prox_absum, spatial_axes=axes)
    after = apply(params, updates, jax.jit(prox_with_axes), 0.1)
    expected = absum_jax.prox_absum(params["conv"]["weight"], 0.1, spatial_axes=axes)
    np.testing.assert_array_equal(after["conv"]["weight"], expected)
    tx = absum_jax.absum(1.0, learning_rate=0.1, spatial_axes=axes)
    moved, _ = tx.update(updates, tx.init(params), params)
    np.testing.assert_allclose(1 + moved["conv"]["weight"], expected, rtol=1e-6)

    @functools.wraps(absum_jax.prox_absum)
    def own(kernel, threshold):
        return prox_with_axes(kernel, threshold)

    again = apply(params, updates, own, 0.1)
    np.testing.assert_array_equal(again["conv"]["weight"], expected)
    # The layout does not matter to an operator of each coefficient.
    apply(params, updates, absum_jax.prox_l1, 0.1)


@pytest.mark.parametrize(
    "tx",
    [absum_jax.spectral_norm_constraint, absum_jax.spectral_normalization],
)
def test_sizes_do_not_tell_the_layout_of_a_leaf_named_weight(tx):
    params = {"conv": {"weight": np.ones((5, 1, 3, 3), np.float32)}}
    message = r"^`input_shapes` must hold `ConvUse`s with `kernel_axes`.*`conv/weight`"
    with pytest.raises(ValueError, match=message):
        tx(1.0, {"conv/weight": (8, 8)}).init(params)

    def fn(params, x):
        return jax.lax.conv(x, params["conv"]["weight"], (1, 1), "SAME")

    uses = absum_jax.conv_input_shapes(fn, params, np.ones((1, 1, 8, 8), np.float32))
    tx(1.0, uses).init(params)
