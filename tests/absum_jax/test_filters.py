"""Low and high frequencies: filters, spectra and accuracies against numpy.fft."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import absum_jax

SHAPES = [(4, 4), (5, 5), (3, 8), (1, 7), (6, 1), (1, 1)]


def images(shape, count=2, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(count, *shape, channels)).astype(np.float32)


def squared_radii(shape):
    """l^2 + m^2 of each frequency, in integers."""
    l, m = ((np.arange(n) + n // 2) % n - n // 2 for n in shape)
    return l[:, None] ** 2 + m**2


def low_pass_in_numpy(x, squared_radius):
    """Eq. 18 by the full complex DFT and the full mask."""
    kept = squared_radii(x.shape[1:3]) <= squared_radius
    spectrum = np.fft.fft2(x.astype(np.float64), axes=(1, 2)) * kept[..., None]
    result = np.fft.ifft2(spectrum, axes=(1, 2))
    np.testing.assert_allclose(result.imag, 0, atol=1e-12)
    return result.real


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filters_on_every_ring_and_between(shape):
    x = images(shape)
    rings = np.unique(squared_radii(shape))
    for squared in {*rings, *(rings + 0.5), 1e6}:
        expected = low_pass_in_numpy(x, squared)
        low = absum_jax.low_pass(x, math.sqrt(squared))
        high = absum_jax.high_pass(x, math.sqrt(squared))
        np.testing.assert_allclose(low, expected, atol=1e-6)
        np.testing.assert_allclose(high, x - expected, atol=1e-6)
        np.testing.assert_allclose(low + high, x, atol=1e-6)
        for result in (low, high):
            assert result.shape == x.shape
            assert result.dtype == jnp.float32


@pytest.mark.parametrize("dtype", [float, np.float32, jnp.float32])
@pytest.mark.parametrize("shape", [(28, 28), (15, 32)], ids=str)
def test_a_radius_on_a_ring_includes_it(shape, dtype):
    impulse = np.zeros((*shape, 1), np.float32)
    impulse[0, 0] = 1
    rings = np.unique(squared_radii(shape))
    radii = [dtype(math.sqrt(squared)) for squared in rings]
    filtered = jax.vmap(functools.partial(absum_jax.low_pass, impulse))(
        jnp.stack(radii)
    )
    kept = np.fft.fft2(filtered[..., 0]).real
    expected = squared_radii(shape) <= rings[:, None, None]
    np.testing.assert_allclose(kept, expected, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bands_between_all_pairs_of_rings(shape):
    x = images(shape)
    rings = np.unique(squared_radii(shape))
    for inner, outer in itertools.combinations_with_replacement([*rings, 1e6], 2):
        radii = math.sqrt(inner), math.sqrt(outer)
        expected = low_pass_in_numpy(x, outer) - low_pass_in_numpy(x, inner)
        passed = absum_jax.band_pass(x, *radii)
        stopped = absum_jax.band_stop(x, *radii)
        np.testing.assert_allclose(passed, expected, atol=1e-6)
        np.testing.assert_allclose(stopped, x - expected, atol=1e-6)
        low, high = (
            filter_(x, radius)
            for filter_, radius in zip(
                (absum_jax.low_pass, absum_jax.high_pass), radii, strict=True
            )
        )
        np.testing.assert_allclose(low + passed + high, x, atol=2e-6)
        assert passed.shape == stopped.shape == x.shape
        assert passed.dtype == stopped.dtype == jnp.float32


@pytest.mark.parametrize("name", ["band_pass", "band_stop"])
def test_bands_that_are_no_bands(name):
    function = getattr(absum_jax, name)
    with pytest.raises(ValueError, match=r"^`low` must be at most `high`, got 2.* 1"):
        function(images((4, 4)), 2, 1)
    with pytest.raises(ValueError, match=r"^`low` must be non-negative, got -1"):
        function(images((4, 4)), -1, 1)
    with pytest.raises(ValueError, match=r"^`high` must be a real number, got None"):
        function(images((4, 4)), 1, None)


def test_radii_of_a_band_can_be_traced():
    x, radii = images((4, 5)), jnp.array([0.0, 1.0, 2.0, -1.0])
    over_low = jax.vmap(absum_jax.band_pass, in_axes=(None, 0, None))
    over_high = jax.vmap(absum_jax.band_stop, in_axes=(None, None, 0))
    passed, stopped = jax.jit(over_low)(x, radii, 2.0), jax.jit(over_high)(x, 0, radii)
    for i, squared in enumerate((0, 1, 4)):
        low = low_pass_in_numpy(x, squared)
        np.testing.assert_allclose(passed[i], low_pass_in_numpy(x, 4) - low, atol=1e-6)
        mean = low_pass_in_numpy(x, 0)
        np.testing.assert_allclose(stopped[i], x - low + mean, atol=1e-6)
    assert np.isnan(passed[3]).all()
    assert np.isnan(stopped[3]).all()


def test_radius_zero_keeps_the_mean():
    x = images((5, 6))
    mean = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(absum_jax.low_pass(x, 0), mean, atol=1e-6)
    high = absum_jax.high_pass(x, 0)
    np.testing.assert_allclose(high, x - mean, atol=1e-6)
    np.testing.assert_allclose(high.mean((1, 2)), 0, atol=1e-6)


@pytest.mark.parametrize("radius", [4.0, 100, np.inf])
def test_a_radius_beyond_the_corner_keeps_all(radius):
    x = images((4, 6))
    np.testing.assert_allclose(absum_jax.low_pass(x, radius), x, atol=1e-6)
    np.testing.assert_allclose(absum_jax.high_pass(x, radius), 0, atol=1e-6)


def test_results_are_not_clipped():
    x = np.zeros((1, 8, 8, 1), np.float32)
    x[0, 3:5, 3:5] = 1
    result = absum_jax.low_pass(x, 3)
    assert result.min() < -0.01


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (0,)], ids=str)
def test_any_leading_axes(leading):
    x = np.random.default_rng(0).uniform(size=(*leading, 4, 5, 2)).astype(np.float32)
    result = absum_jax.low_pass(x, 1.5)
    assert result.shape == x.shape
    flat = x.reshape(-1, 4, 5, 2)
    expected = low_pass_in_numpy(flat, 2.25).reshape(x.shape)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_filters_keep_the_dtype_and_compute_in_float32(dtype):
    x = jnp.asarray(images((6, 7)), dtype)
    exact = low_pass_in_numpy(np.asarray(x, np.float64), 4)
    low, high = absum_jax.low_pass(x, 2), absum_jax.high_pass(x, 2)
    assert low.dtype == high.dtype == dtype
    # Rounded once, at the end.
    rounding = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(low.astype(float), exact, rtol=rounding, atol=1e-6)
    exact = np.asarray(x, np.float64) - exact
    np.testing.assert_allclose(high.astype(float), exact, rtol=rounding, atol=1e-6)


def test_float64():
    x = np.random.default_rng(0).uniform(size=(2, 5, 6, 1))
    with jax.enable_x64(True):
        result = absum_jax.low_pass(x, math.sqrt(5))
        powers = absum_jax.power_spectrum(x)
    assert result.dtype == powers.dtype == np.float64
    np.testing.assert_allclose(result, low_pass_in_numpy(x, 5), atol=1e-14)
    np.testing.assert_allclose(powers, power_in_numpy(x), atol=1e-14)


def test_radius_and_images_can_be_traced():
    x, radii = images((4, 5)), jnp.array([0.0, 1.0, 2.0])
    over_radii = jax.vmap(absum_jax.high_pass, in_axes=(None, 0))
    result = jax.jit(over_radii)(x, radii)
    for filtered, radius in zip(result, (0, 1, 4), strict=True):
        expected = x - low_pass_in_numpy(x, radius)
        np.testing.assert_allclose(filtered, expected, atol=1e-6)


def test_filters_are_self_adjoint_projections():
    x, y = images((5, 6), count=1), images((5, 6), count=1, seed=1)
    low = functools.partial(absum_jax.low_pass, radius=1.5)
    np.testing.assert_allclose(low(low(x)), low(x), atol=1e-6)
    # The gradient of <y, low(x)> by x is low(y).
    gradient = jax.grad(lambda x: (y * low(x)).sum())(x)
    np.testing.assert_allclose(gradient, low(y), atol=1e-6)


def power_in_numpy(x):
    """The mean power by an explicit DFT matrix, at signed frequencies in order."""
    height, width = x.shape[1:3]

    def dft(size):
        frequencies = np.arange(size) - size // 2
        return np.exp(-2j * np.pi * np.outer(frequencies, np.arange(size)) / size)

    spectra = np.einsum(
        "lp,npqc,mq->nclm", dft(height), x.astype(np.float64), dft(width)
    )
    return (abs(spectra) ** 2).mean((0, 1)) / (height * width)


@pytest.mark.parametrize("shape", [*SHAPES, (2, 3)], ids=str)
def test_power_spectrum(shape):
    x = images(shape, seed=3) - 0.5
    result = absum_jax.power_spectrum(x)
    assert result.shape == shape
    np.testing.assert_allclose(result, power_in_numpy(x), rtol=1e-4, atol=1e-6)
    # Parseval: the mean squared norm of a channel.
    norms = (x.astype(np.float64) ** 2).sum((1, 2)).mean()
    np.testing.assert_allclose(result.sum(), norms, rtol=1e-5)
    flat = absum_jax.power_spectrum(np.ones_like(x))
    center = shape[0] // 2, shape[1] // 2
    expected = np.zeros(shape)
    expected[center] = np.prod(shape)
    np.testing.assert_allclose(flat, expected, atol=1e-5)


def test_power_spectrum_of_one_frequency():
    theta = absum_jax.single_fourier_perturbation(1, 2, (6, 7), 1.0, scale="l2")
    result = absum_jax.power_spectrum(theta[None, ..., None])
    expected = np.zeros((6, 7))
    expected[3 + 1, 3 + 2] = expected[3 - 1, 3 - 2] = 0.5
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_power_spectrum_of_half_precision_and_under_jit_and_vmap():
    x = images((4, 5))
    half = jnp.asarray(x, jnp.bfloat16)
    result = absum_jax.power_spectrum(half)
    assert result.dtype == jnp.float32
    expected = power_in_numpy(np.asarray(half, np.float32))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    several = jax.jit(jax.vmap(absum_jax.power_spectrum))(x[:, None])
    for one, powers in zip(x, several, strict=True):
        np.testing.assert_allclose(powers, power_in_numpy(one[None]), atol=1e-5)


CLASSES = 4
X = images((6, 7), count=31, channels=2)


def apply(params, x):
    return jnp.tanh(3 * (x.reshape(len(x), -1) - params["mean"])) @ params["head"]


def make_params(seed=0):
    head = np.random.default_rng(seed).normal(size=(84, CLASSES)).astype(np.float32)
    return {"mean": np.float32(0.3), "head": head}


PARAMS = make_params()
MODEL = Partial(apply, PARAMS)
Y = np.asarray(MODEL(X)).argmax(axis=1)
RADII = [0, 1, math.sqrt(2), 2.5, 10]
SQUARED = [0, 1, 2, 6.25, 100]


def share(flags):
    return np.float32(np.mean(np.asarray(flags)))


def filter_in_numpy(name, squared):
    low = low_pass_in_numpy(X, squared)
    return (low if name == "low" else X - low).astype(np.float32)


ACCURACIES = {
    "low": absum_jax.low_pass_accuracy,
    "high": absum_jax.high_pass_accuracy,
}
FILTERS = {"low": absum_jax.low_pass, "high": absum_jax.high_pass}


def answers(model, x):
    logits = np.asarray(model(x))
    second, first = np.sort(logits, axis=1)[:, -2:].T
    assert (first - second).min() > 1e-4
    return logits.argmax(axis=1)


@pytest.mark.parametrize("batch_size", [1, 10, 500])
@pytest.mark.parametrize("name", ACCURACIES)
def test_filtered_accuracy_equals_a_loop(name, batch_size):
    # Where the filter does the least the model is right; its mean suits the images.
    least = 100 if name == "low" else 0
    mean = np.float32(0.3 if name == "low" else 0.03)
    model = Partial(apply, PARAMS | {"mean": mean})
    y = answers(model, filter_in_numpy(name, least))
    result = ACCURACIES[name](model, X, y, RADII, batch_size=batch_size)
    expected = [
        share(answers(model, filter_in_numpy(name, squared)) == y)
        for squared in SQUARED
    ]
    assert len(set(expected)) > 3
    np.testing.assert_array_equal(result.accuracy, expected)
    np.testing.assert_array_equal(result.strength, np.float32(RADII))
    np.testing.assert_array_equal(result.nan_logits, 0)
    assert isinstance(result, absum_jax.AttackAccuracy)


@pytest.mark.parametrize("name", ACCURACIES)
def test_options_reach_the_accuracy(name):
    one = ACCURACIES[name](MODEL, X, Y, 1.0)
    assert [leaf.shape for leaf in jax.tree.leaves(one)] == [(), (), ()]
    filtered = FILTERS[name](X, 1.0)
    assert one.accuracy == absum_jax.accuracy(MODEL, filtered, Y)
    top = ACCURACIES[name](MODEL, X, Y, jnp.array([1.0]), top_k=2).accuracy
    assert top.shape == (1,)
    assert top[0] == absum_jax.accuracy(MODEL, filtered, Y, top_k=2) > one.accuracy
    for radius in (1.0, [1.0]):
        both = ACCURACIES[name](MODEL, X, Y, radius, top_k=(1, 2))
        assert both.nan_logits.shape == np.shape(radius)
        expected = np.reshape([one.accuracy, top[0]], (2, *np.shape(radius)))
        np.testing.assert_array_equal(both.accuracy, expected)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.4, 0.45)], ids=str)
@pytest.mark.parametrize("name", ACCURACIES)
def test_bounds_clip_the_filtered_images(name, bounds):
    result = ACCURACIES[name](MODEL, X, Y, [1, 2], bounds=bounds)
    expected = [
        absum_jax.accuracy(MODEL, jnp.clip(FILTERS[name](X, radius), *bounds), Y)
        for radius in (1, 2)
    ]
    np.testing.assert_array_equal(result.accuracy, expected)


def within(bounds, x):
    low, high = bounds
    inside = ((x >= low) & (x <= high)).all((1, 2, 3))
    return jax.nn.one_hot(inside.astype(int), 2)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.3, 0.7)], ids=str)
def test_the_model_sees_images_within_the_bounds_exactly(bounds):
    model = Partial(within, tuple(map(np.float32, bounds)))
    y = np.ones(len(X), int)
    clipped = absum_jax.high_pass_accuracy(model, X, y, [0, 1], bounds=bounds)
    np.testing.assert_array_equal(clipped.accuracy, 1)
    free = absum_jax.high_pass_accuracy(model, X, y, [0, 1])
    np.testing.assert_array_equal(free.accuracy, 0)


def test_images_of_any_range():
    y = np.asarray(MODEL(X * 20 - 10)).argmax(axis=1)
    result = absum_jax.low_pass_accuracy(MODEL, X * 20 - 10, y, 100)
    assert result.accuracy == 1


def undefined_where_dark(params, x):
    return jnp.where(x.min((1, 2, 3))[:, None] < 0, jnp.nan, apply(params, x))


def test_nan_logits_of_filtered_images():
    # Filtered images leave the range, and a logarithm of them would be NaN.
    model = Partial(undefined_where_dark, PARAMS)
    result = absum_jax.low_pass_accuracy(model, X, Y, [0, 3, 100], batch_size=7)
    filtered = [absum_jax.low_pass(X, radius) for radius in (0, 3, 100)]
    undefined = [np.asarray(x).min((1, 2, 3)) < 0 for x in filtered]
    assert 0 < np.mean(undefined[1]) < 1
    np.testing.assert_array_equal(result.nan_logits, [share(u) for u in undefined])
    expected = [
        share((np.asarray(MODEL(x)).argmax(axis=1) == Y) & ~u)
        for x, u in zip(filtered, undefined, strict=True)
    ]
    np.testing.assert_array_equal(result.accuracy, expected)


def test_filtered_accuracy_of_bfloat16_images():
    half = jnp.asarray(X, jnp.bfloat16)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), PARAMS)
    model = Partial(apply, params)
    result = absum_jax.low_pass_accuracy(model, half, Y, [1, 3])
    expected = [
        absum_jax.accuracy(model, absum_jax.low_pass(half, radius), Y)
        for radius in (1, 3)
    ]
    # One prediction may turn in bfloat16.
    np.testing.assert_allclose(result.accuracy, expected, atol=1 / 31 + 1e-6)


def test_vmap_and_jit_around_filtered_accuracy():
    several = [make_params(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)

    def evaluate(params, radii):
        return absum_jax.low_pass_accuracy(Partial(apply, params), X, Y, radii)

    radii = jnp.array([0.0, 1.0, 3.0])
    result = jax.jit(jax.vmap(evaluate, in_axes=(0, None)))(stacked, radii)
    expected = [evaluate(params, radii) for params in several]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
    assert len(np.unique(expected.accuracy)) > 2
    np.testing.assert_array_equal(result.accuracy, expected.accuracy)


def test_plain_functions_are_never_stale():
    state = {"params": PARAMS}

    def logits_fn(x):
        return apply(state["params"], x)

    assert absum_jax.low_pass_accuracy(logits_fn, X, Y, 100).accuracy == 1
    state["params"] = make_params(1)
    expected = absum_jax.accuracy(Partial(apply, state["params"]), X, Y)
    result = absum_jax.low_pass_accuracy(logits_fn, X, Y, 100)
    assert result.accuracy == expected < 1


def test_an_infinite_radius_passes_everything_to_the_bit():
    """Reports evaluate clean images by this filter."""
    x = jnp.asarray(np.random.default_rng(0).random((2, 7, 6, 3), np.float32))
    np.testing.assert_array_equal(absum_jax.low_pass(x, np.inf), x)
    assert not np.asarray(absum_jax.high_pass(x, np.inf)).any()
