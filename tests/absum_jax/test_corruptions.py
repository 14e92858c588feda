"""Corruptions: their distribution by NumPy and SciPy, and accuracies on them."""

import colorsys
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.tree_util import Partial

import absum_jax
from absum_jax.attacks.corruptions import SEVERITIES

# Hendrycks and Dietterich, make_cifar_c.py at commit ca360085, and Mu and Gilmer,
# corruptions.py at commit aa075693; read from there a second time.
PUBLISHED = {
    ("cifar10-c", "gaussian_noise"): [4 / 100, 6 / 100, 8 / 100, 9 / 100, 10 / 100],
    ("cifar10-c", "shot_noise"): [500, 250, 100, 75, 50],
    ("cifar10-c", "impulse_noise"): [1 / 100, 2 / 100, 3 / 100, 5 / 100, 7 / 100],
    ("cifar10-c", "speckle_noise"): [6 / 100, 10 / 100, 12 / 100, 16 / 100, 20 / 100],
    ("cifar10-c", "gaussian_blur"): [4 / 10, 6 / 10, 7 / 10, 8 / 10, 10 / 10],
    ("cifar10-c", "contrast"): [3 / 4, 2 / 4, 4 / 10, 3 / 10, 15 / 100],
    ("cifar10-c", "brightness"): [5 / 100, 10 / 100, 15 / 100, 20 / 100, 30 / 100],
    ("mnist-c", "gaussian_noise"): [8 / 100, 12 / 100, 18 / 100, 26 / 100, 38 / 100],
    ("mnist-c", "shot_noise"): [60, 25, 12, 5, 3],
    ("mnist-c", "impulse_noise"): [3 / 100, 6 / 100, 9 / 100, 17 / 100, 27 / 100],
    ("mnist-c", "speckle_noise"): [15 / 100, 20 / 100, 35 / 100, 45 / 100, 60 / 100],
    ("mnist-c", "gaussian_blur"): [1, 2, 3, 4, 6],
    ("mnist-c", "contrast"): [4 / 10, 3 / 10, 2 / 10, 1 / 10, 5 / 100],
    ("mnist-c", "brightness"): [1 / 10, 2 / 10, 3 / 10, 4 / 10, 5 / 10],
}
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
# Of noises the mildest and the most severe; of the others all.
RANDOM, FIXED = (
    [
        (benchmark, kind, severity)
        for benchmark, kind in PUBLISHED
        for severity in severities
        if (kind in NOISES) == is_random
    ]
    for is_random, severities in ((True, (1, 5)), (False, range(1, 6)))
)
KEY = jax.random.key(0)
DRAWS = 40_000
SHADES = np.array([0.0, 0.02, 0.3, 0.5, 0.9, 1.0])


def drawn(kind, c, x, rng):
    """One of the noises, by NumPy's own generator."""
    if kind == "gaussian_noise":
        x = x + rng.normal(size=x.shape, scale=c)
    elif kind == "shot_noise":
        x = rng.poisson(x * c) / c
    elif kind == "speckle_noise":
        x = x + x * rng.normal(size=x.shape, scale=c)
    else:
        x = x.copy()
        flipped, salted = rng.random(x.shape) < c, rng.random(x.shape) < 0.5
        x[flipped & salted], x[flipped & ~salted] = 1, 0
    return np.clip(x, 0, 1)


def test_severities_are_the_published_ones():
    found = {
        (benchmark, kind): list(values)
        for benchmark, kinds in SEVERITIES.items()
        for kind, values in kinds.items()
    }
    assert found == PUBLISHED


@pytest.mark.parametrize(("benchmark", "kind", "severity"), RANDOM)
def test_mean_and_variance_of_noises_are_those_of_numpy(benchmark, kind, severity):
    x = np.broadcast_to(SHADES, (DRAWS // 400, 20, 20, len(SHADES)))
    c = PUBLISHED[benchmark, kind][severity - 1]
    found = absum_jax.corrupt(
        x.astype(np.float32), kind, severity, key=KEY, benchmark=benchmark
    )
    assert found.dtype == np.float32
    found = np.asarray(found, np.float64).reshape(DRAWS, -1)
    expected = drawn(kind, c, x.reshape(DRAWS, -1), np.random.default_rng(1))

    def compare(ours, theirs):
        """Means, with a tolerance of five standard errors of their difference."""
        error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / DRAWS)
        difference = np.abs(ours.mean(axis=0) - theirs.mean(axis=0))
        assert (difference <= 5 * error + 1e-6).all()

    compare(found, expected)
    center = expected.mean(axis=0)
    compare((found - center) ** 2, (expected - center) ** 2)
    # Values of the same pixel are independent: no correlation beyond chance.
    noisy = [column for column in found.T if column.std() > 0]
    correlations = np.corrcoef(noisy) - np.eye(len(noisy))
    assert np.abs(correlations).max() < 5 / math.sqrt(DRAWS)


def fixed(benchmark, kind, c, x):
    """One of the other kinds, for images (height, width, channels)."""
    if kind == "contrast":
        means = np.mean(x, axis=(0, 1), keepdims=True)
        return np.clip((x - means) * c + means, 0, 1)
    if kind == "gaussian_blur":
        # MNIST-C passes an image (height, width) as one of `width` channels.
        sigma = [c, c, 0] if benchmark == "cifar10-c" else [c, 0, 0]
        blurred = scipy.ndimage.gaussian_filter(x, sigma, mode="nearest", truncate=4.0)
        return np.clip(blurred, 0, 1)

    def brighter(rgb):
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
        return colorsys.hsv_to_rgb(hue, saturation, min(value + c, 1))

    return np.apply_along_axis(brighter, -1, x)


@pytest.mark.parametrize(("benchmark", "kind", "severity"), FIXED)
def test_kinds_without_noise_are_those_of_numpy(benchmark, kind, severity):
    x = np.random.default_rng(2).random((2, 9, 7, 3)).astype(np.float32)
    x[0, 0, 0] = 0  # black, which has no hue
    x[0, 0, 1] = 0.4  # gray
    x[0, 0, 2] = 1e-30, 0, 0
    c = PUBLISHED[benchmark, kind][severity - 1]
    found = absum_jax.corrupt(x, kind, severity, key=KEY, benchmark=benchmark)
    expected = [fixed(benchmark, kind, c, each.astype(np.float64)) for each in x]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    other = absum_jax.corrupt(
        x, kind, severity, key=jax.random.key(1), benchmark=benchmark
    )
    np.testing.assert_array_equal(found, other)


def test_brightness_of_gray_images():
    # MNIST-C: a gray pixel has equal channels, and the weights of its luma sum to 1.
    x = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4, 1)
    found = absum_jax.corrupt(x, "brightness", 2, key=KEY, benchmark="mnist-c")
    np.testing.assert_allclose(found, np.minimum(x + 0.2, 1), atol=1e-6)


def test_contrast_of_each_image_and_channel_of_its_own():
    x = np.zeros((2, 2, 2, 2), np.float32)
    x[1, ..., 1] = 1
    found = absum_jax.corrupt(x, "contrast", 5, key=KEY)
    np.testing.assert_allclose(found, x, atol=1e-6)


@pytest.mark.parametrize("kind", NOISES)
def test_noise_of_an_image_depends_on_its_key_alone(kind):
    x = np.random.default_rng(0).random((5, 4, 3, 2)).astype(np.float32)
    whole = absum_jax.corrupt(x, kind, 5, key=KEY, benchmark="mnist-c")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(5))
    part = absum_jax.corrupt(x[2:4], kind, 5, key=keys[2:4], benchmark="mnist-c")
    np.testing.assert_array_equal(part, whole[2:4])
    other = absum_jax.corrupt(x, kind, 5, key=jax.random.key(1), benchmark="mnist-c")
    same = np.broadcast_to(x[:1], x.shape)
    equal = absum_jax.corrupt(same, kind, 5, key=KEY, benchmark="mnist-c")
    assert not np.array_equal(other, whole)
    assert not np.array_equal(equal[0], equal[1])


@pytest.mark.parametrize(
    "key", [jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")], ids=["old", "rbg"]
)
def test_any_kind_of_key(key):
    x = np.full((300, 5, 5, 1), 0.5, np.float32)
    for kind in NOISES:
        found = absum_jax.corrupt(x, kind, 3, key=key)
        spread = found.std()
        assert np.abs(found.mean() - 0.5) < 5 * spread / math.sqrt(x.size)
        assert spread > 0


@pytest.mark.parametrize("kind", ["shot_noise", "gaussian_blur", "contrast"])
def test_severity_can_be_traced(kind):
    x = np.random.default_rng(0).random((2, 6, 5, 3)).astype(np.float32)
    function = functools.partial(absum_jax.corrupt, x, kind, key=KEY)
    found = jax.jit(jax.vmap(lambda severity: function(severity)))(jnp.arange(7))
    for severity in range(1, 6):
        np.testing.assert_allclose(found[severity], function(severity), atol=1e-6)
    assert np.isnan(found[0]).all()
    assert np.isnan(found[6]).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype):
    x = jnp.asarray(np.random.default_rng(0).random((3, 8, 8, 3)), dtype)
    for kind in ("speckle_noise", "gaussian_blur", "brightness"):
        found = absum_jax.corrupt(x, kind, 4, key=KEY)
        exact = absum_jax.corrupt(x.astype(jnp.float32), kind, 4, key=KEY)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, exact.astype(dtype))


def test_pixels_within_rounding_of_the_range():
    x = np.array([-1e-7, 1 + 1e-7], np.float32).reshape(1, 1, 2, 1)
    found = absum_jax.corrupt(x, "shot_noise", 1, key=KEY)
    assert found.min() >= 0
    assert found.max() <= 1


def apply(weights, x):
    """Logits that favor the first class where images have little contrast."""
    centered = x - x.mean(axis=(1, 2), keepdims=True)
    hidden = jnp.tanh(centered.reshape(len(x), -1) @ weights["first"])
    return hidden @ weights["second"] + jnp.array([0.5, 0.0, 0.0])


def make_weights(seed):
    rng = np.random.default_rng(seed)
    shapes = {"first": (48, 8), "second": (8, 3)}
    return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


X = np.random.default_rng(3).random((31, 4, 4, 3)).astype(np.float32)
MODEL = Partial(apply, make_weights(0))
Y = np.asarray(MODEL(X)).argmax(axis=1)


@pytest.mark.parametrize("batch_size", [7, 500])
@pytest.mark.parametrize("kind", ["impulse_noise", "shot_noise", "contrast"])
def test_accuracy_equals_a_loop(kind, batch_size):
    options = {"key": KEY, "benchmark": "mnist-c"}
    found = absum_jax.corruption_accuracy(
        MODEL, X, Y, kind, batch_size=batch_size, **options
    )
    images = [absum_jax.corrupt(X, kind, s, **options) for s in range(1, 6)]
    expected = [absum_jax.accuracy(MODEL, each, Y) for each in images]
    assert len(set(map(float, expected))) > 1
    np.testing.assert_array_equal(found.accuracy, expected)
    np.testing.assert_array_equal(found.strength, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found.nan_logits, 0)
    two = absum_jax.corruption_accuracy(MODEL, X, Y, kind, [5, 2], **options)
    np.testing.assert_array_equal(two.accuracy, [expected[4], expected[1]])
    one = absum_jax.corruption_accuracy(MODEL, X, Y, kind, 3, top_k=(1, 2), **options)
    top2 = absum_jax.accuracy(MODEL, images[2], Y, top_k=2)
    np.testing.assert_array_equal(one.accuracy, [expected[2], top2])


def test_vmap_over_models():
    several = [make_weights(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)

    def evaluate(weights):
        return absum_jax.corruption_accuracy(
            Partial(apply, weights), X, Y, "speckle_noise", [1, 5], key=KEY
        ).accuracy

    found = jax.jit(jax.vmap(evaluate))(stacked)
    np.testing.assert_array_equal(found, [evaluate(each) for each in several])


def test_severities_beyond_the_table_give_nan_logits_when_traced():
    result = jax.jit(
        lambda s: absum_jax.corruption_accuracy(MODEL, X, Y, "contrast", s, key=KEY)
    )(jnp.array([0, 3]))
    np.testing.assert_array_equal(result.nan_logits, [1, 0])
    assert result.accuracy[0] == 0


MESSAGES = [
    ({"kind": "fog"}, r"`kind` must be one of 'gaussian_noise', .*'brightness', got"),
    ({"kind": None}, "`kind` must be one of .*, got None"),
    ({"benchmark": "imagenet-c"}, "`benchmark` must be one of 'cifar10-c', 'mnist-c'"),
    ({"severity": 0}, r"`severity` must lie in 1\.\.5, got 0"),
    ({"severity": 6}, r"`severity` must lie in 1\.\.5, got 6"),
    ({"severity": 2.0}, "`severity` must be an integer from 1 to 5, got dtype float"),
    ({"severity": True}, "`severity` must be an integer from 1 to 5, got dtype bool"),
    ({"severity": "3"}, "`severity` must be an array of numbers, got '3'"),
    ({"x": X * 255}, r"`x` must lie within bounds=\(0.0, 1.0\)"),
    ({"x": (X * 255).astype(np.uint8)}, "`x` must be floating-point images"),
    ({"key": 0}, "`key` must be a key"),
]


@pytest.mark.parametrize(("changed", "message"), MESSAGES)
def test_messages(changed, message):
    arguments = {"x": X, "kind": "contrast", "severity": 1, "key": KEY} | changed
    with pytest.raises(ValueError, match=f"^{message}"):
        absum_jax.corrupt(**arguments)
    with pytest.raises(ValueError, match=f"^{message}"):
        absum_jax.corruption_accuracy(MODEL, y=Y, **arguments)


def test_messages_of_lists():
    with pytest.raises(ValueError, match=r"^`severity` must be a scalar, got shape"):
        absum_jax.corrupt(X, "contrast", [1, 2], key=KEY)
    with pytest.raises(ValueError, match=r"^`x` must have the axes \(batch"):
        absum_jax.corrupt(X[0], "contrast", 1, key=KEY)
    accuracy = functools.partial(absum_jax.corruption_accuracy, MODEL, X, Y, "contrast")
    with pytest.raises(ValueError, match=r"^`severity` must lie in 1\.\.5, got \[1, 9"):
        accuracy([1, 9], key=KEY)
    with pytest.raises(ValueError, match=r"^`severity` must be .* at least one, got"):
        accuracy(np.zeros(0, int), key=KEY)
    with pytest.raises(ValueError, match=r"^`key` must be a key.*of shape \(31,\)"):
        accuracy(1, key=jax.random.split(KEY, 31))
