"""Every transformation inside optax's own tools: what wraps, inspects or freezes.

A wrapper that has nothing to change on the first step must give the update that the
transformation gives alone; those are compared with NumPy elsewhere.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import absum_jax

SHAPES = {"conv1/kernel": (4, 4), "conv2/kernel": (4, 4)}
LABELS = {"conv1": "train", "conv2": "frozen", "dense": "train"}
INPUT = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32)


def tree(seed):
    rng = np.random.default_rng(seed)
    shapes = {"conv1": (3, 3, 2, 2), "conv2": (3, 3, 2, 2), "dense": (2, 3)}
    return {
        module: {"kernel": rng.normal(size=shape).astype(np.float32)}
        for module, shape in shapes.items()
    }


PARAMS, GRADS = tree(0), tree(1)
SCALE = -0.1  # of the gradients, before the transformation
TRANSFORMATIONS = {
    "absum": functools.partial(absum_jax.absum, 0.3, learning_rate=0.5),
    "absum with a schedule": functools.partial(
        absum_jax.absum, 0.3, learning_rate=optax.constant_schedule(0.5)
    ),
    "l1": functools.partial(absum_jax.l1, 0.3, learning_rate=0.5),
    "proximal": functools.partial(
        absum_jax.proximal, absum_jax.prox_l1, 0.3, learning_rate=0.5
    ),
    "spectral_norm_constraint": functools.partial(
        absum_jax.spectral_norm_constraint, 0.5, SHAPES, every=1, method="svd"
    ),
    "spectral_normalization": functools.partial(
        absum_jax.spectral_normalization, 0.5, SHAPES
    ),
}
battery = pytest.mark.parametrize("name", TRANSFORMATIONS)
spectral = pytest.mark.parametrize("name", list(TRANSFORMATIONS)[-2:])


def chain(name):
    return optax.chain(optax.scale(SCALE), TRANSFORMATIONS[name]())


def always(step):
    return step >= 0


# From a transformation to one that is the same on the first step.
WRAPPERS = {
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "conditionally_mask": lambda tx: optax.conditionally_mask(tx, always),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, always),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(
        lambda scale: optax.chain(optax.scale(scale), tx)
    )(scale=1.0),
    "masked": lambda tx: optax.masked(tx, jax.tree.map(lambda _: True, PARAMS)),
    "multi_transform": lambda tx: optax.multi_transform({"all": tx}, "all"),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
    "named_chain": lambda tx: optax.named_chain(("inner", tx)),
    "partition": lambda tx: optax.partition({"all": tx}, lambda _: "all"),
    "selective_transform": lambda tx: optax.selective_transform(tx, freeze_mask=False),
    "split_real_and_imaginary": optax.contrib.split_real_and_imaginary,
    "with_extra_args_support": optax.with_extra_args_support,
}


def assert_same(updates, expected):
    """To rounding: a wrapper may compile the arithmetic."""
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6),
        updates,
        expected,
    )


@functools.cache
def alone(name):
    tx = chain(name)
    return tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]


@battery
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_change_nothing(wrapper, name):
    tx = WRAPPERS[wrapper](chain(name))
    state = tx.init(PARAMS)
    updates, after = tx.update(GRADS, state, PARAMS)
    assert_same(updates, alone(name))
    assert jax.tree.structure(after) == jax.tree.structure(state)


@battery
def test_lookahead_before_it_synchronizes(name):
    tx = optax.lookahead(chain(name), sync_period=2, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(PARAMS)
    updates, _ = tx.update(GRADS, tx.init(params), params)
    assert_same(updates.fast, alone(name))


@battery
@pytest.mark.parametrize(
    "wrap",
    [
        optax.contrib.mechanize,
        functools.partial(optax.contrib.schedule_free, learning_rate=1.0),
        lambda tx: optax.contrib.sam(tx, optax.sgd(0.1)),
    ],
    ids=["mechanize", "schedule_free", "sam"],
)
def test_wrappers_that_move_further(wrap, name):
    """These mix the updates with their own: the shapes are what can be compared."""
    tx = wrap(chain(name))
    state = tx.init(PARAMS)
    updates, _ = jax.eval_shape(tx.update, GRADS, state, PARAMS)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, PARAMS)


@pytest.mark.parametrize("name", ["absum", "l1"])
def test_flattened_parameters_have_no_kernels(name):
    with pytest.raises(ValueError, match="`mask` selects no leaf"):
        optax.flatten(chain(name)).init(PARAMS)


@battery
@pytest.mark.parametrize("wrapper", [w for w in WRAPPERS if "inject" not in w])
def test_abstract_parameters(wrapper, name):
    """All but `inject_hyperparams`, which reads values itself."""
    tx = WRAPPERS[wrapper](chain(name))
    abstract = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, PARAMS))
    found = jax.eval_shape(tx.init, abstract)
    assert jax.tree.map(jnp.shape, tx.init(abstract)) == jax.tree.map(jnp.shape, found)


class Net(nnx.Module):
    """Two convolutions."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(2, 2, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(2, 2, (3, 3), rngs=rngs)

    def __call__(self, x):
        return self.conv2(self.conv1(x))


@battery
def test_abstract_nnx_modules(name):
    tx = chain(name)
    abstract = nnx.state(nnx.eval_shape(lambda: Net(nnx.Rngs(0))), nnx.Param)
    concrete = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
    shapes = [jax.tree.map(jnp.shape, tx.init(each)) for each in (abstract, concrete)]
    assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1])


def test_abstract_kernels_are_checked():
    integers = {"conv": {"kernel": jax.ShapeDtypeStruct((3, 3, 1, 2), jnp.int32)}}
    for tx in (
        absum_jax.absum(1.0, learning_rate=1.0),
        absum_jax.spectral_normalization(1.0, {"conv/kernel": (4, 4)}),
    ):
        with pytest.raises(ValueError, match="floating-point dtype, got int32"):
            tx.init(integers)


@battery
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_map_params(wrapper, name):
    """Momentum is the one copy of the parameters in the state."""
    tx = WRAPPERS[wrapper](optax.chain(optax.trace(0.9), chain(name)))
    state = tx.init(PARAMS)
    mapped = optax.tree.map_params(
        tx, lambda leaf: "a copy", state, transform_non_params=lambda _: "no copy"
    )
    leaves = jax.tree.leaves(mapped)
    copies = 2 if wrapper == "MultiSteps" else 1  # it accumulates gradients
    assert leaves.count("a copy") == copies * len(jax.tree.leaves(PARAMS))
    assert len(leaves) == len(jax.tree.leaves(state))


# Frozen layers.

FREEZING = {
    "partition": lambda tx: optax.partition(
        {"train": tx, "frozen": optax.set_to_zero()}, LABELS
    ),
    "multi_transform": lambda tx: optax.multi_transform(
        {"train": tx, "frozen": optax.set_to_zero()},
        lambda params: jax.tree_util.tree_map_with_path(
            lambda path, _: LABELS[path[0].key], params
        ),
    ),
    "selective_transform": lambda tx: optax.selective_transform(
        tx, freeze_mask={"conv1": False, "conv2": {"kernel": True}, "dense": False}
    ),
    "freeze after": lambda tx: optax.chain(
        tx, optax.freeze({"conv1": False, "conv2": True, "dense": False})
    ),
}
freezing = pytest.mark.parametrize("freeze", FREEZING.values(), ids=FREEZING)


@battery
@freezing
def test_frozen_layers_stay_and_others_move_as_ever(freeze, name):
    tx = freeze(chain(name))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    expected = alone(name) | {"conv2": {"kernel": np.zeros((3, 3, 2, 2))}}
    np.testing.assert_array_equal(updates["conv2"]["kernel"], 0)
    assert_same(updates, expected)


@battery
def test_frozen_layers_move_by_what_follows_the_partition(name):
    tx = optax.chain(FREEZING["partition"](optax.scale(SCALE)), TRANSFORMATIONS[name]())
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert np.abs(updates["conv2"]["kernel"]).max() > 1e-3


@spectral
@freezing
def test_a_mask_of_kernels_passes_over_frozen_ones(freeze, name):
    masked = TRANSFORMATIONS[name](mask=absum_jax.conv_kernels)
    tx = freeze(optax.chain(optax.scale(SCALE), masked))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert_same(updates["conv1"], alone(name)["conv1"])
    np.testing.assert_array_equal(updates["conv2"]["kernel"], 0)


@spectral
@freezing
def test_uses_of_unknown_leaves_are_refused_beside_frozen_ones(freeze, name):
    factory = TRANSFORMATIONS[name]
    shapes = SHAPES | {"conv/kernel": (4, 4)}
    tx = freeze(factory.func(0.5, shapes, **factory.keywords))
    with pytest.raises(ValueError, match=r"`input_shapes` names conv/kernel, which"):
        tx.init(PARAMS)


@spectral
def test_frozen_layers_of_an_nnx_module(name):
    """The uses of the whole network serve the part that is trained."""
    net = Net(nnx.Rngs(0))
    graph, params = nnx.split(net, nnx.Param)
    uses = absum_jax.conv_input_shapes(
        lambda params, x: nnx.merge(graph, params)(x), params, INPUT
    )
    factory = TRANSFORMATIONS[name]
    labels = jax.tree_util.tree_map_with_path(
        lambda path, _: "frozen" if path[0].key == "conv2" else "train", params
    )
    tx = optax.partition(
        {
            "train": factory.func(0.5, uses, **factory.keywords),
            "frozen": optax.set_to_zero(),
        },
        labels,
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    assert np.abs(updates["conv1"]["kernel"][...]).max() > 1e-3
    np.testing.assert_array_equal(updates["conv2"]["kernel"][...], 0)


@spectral
def test_a_part_without_kernels_is_refused(name):
    factory = TRANSFORMATIONS[name]
    for labels in ({"conv1": 0, "conv2": 0, "dense": 1}, 0):
        tx = optax.partition({0: optax.identity(), 1: factory()}, labels)
        with pytest.raises(ValueError, match=r"selects no leaf .* `optax.partition`"):
            tx.init(PARAMS)
