"""Sharded arrays: results keep the sharding of their inputs, and their values."""

import contextlib
import functools

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

import absum_jax

DEVICES = 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices"),
]


AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit


@pytest.fixture(params=[AUTO, EXPLICIT], ids=["auto", "explicit"])
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


KEY = jax.random.key(0)
PGD = {"key": KEY, "step_size": 0.02, "steps": 3}
IMAGE_SPECS = [P("data"), P(None, "data"), P()]


def sharded(mesh, spec=None):
    """Images and labels as they lie on the devices."""
    spec = P("data") if spec is None else spec
    x = jax.device_put(IMAGES, NamedSharding(mesh, spec))
    return x, jax.device_put(LABELS, NamedSharding(mesh, P(spec[0] if spec else None)))


# Programs for several devices compile slowly: from here on any two values meet, but
# not all of three.
PGD_OPTIONS = {
    "scalar": {"eps": 0.1},
    "list": {"eps": [0.1, 0.3], "restarts": 2, "early_stop": True},
}


@pytest.mark.parametrize(
    ("mesh", "spec", "options"),
    [
        (AUTO, P("data"), "scalar"),
        (AUTO, P(None, "data"), "list"),
        (AUTO, P(), "scalar"),
        (EXPLICIT, P("data"), "list"),
        (EXPLICIT, P(None, "data"), "scalar"),
        (EXPLICIT, P(), "list"),
    ],
    indirect=["mesh"],
    ids=str,
)
def test_pgd_keeps_the_sharding(mesh, spec, options):
    x, y = sharded(mesh, spec)
    options = PGD_OPTIONS[options]
    result = absum_jax.pgd(MODEL, x, y, **PGD, **options)
    # The axis of eps is on no device axis.
    leading = () if result.ndim == 4 else (None,)
    expected = NamedSharding(mesh, P(*leading, *spec))
    assert result.sharding.is_equivalent_to(expected, result.ndim)
    unsharded = absum_jax.pgd(MODEL, IMAGES, LABELS, **PGD, **options)
    np.testing.assert_allclose(result, unsharded, atol=1e-6)


def test_fgsm_keeps_the_sharding(mesh):
    x, _ = sharded(mesh)
    result = absum_jax.fgsm(MODEL, x, LABELS, eps=0.1)
    assert result.sharding.is_equivalent_to(x.sharding, 4)
    unsharded = absum_jax.fgsm(MODEL, IMAGES, LABELS, eps=0.1)
    np.testing.assert_array_equal(result, unsharded)


def test_pgd_with_a_sharded_key_for_each_image(mesh):
    x, y = sharded(mesh)
    keys = jax.random.split(KEY, 32)
    options = PGD | {"eps": 0.1}
    expected = absum_jax.pgd(MODEL, IMAGES, LABELS, **options | {"key": keys})
    keys = jax.device_put(keys, y.sharding)
    result = absum_jax.pgd(MODEL, x, y, **options | {"key": keys})
    assert result.sharding.is_equivalent_to(x.sharding, 4)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def auto_attack(x, y, batch_size):
    return absum_jax.auto_attack(
        MODEL, x, y, key=KEY, eps=[0.02, 0.1], batch_size=batch_size, steps=3,
        queries=5, components=("apgd-ce", "fab-t", "square"),
    )  # fmt: skip


@functools.cache
def one_by_one():
    """What AutoAttack returns on one device, from one small program for each attack."""
    return auto_attack(IMAGES, LABELS, 1)


# These compile the longest: each value once.
@pytest.mark.parametrize(
    ("mesh", "masked"),
    [(AUTO, True), (EXPLICIT, False)],
    indirect=["mesh"],
    ids=str,
)
def test_autoattack_keeps_the_sharding(mesh, masked):
    x, y = sharded(mesh)

    attack = functools.partial(auto_attack, batch_size=9)
    result = (jax.jit(attack) if masked else attack)(x, y)
    expected = one_by_one()
    assert result.images.sharding.spec[:2] == (None, "data")
    np.testing.assert_allclose(result.images, expected.images, atol=1e-5)
    np.testing.assert_array_equal(result.broken_by, expected.broken_by)


def on_mesh(mesh, value):
    return jax.device_put(value, NamedSharding(mesh, P()))


@pytest.mark.parametrize(
    ("mesh", "batch_size", "transfer"),
    [
        (AUTO, 16, False),
        (AUTO, 500, True),
        (EXPLICIT, 16, True),
        (EXPLICIT, 500, False),
    ],
    indirect=["mesh"],
    ids=str,
)
def test_sharded_images_under_pgd(mesh, batch_size, transfer):
    x, y = sharded(mesh)
    weights = on_mesh(mesh, WEIGHTS)
    options = PGD | {"eps": [0.01, 0.1], "batch_size": batch_size}
    substitute = Partial(MODEL.func, weights + 0.5) if transfer else None
    result = absum_jax.pgd_accuracy(
        Partial(MODEL.func, weights), x, y, **options, substitute=substitute
    )
    substitute = Partial(MODEL.func, WEIGHTS + 0.5) if transfer else None
    expected = absum_jax.pgd_accuracy(
        MODEL, IMAGES, LABELS, **options, substitute=substitute
    )
    assert len(set(map(float, expected.accuracy))) > 1
    np.testing.assert_array_equal(result.accuracy, expected.accuracy)


@pytest.mark.parametrize(
    ("mesh", "band", "batch_size"),
    [
        (AUTO, "low", 16),
        (AUTO, "high", 500),
        (EXPLICIT, "low", 500),
        (EXPLICIT, "high", 16),
    ],
    indirect=["mesh"],
    ids=str,
)
def test_sharded_images_without_some_frequencies(mesh, band, batch_size):
    function = getattr(absum_jax, f"{band}_pass_accuracy")
    x, y = sharded(mesh)
    radii = np.float32([0, 1, 2])
    result = function(MODEL, x, y, on_mesh(mesh, radii), batch_size=batch_size)
    expected = function(MODEL, IMAGES, LABELS, radii)
    assert len(set(map(float, expected.accuracy))) > 1
    np.testing.assert_array_equal(result.accuracy, expected.accuracy)


def test_sharded_images_under_fourier_noise(mesh):
    x, y = sharded(mesh)
    options = {"key": KEY, "frequencies": [(0, 1), (2, 3), (3, 0)]}
    result = absum_jax.fourier_noise_accuracy(
        MODEL, x, y, 1.0, **options, batch_size=16
    )
    expected = absum_jax.fourier_noise_accuracy(MODEL, IMAGES, LABELS, 1.0, **options)
    assert np.ptp(expected.accuracy) > 0
    np.testing.assert_array_equal(result.accuracy, expected.accuracy)


@pytest.mark.parametrize(
    ("mesh", "band", "spec"),
    [
        (AUTO, "low", P("data")),
        (AUTO, "high", P(None, "data")),
        (AUTO, "low", P()),
        (EXPLICIT, "high", P("data")),
        (EXPLICIT, "low", P(None, "data")),
        (EXPLICIT, "high", P()),
    ],
    indirect=["mesh"],
    ids=str,
)
def test_filters_keep_the_sharding(mesh, band, spec):
    function = getattr(absum_jax, f"{band}_pass")
    sharding = NamedSharding(mesh, spec)
    result = function(jax.device_put(IMAGES, sharding), 1)
    assert result.sharding.is_equivalent_to(sharding, 4)
    np.testing.assert_allclose(result, function(IMAGES, 1), atol=1e-6)


def test_a_radius_on_the_mesh(mesh):
    x, _ = sharded(mesh)
    expected = absum_jax.low_pass(IMAGES, 1)
    result = absum_jax.low_pass(x, on_mesh(mesh, np.float32(1)))
    np.testing.assert_allclose(result, expected, atol=1e-6)
    # As is one that a program computes from such arrays.
    jitted = jax.jit(lambda x: absum_jax.low_pass(x, 0 * x.max() + 1))(x)
    np.testing.assert_allclose(jitted, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mesh", "kind", "spec"),
    [
        (AUTO, "shot_noise", P(None, "data")),
        (AUTO, "gaussian_blur", P("data")),
        (EXPLICIT, "impulse_noise", P("data")),
        (EXPLICIT, "gaussian_blur", P(None, "data")),
        (EXPLICIT, "contrast", P()),
    ],
    indirect=["mesh"],
    ids=str,
)
def test_corruptions_keep_the_sharding(mesh, kind, spec):
    sharding = NamedSharding(mesh, spec)
    x = jax.device_put(IMAGES, sharding)
    result = absum_jax.corrupt(x, kind, 5, key=KEY)
    assert result.sharding.is_equivalent_to(sharding, 4)
    expected = absum_jax.corrupt(IMAGES, kind, 5, key=KEY)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_sharded_corruptions_and_sensitivity(mesh):
    x, y = sharded(mesh)
    evaluate = functools.partial(absum_jax.corruption_accuracy, MODEL, key=KEY)
    result = evaluate(x, y, "impulse_noise", benchmark="mnist-c", batch_size=16)
    expected = evaluate(IMAGES, LABELS, "impulse_noise", benchmark="mnist-c")
    np.testing.assert_array_equal(result.accuracy, expected.accuracy)
    sensitivity = absum_jax.fourier_sensitivity(MODEL, x, y, batch_size=16)
    expected = absum_jax.fourier_sensitivity(MODEL, IMAGES, LABELS)
    np.testing.assert_allclose(sensitivity, expected, rtol=1e-5)


@pytest.mark.parametrize("spec", IMAGE_SPECS, ids=str)
def test_power_spectrum_of_sharded_images(mesh, spec):
    x, _ = sharded(mesh, spec)
    result = absum_jax.power_spectrum(x)
    np.testing.assert_allclose(result, absum_jax.power_spectrum(IMAGES), atol=1e-6)


_GEOMETRIES = {"conv1": (3, 3, 4, 4), "conv2": (3, 3, 4, 8), "conv3": (3, 3, 4, 4)}
_BOUNDED = {
    "constraint": functools.partial(absum_jax.spectral_norm_constraint, every=1),
    "normalization": absum_jax.spectral_normalization,
}


@pytest.mark.parametrize(
    ("mesh", "name", "is_set"),
    [
        (AUTO, "constraint", False),
        (AUTO, "normalization", True),
        (EXPLICIT, "constraint", True),
        (EXPLICIT, "normalization", False),
    ],
    indirect=["mesh"],
    ids=str,
)
def test_spectral_norms_of_several_geometries(mesh, name, is_set):
    """Of kernels that are divided in different ways, and their updates alike."""
    rng = np.random.default_rng(0)
    params = {
        layer: {"kernel": rng.normal(size=shape).astype(np.float32)}
        for layer, shape in _GEOMETRIES.items()
    }
    tx = _BOUNDED[name](0.5, {f"{layer}/kernel": (4, 4) for layer in params})
    zeros = jax.tree.map(np.zeros_like, params)
    expected, _ = tx.update(zeros, tx.init(params), params)
    specs = {"conv1": P(None, None, None, "data"), "conv2": P(), "conv3": P()}
    divided, zeros = (
        {
            layer: jax.device_put(kernel, NamedSharding(mesh, specs[layer]))
            for layer, kernel in tree.items()
        }
        for tree in (params, zeros)
    )
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        found, _ = jax.jit(tx.update)(zeros, tx.init(divided), divided)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6), found, expected
    )
