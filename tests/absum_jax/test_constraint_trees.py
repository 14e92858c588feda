"""What test_constraints.py leaves open: trees with None, state, types, sharding."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import absum_jax
from absum_jax import ConvUse

SHAPES = {"conv/kernel": (4, 4)}


def kernel(seed=0, shape=(3, 3, 1, 2)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARAMS = {"conv": {"kernel": kernel()}}
ZEROS = jax.tree.map(np.zeros_like, PARAMS)


def norm(k, size=(4, 4)):
    blocks = np.fft.fft2(np.asarray(k, np.float64), size, axes=(0, 1))
    return np.linalg.norm(blocks, 2, axis=(-2, -1)).max()


FACTORIES = {
    # Of the methods the one that compiles the fastest.
    "clip": functools.partial(
        absum_jax.spectral_norm_constraint, every=1, rescale=True, method="svd"
    ),
    "rescale": absum_jax.spectral_normalization,
}
battery = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


@functools.partial(jax.jit, static_argnums=0)
def moved_by(factory, bound, updates, params):
    """The updates of kernels (4, 4): one program of a factory for all bounds."""
    tx = factory(bound, SHAPES)
    return tx.update(updates, tx.init(params), params)[0]["conv"]["kernel"]


# A None before a kernel must not shift the places of those after it.
NONES = {
    "a": None,
    "conv1": {"bias": None, "kernel": kernel(0)},
    "conv2": {"kernel": kernel(1), "scale": None},
}
NONE_SHAPES = {"conv1/kernel": (4, 4), "conv2/kernel": (4, 4)}


@battery
@pytest.mark.parametrize("mask", [None, {"a": None, "conv1": True, "conv2": True}])
def test_none_leaves_of_params(factory, mask):
    tx = factory(0.5, NONE_SHAPES, mask=mask)
    zeros = jax.tree.map(np.zeros_like, NONES)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(NONES), NONES)
    assert updates["a"] is None
    assert updates["conv1"]["bias"] is None
    after = optax.apply_updates(NONES, updates)
    for name in ("conv1", "conv2"):
        np.testing.assert_allclose(norm(after[name]["kernel"]), 0.5, rtol=1e-5)


def test_none_leaves_of_params_applied_once():
    after = absum_jax.apply_spectral_normalization(NONES, 0.5, NONE_SHAPES)
    assert after["a"] is None
    for name in ("conv1", "conv2"):
        np.testing.assert_allclose(norm(after[name]["kernel"]), 0.5, rtol=1e-5)


class Two(eqx.Module):
    """A function and absent biases come before the second kernel."""

    activation: object
    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d

    def __init__(self):
        options = {"kernel_size": 3, "padding": 1, "use_bias": False}
        keys = jax.random.split(jax.random.key(0))
        self.activation = jax.nn.relu
        self.first = eqx.nn.Conv2d(1, 2, **options, key=keys[0])
        self.second = eqx.nn.Conv2d(2, 1, **options, key=keys[1])

    def __call__(self, x):
        return self.second(self.activation(self.first(x)))


def test_equinox_without_biases():
    params, static = eqx.partition(Two(), eqx.is_inexact_array)
    uses = absum_jax.conv_input_shapes(
        lambda p, x: jax.vmap(eqx.combine(p, static))(x),
        params,
        jax.ShapeDtypeStruct((1, 1, 4, 4), jnp.float32),
    )
    tx = absum_jax.spectral_normalization(0.1, uses)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params)
    after = eqx.apply_updates(params, updates)
    for layer in (after.first, after.second):
        np.testing.assert_allclose(
            norm(layer.weight.transpose(2, 3, 1, 0)), 0.1, rtol=1e-5
        )


@battery
def test_updates_of_none_pass(factory):
    params = {"conv": {"kernel": kernel()}, "other": {"kernel": kernel(1)}}
    shapes = {"conv/kernel": (4, 4), "other/kernel": (4, 4)}
    tx = factory(0.5, shapes)
    updates, _ = jax.jit(tx.update)(
        {"conv": {"kernel": None}, "other": {"kernel": np.zeros_like(kernel())}},
        tx.init(params),
        params,
    )
    assert updates["conv"]["kernel"] is None
    after = params["other"]["kernel"] + updates["other"]["kernel"]
    np.testing.assert_allclose(norm(after), 0.5, rtol=1e-5)


@battery
def test_negative_zeros_pass_to_the_bit(factory):
    # What SGD makes of a gradient of zero.
    update = {"conv": {"kernel": -np.zeros_like(kernel())}}
    assert np.signbit(moved_by(factory, 100.0, update, PARAMS)).all()


@battery
def test_an_infinite_bound_is_none(factory):
    np.testing.assert_array_equal(moved_by(factory, np.inf, ZEROS, PARAMS), 0)


@battery
def test_zero_kernels_stay(factory):
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    np.testing.assert_array_equal(moved_by(factory, 1.0, ZEROS, zeros), 0)


@pytest.mark.parametrize(
    "shapes",
    [{"conv/kernel": wrong} for wrong in (4, None, "44", (4.0, 4.0), [(4, 4)])]
    + [None, 4],
    ids=str,
)
def test_wrong_input_shapes_are_named(shapes):
    with pytest.raises(ValueError, match="`input_shapes`"):
        absum_jax.spectral_norm_constraint(1.0, shapes).init(PARAMS)


@battery
def test_missing_params_are_named(factory):
    tx = factory(1.0, SHAPES)
    with pytest.raises(ValueError, match=r"`params` must be .*, got None: call `upd"):
        tx.update(ZEROS, tx.init(PARAMS))


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (kernel().astype(int), "`conv/kernel` must have a real floating-point dtype"),
        (kernel()[0, 0], "`kernel` must have the axes"),
    ],
)
def test_unfit_leaves_are_named(leaf, message):
    tx = absum_jax.spectral_normalization(1.0, SHAPES)
    with pytest.raises(ValueError, match=message) as error:
        tx.init({"conv": {"kernel": leaf}})
    assert "conv/kernel" in str(error.value)


def test_inject_hyperparams_of_the_transformation_itself():
    # every and projections are integers, which optax would make into arrays.
    tx = optax.inject_hyperparams(
        absum_jax.spectral_norm_constraint,
        static_args=("input_shapes", "every", "projections", "method"),
    )(max_norm=2.0, input_shapes=SHAPES, every=1, method="eigh", rescale=True)
    state = tx.init(PARAMS)
    state.hyperparams["max_norm"] = jnp.asarray(0.5)
    moved, _ = jax.jit(tx.update)(ZEROS, state, PARAMS)
    after = kernel() + moved["conv"]["kernel"]
    np.testing.assert_allclose(norm(after), 0.5, rtol=1e-5)


def test_state_is_a_pytree_of_one_count_and_may_be_donated():
    tx = absum_jax.spectral_normalization(0.5, SHAPES, every=2)
    state = tx.init(PARAMS)
    assert isinstance(state, absum_jax.SpectralNormState)
    leaves, structure = jax.tree.flatten(state)
    assert [leaf.dtype for leaf in leaves] == [jnp.int32]
    restored = jax.tree.unflatten(structure, [np.asarray(leaf) for leaf in leaves])
    step = jax.jit(tx.update, donate_argnums=(0, 1))
    updates = jax.tree.map(jnp.asarray, ZEROS)
    updates, after = step(updates, jax.tree.map(jnp.asarray, restored), PARAMS)
    updates, after = step(updates, after, PARAMS)
    assert after.count == 2
    new = kernel() + updates["conv"]["kernel"]
    np.testing.assert_allclose(norm(new), 0.5, rtol=1e-5)


def test_bounds_under_vmap_with_one_count():
    def update(bound, state):
        tx = absum_jax.spectral_normalization(bound, SHAPES, every=2)
        return tx.update(ZEROS, state, PARAMS)

    bounds = jnp.array([0.5, 1.0, 100.0])
    sweep = jax.vmap(update, in_axes=(0, None), out_axes=(0, None))
    state = absum_jax.SpectralNormState(jnp.ones((), jnp.int32))
    assert " cond[" in str(jax.make_jaxpr(sweep)(bounds, state))
    moved, _ = jax.jit(sweep)(bounds, state)
    norms = [norm(kernel() + m) for m in moved["conv"]["kernel"]]
    np.testing.assert_allclose(norms, [0.5, 1.0, norm(kernel())], rtol=1e-5)


def test_leaves_of_other_dtypes_are_batches_of_their_own():
    params = {
        "a": {"kernel": jnp.asarray(kernel(0), jnp.bfloat16)},
        "b": {"kernel": jnp.asarray(kernel(1))},
    }
    shapes = {"a/kernel": (4, 4), "b/kernel": (4, 4)}
    after = absum_jax.apply_spectral_normalization(params, 0.5, shapes)
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [
        jnp.bfloat16,
        jnp.float32,
    ]
    np.testing.assert_allclose(norm(after["a"]["kernel"]), 0.5, rtol=1e-2)
    np.testing.assert_allclose(norm(after["b"]["kernel"]), 0.5, rtol=1e-5)


def test_wide_updates_of_bfloat16_params_keep_their_dtype():
    params = {"conv": {"kernel": jnp.asarray(kernel(), jnp.bfloat16)}}
    tx = absum_jax.spectral_normalization(0.5, SHAPES)
    moved, _ = tx.update(ZEROS, tx.init(params), params)
    assert moved["conv"]["kernel"].dtype == jnp.float32
    new = params["conv"]["kernel"].astype(jnp.float32) + moved["conv"]["kernel"]
    np.testing.assert_allclose(norm(new), 0.5, rtol=1e-5)


@pytest.mark.skipif(jax.device_count() < 4, reason="needs 4 devices")
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_sharded_kernels_keep_their_sharding(axis_type):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    sharding = NamedSharding(mesh, P(None, None, None, "data"))
    whole = kernel(shape=(3, 3, 2, 4))
    params = {"conv": {"kernel": jax.device_put(whole, sharding)}}
    tx = absum_jax.spectral_normalization(0.5, SHAPES)

    @jax.jit
    def step(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        moved, _ = tx.update(zeros, tx.init(params), params)
        return optax.apply_updates(params, moved)

    after = step(params)["conv"]["kernel"]
    assert after.sharding.is_equivalent_to(sharding, 4)
    np.testing.assert_allclose(after, 0.5 * whole / norm(whole), atol=1e-6)


def test_masked_and_labelled_chains():
    params = {"conv": {"kernel": kernel(0)}, "other": {"kernel": kernel(1)}}
    zeros = jax.tree.map(np.zeros_like, params)
    only = {"conv": True, "other": False}
    inner = absum_jax.spectral_normalization(0.5, SHAPES)
    for tx in (
        optax.masked(inner, only),
        optax.partition({True: inner, False: optax.identity()}, only),
    ):
        moved, _ = tx.update(zeros, tx.init(params), params)
        np.testing.assert_array_equal(moved["other"]["kernel"], 0)
        new = params["conv"]["kernel"] + moved["conv"]["kernel"]
        np.testing.assert_allclose(norm(new), 0.5, rtol=1e-5)


def test_layers_that_differ_in_geometry_alone():
    use = ConvUse((4, 4), (2, 2), (2, 2), (), (1, 1), 1, (0, 1, 2, 3))
    params = {"a": {"kernel": kernel(0)}, "b": {"kernel": kernel(1)}}
    shapes = {"a/kernel": (use,), "b/kernel": (4, 4)}
    after = absum_jax.apply_spectral_normalization(params, 0.5, shapes)
    strided = absum_jax.conv_singular_values(after["a"]["kernel"], (4, 4), strides=2)
    np.testing.assert_allclose(strided.max(), 0.5, rtol=1e-5)
    np.testing.assert_allclose(norm(after["b"]["kernel"]), 0.5, rtol=1e-5)
