"""fourier_noise_accuracy: its signs as a model sees them, and NumPy's loop with these.

All of r v U_lm at pixel (0, 0) is r v times something positive, as is eq. 6 there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import absum_jax

KEY = jax.random.key(0)
SHAPE, CHANNELS, COUNT = (4, 5), 2, 6
WIDE = (-100.0, 100.0)
PAIRS = np.argwhere(np.ones(SHAPE, bool))


def eq_6(l, m, shape):
    """The sum of eq. 6 with its conjugate, in complex arithmetic."""
    p, q = np.arange(shape[0])[:, None], np.arange(shape[1])
    basis = np.exp(-2j * np.pi * (l * p / shape[0] + m * q / shape[1]))
    return ((1 + 1j) * basis + (1 - 1j) * basis.conj()).real


def unit_patterns(shape):
    """Patterns (height * width, height, width) of unit L2 norm, for every (l, m)."""
    patterns = np.array([eq_6(l, m, shape) for l, m in np.ndindex(*shape)])
    return patterns / np.linalg.norm(patterns, axis=(1, 2), keepdims=True)


def sign_code(gray, x):
    """A class for each combination of the signs of the channels, and one to spare."""
    bits = (x[:, 0, 0] > gray).astype(int) @ (2 ** jnp.arange(CHANNELS))
    return jax.nn.one_hot(bits, 2**CHANNELS + 1)


def signs_seen(count=COUNT, frequencies=None, key=KEY, norm=0.25, **options):
    """Signs (F, image, channel) of the noise: who has which class, one at a time."""
    x = np.full((count, *SHAPE, CHANNELS), 0.5, np.float32)
    seen = []
    for image, code in np.ndindex(count, 2**CHANNELS):
        # The last class is never answered, so that at most one image is right.
        y = np.full(count, 2**CHANNELS)
        y[image] = code
        result = absum_jax.fourier_noise_accuracy(
            Partial(sign_code, np.float32(0.5)), x, y, norm, key=key, bounds=WIDE,
            frequencies=frequencies, **options,
        )  # fmt: skip
        seen.append(np.ravel(result.accuracy) * count)
    seen = np.reshape(seen, (count, 2**CHANNELS, -1)).round().astype(int)
    # Each image has exactly one combination of signs, for each frequency.
    np.testing.assert_array_equal(seen.sum(axis=1), 1)
    codes = seen.argmax(axis=1).T[..., None]
    return 2 * (codes >> np.arange(CHANNELS) & 1) - 1


def test_signs_differ_by_image_channel_and_frequency():
    signs = signs_seen()
    assert signs.shape == (20, COUNT, CHANNELS)
    assert abs(signs.mean()) < 4 / np.sqrt(signs.size)
    for axis in range(3):
        # Neither constant along an axis, nor alternating.
        flat = np.moveaxis(signs, axis, 0).reshape(signs.shape[axis], -1)
        assert abs(np.corrcoef(flat[0], flat[1])[0, 1]) < 0.5
        assert len(np.unique(flat, axis=0)) == len(flat)


def test_signs_depend_on_the_key():
    assert 0.3 < (signs_seen() == signs_seen(key=jax.random.key(1))).mean() < 0.7
    old = signs_seen(key=jax.random.PRNGKey(0))
    np.testing.assert_array_equal(old, signs_seen())


@pytest.mark.parametrize("batch_size", [1, 4])
def test_signs_do_not_depend_on_the_batch_size(batch_size):
    np.testing.assert_array_equal(signs_seen(batch_size=batch_size), signs_seen())


def test_signs_do_not_depend_on_the_other_frequencies_nor_on_the_norm():
    some = [(3, 4), (0, 0), (2, 1)]
    signs = signs_seen(frequencies=some, norm=3.0)
    expected = signs_seen().reshape(*SHAPE, COUNT, CHANNELS)
    np.testing.assert_array_equal(signs, [expected[pair] for pair in some])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_signs_do_not_depend_on_the_type_of_the_frequencies(dtype):
    x = np.full((16, 24, 28, 1), 0.5, np.float32)
    y = np.arange(16) % 2
    # 20 * 28 + 5 does not fit in 8 bits.
    pairs = np.array([(20, 5), (9, 27), (0, 1), (12, 0)])
    results = [
        absum_jax.fourier_noise_accuracy(
            Partial(brighter, np.float32(0.5)), x, y, 1.0, key=KEY, frequencies=pairs
        ).accuracy
        for pairs in (pairs.astype(dtype), pairs)
    ]
    assert len(set(map(float, results[1]))) > 1
    np.testing.assert_array_equal(*results)


def brighter(gray, x):
    return jnp.stack([gray - x[:, 0, 0, 0], x[:, 0, 0, 0] - gray], axis=-1)


def is_pattern(pattern, x):
    """Whether each channel of each image is gray, plus or minus a pattern."""
    noise = x - 0.5
    either = jnp.minimum(
        abs(noise - pattern[..., None]).max((1, 2)),
        abs(noise + pattern[..., None]).max((1, 2)),
    )
    return jax.nn.one_hot((either < 1e-5).all(axis=-1).astype(int), 2)


@pytest.mark.parametrize("norm", [0.5, 4.0])
def test_noise_is_the_unit_pattern_of_eq_6_times_the_norm(norm):
    x = np.full((COUNT, *SHAPE, CHANNELS), 0.5, np.float32)
    y = np.ones(COUNT, int)
    for pair, pattern in zip(PAIRS, unit_patterns(SHAPE), strict=True):
        assert np.linalg.norm(pattern) == pytest.approx(1)
        coefficient = absum_jax.single_fourier_perturbation(
            *pair, SHAPE, 1.0, scale="coefficient"
        )
        ratio = (coefficient * pattern).sum()
        np.testing.assert_allclose(coefficient, ratio * pattern, atol=1e-5)
        model = Partial(is_pattern, (norm * pattern).astype(np.float32))
        result = absum_jax.fourier_noise_accuracy(
            model, x, y, norm, key=KEY, bounds=WIDE, frequencies=[pair]
        )
        assert result.accuracy == 1


def has_norm(norm, x):
    norms = jnp.sqrt(((x - 0.5) ** 2).sum((1, 2)))
    return jax.nn.one_hot((abs(norms - norm) < 1e-4 * norm).all(-1).astype(int), 2)


@pytest.mark.parametrize("shape", [(8, 8), (1, 9)], ids=str)
def test_noise_of_every_channel_has_the_norm(shape):
    x = np.full((3, *shape, 3), 0.5, np.float32)
    result = absum_jax.fourier_noise_accuracy(
        Partial(has_norm, np.float32(2.0)), x, np.ones(3, int), 2.0, key=KEY,
        bounds=WIDE,
    )  # fmt: skip
    assert result.accuracy.shape == shape
    np.testing.assert_array_equal(result.accuracy, 1)


CLASSES = 3


def apply(params, x):
    return jnp.tanh(x.reshape(len(x), -1) - 0.5) @ params


def images(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(COUNT, *SHAPE, CHANNELS)).astype(np.float32)
    return x, rng.normal(size=(40, CLASSES)).astype(np.float32)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-0.5, 3.0)], ids=str)
@pytest.mark.parametrize("top_k", [1, 2])
def test_accuracy_equals_a_loop_with_the_same_signs(top_k, bounds):
    (x, params), signs, norm = images(), signs_seen(), 2.0
    y = np.asarray(apply(params, x)).argmax(axis=1)
    expected = []
    for pattern, own in zip(unit_patterns(SHAPE), signs, strict=True):
        noise = norm * pattern[None, :, :, None] * own[:, None, None, :]
        noisy = np.clip(x + noise, *bounds).astype(np.float32)
        best = np.argsort(-np.asarray(apply(params, noisy)), axis=1)[:, :top_k]
        expected.append((best == y[:, None]).any(axis=1).mean())
    result = absum_jax.fourier_noise_accuracy(
        Partial(apply, params), x, y, norm, key=KEY, bounds=bounds, top_k=top_k,
        batch_size=4,
    )  # fmt: skip
    expected = np.reshape(expected, SHAPE).astype(np.float32)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(result.accuracy, expected)
    np.testing.assert_allclose(result.mean, expected.mean(), rtol=1e-6)
    assert (result.min, result.max) == (expected.min(), expected.max())
    np.testing.assert_array_equal(result.worst, PAIRS[expected.argmin()])
    np.testing.assert_array_equal(result.nan_logits, np.zeros(SHAPE))
    assert isinstance(result, absum_jax.SingleFourierAccuracy)


def test_norm_zero_is_clean_accuracy():
    x, params = images()
    y = np.asarray(apply(params, x)).argmax(axis=1)
    y[0] = (y[0] + 1) % CLASSES
    result = absum_jax.fourier_noise_accuracy(
        Partial(apply, params), x, y, 0.0, key=KEY, frequencies=[(0, 0), (3, 1)]
    )
    np.testing.assert_array_equal(result.accuracy, np.float32(5 / 6))


def undefined_where_bright(gray, x):
    logits = brighter(gray, x)
    return jnp.where(x[:, :1, 0, 0] > gray, jnp.nan, logits)


def test_nan_logits_are_wrong_and_reported():
    x = np.full((COUNT, *SHAPE, CHANNELS), 0.5, np.float32)
    result = absum_jax.fourier_noise_accuracy(
        Partial(undefined_where_bright, np.float32(0.5)), x, np.zeros(COUNT, int), 0.5,
        key=KEY,
    )  # fmt: skip
    bright = (signs_seen()[:, :, 0] > 0).mean(axis=1).reshape(SHAPE)
    np.testing.assert_allclose(result.nan_logits, bright, atol=1e-6)
    np.testing.assert_allclose(result.accuracy, 1 - bright, atol=1e-6)


def test_bfloat16_images():
    x, params = images()
    y = np.asarray(apply(params, x)).argmax(axis=1)
    options = {"key": KEY, "frequencies": [(1, 2), (0, 0)]}
    half = absum_jax.fourier_noise_accuracy(
        Partial(apply, params), jnp.asarray(x, jnp.bfloat16), y, 1.0, **options
    )
    exact = absum_jax.fourier_noise_accuracy(
        Partial(apply, params), x, y, 1.0, **options
    )
    # One prediction may turn in bfloat16.
    np.testing.assert_allclose(half.accuracy, exact.accuracy, atol=1 / 6 + 1e-6)


def test_jit_and_vmap_around_the_evaluation():
    x, _ = images()
    several = np.stack([images(seed)[1] for seed in range(2)])
    y = np.zeros(COUNT, int)

    def evaluate(params, norm, key):
        return absum_jax.fourier_noise_accuracy(
            Partial(apply, params), x, y, norm, key=key, frequencies=[(0, 1), (3, 4)]
        )

    result = jax.jit(jax.vmap(evaluate, in_axes=(0, None, None)))(several, 1.0, KEY)
    expected = [evaluate(params, 1.0, KEY) for params in several]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_plain_functions_are_never_stale():
    x, params = images()
    state = {"params": params}
    y = np.asarray(apply(params, x)).argmax(axis=1)

    def logits_fn(x):
        return apply(state["params"], x)

    def clean():
        return absum_jax.fourier_noise_accuracy(
            logits_fn, x, y, 0.0, key=KEY, frequencies=[(0, 1)]
        ).mean

    assert clean() == 1
    state["params"] = -params
    assert clean() == 0
