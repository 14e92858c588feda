"""Sharded arrays: results keep the sharding of their inputs, and their values."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

import absum_jax

DEVICES = 4

pytestmark = pytest.mark.skipif(
    jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices"
)


@pytest.fixture(params=[AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def mesh(request):
    devices = jax.devices()[:DEVICES]
    return jax.make_mesh(
        (DEVICES,), ("data",), axis_types=(request.param,), devices=devices
    )


SPECS = [P(None, None, None, "data"), P("data"), P()]
KERNEL = np.random.default_rng(0).normal(size=(4, 3, 4, 8)).astype(np.float32)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("prox", [absum_jax.prox_absum, absum_jax.prox_l1])
def test_prox_keeps_the_sharding(mesh, prox, spec):
    sharding = NamedSharding(mesh, spec)
    result = prox(jax.device_put(KERNEL, sharding), 0.2)
    assert result.sharding.is_equivalent_to(sharding, 4)
    np.testing.assert_allclose(result, prox(KERNEL, 0.2), atol=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("factory", [absum_jax.absum, absum_jax.l1])
def test_training_step_keeps_the_sharding(mesh, factory, spec):
    tx = optax.chain(optax.sgd(0.5, momentum=0.5), factory(0.8, learning_rate=0.5))

    @jax.jit
    def step(params):
        updates, state = tx.update(params, tx.init(params), params)
        return optax.apply_updates(params, updates), updates, state

    sharding = NamedSharding(mesh, spec)
    results = step({"conv": {"kernel": jax.device_put(KERNEL, sharding)}})
    expected = step({"conv": {"kernel": KERNEL}})
    for result, unsharded in zip(
        jax.tree.leaves(results), jax.tree.leaves(expected), strict=True
    ):
        assert result.sharding.is_equivalent_to(sharding, 4)
        np.testing.assert_allclose(result, unsharded, atol=1e-6)


RNG = np.random.default_rng(1)
IMAGES = RNG.uniform(size=(32, 4, 4, 1)).astype(np.float32)
LABELS = RNG.integers(0, 3, 32)
WEIGHTS = RNG.normal(size=(16, 3)).astype(np.float32)
CLEAN = np.float32(np.mean((IMAGES.reshape(32, -1) @ WEIGHTS).argmax(1) == LABELS))
MODEL = Partial(lambda weights, x: x.reshape(len(x), -1) @ weights, WEIGHTS)


@pytest.mark.parametrize(
    ("shard_labels", "batch_size"), [(True, 16), (False, 16), (True, 500)]
)
def test_sharded_images_give_the_same_accuracy(mesh, shard_labels, batch_size):
    sharding = NamedSharding(mesh, P("data"))
    x = jax.device_put(IMAGES, sharding)
    y = jax.device_put(LABELS, sharding) if shard_labels else LABELS
    assert absum_jax.accuracy(MODEL, x, y, batch_size=batch_size) == CLEAN


@pytest.mark.parametrize("batch_size", [3, 31])
def test_batches_that_do_not_divide_sharded_images(batch_size):
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.device_put(IMAGES, NamedSharding(mesh, P("data")))
    assert absum_jax.accuracy(MODEL, x, LABELS, batch_size=batch_size) == CLEAN


def test_sharded_images_under_attack(mesh):
    sharding = NamedSharding(mesh, P("data"))
    data = jax.device_put(IMAGES, sharding), jax.device_put(LABELS, sharding)
    result = absum_jax.single_fourier_accuracy(MODEL, *data, 0.3, batch_size=16)
    expected = absum_jax.single_fourier_accuracy(MODEL, IMAGES, LABELS, 0.3)
    assert np.ptp(expected.accuracy) > 0
    np.testing.assert_array_equal(result.accuracy, expected.accuracy)


def test_attack_keeps_the_sharding(mesh):
    x = np.full((8, 4, 4, 3), 0.5, np.float32)
    sharding = NamedSharding(mesh, P("data"))
    result = absum_jax.single_fourier_attack(jax.device_put(x, sharding), 1, 2, 0.1)
    assert result.sharding.is_equivalent_to(sharding, 4)
    expected = absum_jax.single_fourier_attack(x, 1, 2, 0.1)
    np.testing.assert_allclose(result, expected, atol=1e-6)
