"""evaluation: accuracies against NumPy and a naive loop over frequencies."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.tree_util import Partial

import absum_jax

CLASSES = 5


def images(count=23, shape=(6, 8, 1), seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(count, *shape)).astype(np.float32)
    return x, rng.integers(0, CLASSES, count)


def conv_params(channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "kernel": rng.normal(size=(3, 3, channels, 4)).astype(np.float32),
        "head": rng.normal(size=(4 * 4, CLASSES)).astype(np.float32),
    }


def conv_apply(params, x):
    x = jax.lax.conv_general_dilated(
        x - 0.5,
        params["kernel"],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = jnp.tanh(x)
    quadrants = [x[:, i::2, j::2].mean((1, 2)) for i in (0, 1) for j in (0, 1)]
    return jnp.concatenate(quadrants, axis=-1) @ params["head"]


PARAMS = conv_params()
MODEL = Partial(conv_apply, PARAMS)
forward = jax.jit(conv_apply)


def accuracy_in_numpy(logits, y):
    return np.mean(np.asarray(logits).argmax(axis=-1) == np.asarray(y))


def look_up(table, x):
    return table[jnp.rint(x[:, 0, 0, 0] * len(table)).astype(int)]


def table_model(logits):
    """Images whose one pixel says which row of `logits` a model returns for them."""
    count = len(logits)
    x = (np.arange(count, dtype=np.float32) / count).reshape(count, 1, 1, 1)
    return Partial(look_up, jnp.asarray(logits)), x


@pytest.mark.parametrize("batch_size", [1, 7, 50])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_accuracy_of_random_logits(seed, batch_size):
    rng = np.random.default_rng(seed)
    logits, y = rng.normal(size=(40, CLASSES)), rng.integers(0, CLASSES, 40)
    logits_fn, x = table_model(logits)
    result = absum_jax.accuracy(logits_fn, x, y, batch_size=batch_size)
    assert result.shape == ()
    assert result == np.float32(accuracy_in_numpy(logits, y))


@pytest.mark.parametrize("top_k", range(1, CLASSES + 1))
def test_top_k_breaks_ties_as_lax_top_k(top_k):
    rng = np.random.default_rng(3)
    logits = rng.integers(0, 3, (60, CLASSES)).astype(np.float32)
    y = rng.integers(0, CLASSES, 60)
    _, best = jax.lax.top_k(logits, top_k)
    expected = np.mean((np.asarray(best) == y[:, None]).any(axis=1))
    logits_fn, x = table_model(logits)
    assert absum_jax.accuracy(logits_fn, x, y, top_k=top_k) == np.float32(expected)


def test_several_top_k_of_random_logits():
    rng = np.random.default_rng(4)
    logits, y = rng.normal(size=(40, CLASSES)), rng.integers(0, CLASSES, 40)
    rank = (logits > logits[np.arange(40), y][:, None]).sum(axis=1)
    logits_fn, x = table_model(logits)
    result = absum_jax.accuracy(logits_fn, x, y, top_k=(3, 1, 5), batch_size=7)
    expected = [np.mean(rank < k) for k in (3, 1, 5)]
    assert len(set(expected)) == 3
    np.testing.assert_array_equal(result, np.float32(expected))


@pytest.mark.parametrize("frequencies", [None, [(1, 2), (5, 7)]])
def test_several_top_k_are_those_of_separate_calls(frequencies):
    x, y = images()
    options = {"frequencies": frequencies, "batch_size": 10}
    both, *separate = (
        absum_jax.single_fourier_accuracy(MODEL, x, y, 0.6, top_k=top_k, **options)
        for top_k in ((2, 1), 2, 1)
    )
    shape = (6, 8) if frequencies is None else (2,)
    assert both.accuracy.shape == (2, *shape)
    assert both.worst.shape == (2, 2)
    np.testing.assert_array_equal(both.nan_logits, separate[0].nan_logits)
    assert (separate[0].accuracy > separate[1].accuracy).any()
    for name in ("accuracy", "mean", "min", "max", "worst"):
        expected = np.stack([getattr(result, name) for result in separate])
        np.testing.assert_array_equal(getattr(both, name), expected)


@pytest.mark.parametrize("top_k", [1, CLASSES])
def test_nan_logits_are_wrong(top_k):
    logits = np.zeros((4, CLASSES), np.float32)
    logits[0, 0] = logits[1, 3] = np.nan
    logits[2, :] = -np.inf
    logits_fn, x = table_model(logits)
    assert absum_jax.accuracy(logits_fn, x, np.zeros(4, int), top_k=top_k) == 0.5


@pytest.mark.parametrize(
    "y",
    [[0, 1, 2], np.array([0, 1, 2], np.uint8), jnp.array([0, 1, 2], jnp.int8)],
    ids=["list", "uint8", "int8"],
)
def test_labels_of_any_integer_type(y):
    logits_fn, x = table_model(np.eye(3, dtype=np.float32))
    assert absum_jax.accuracy(logits_fn, x, y) == 1.0


def test_accuracy_is_the_nearest_float_to_the_fraction():
    # 41 * (1 / 41) is below 1 in float32; the accuracy of 41 of 41 must not be.
    logits_fn, x = table_model(np.eye(41, dtype=np.float32))
    y = np.arange(41)
    assert absum_jax.accuracy(logits_fn, x, y) == 1.0
    assert absum_jax.single_fourier_accuracy(logits_fn, x, y, 0.0).max == 1.0


def attack_in_numpy(x, l, m, eps):
    height, width = x.shape[1:3]
    rows, columns = np.arange(height)[:, None] / height, np.arange(width) / width
    theta = 2 * np.pi * (l * rows + m * columns)
    pattern = np.cos(theta) + np.sin(theta)
    pattern *= eps / np.abs(pattern).max()
    return np.clip(x + pattern[..., None], 0, 1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_equals_a_naive_loop(channels):
    x, y = images(shape=(6, 8, channels))
    params = conv_params(channels)
    expected = np.empty((6, 8))
    for l, m in np.ndindex(6, 8):
        logits = forward(params, attack_in_numpy(x, l, m, 0.3))
        expected[l, m] = accuracy_in_numpy(logits, y)
    assert np.ptp(expected) > 0.2
    result = absum_jax.single_fourier_accuracy(
        Partial(conv_apply, params), x, y, 0.3, batch_size=10
    )
    np.testing.assert_array_equal(result.accuracy, expected.astype(np.float32))
    np.testing.assert_allclose(result.mean, expected.mean(), rtol=1e-6)
    np.testing.assert_allclose(result.min, expected.min(), rtol=1e-6)
    np.testing.assert_allclose(result.max, expected.max(), rtol=1e-6)
    worst = np.unravel_index(np.argmin(expected), expected.shape)
    np.testing.assert_array_equal(result.worst, worst)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray, list])
def test_list_of_frequencies(as_array):
    x, y = images()
    pairs = [(5, 7), (0, 0), (3, 4)]
    grid = absum_jax.single_fourier_accuracy(MODEL, x, y, 0.5).accuracy
    result = absum_jax.single_fourier_accuracy(
        MODEL, x, y, 0.5, frequencies=as_array(pairs)
    )
    expected = np.array([grid[pair] for pair in pairs])
    assert len(set(expected)) > 1
    np.testing.assert_array_equal(result.accuracy, expected)
    np.testing.assert_array_equal(result.worst, pairs[np.argmin(expected)])
    np.testing.assert_allclose(result.mean, expected.mean(), rtol=1e-6)


@pytest.mark.parametrize("option", [{"scale": "l2"}, {"top_k": 2}])
def test_options_reach_the_evaluation(option):
    x, y = images()
    result = absum_jax.single_fourier_accuracy(
        MODEL, x, y, 0.6, frequencies=[(1, 2), (3, 1)], **option
    )
    top_k = option.pop("top_k", 1)
    for (l, m), value in zip([(1, 2), (3, 1)], result.accuracy, strict=True):
        attacked = absum_jax.single_fourier_attack(x, l, m, 0.6, **option)
        assert value == absum_jax.accuracy(MODEL, attacked, y, top_k=top_k)


def test_bounds_reach_the_evaluation():
    x, y = images()
    options = {"frequencies": [(1, 2)]}
    clipped = absum_jax.single_fourier_accuracy(MODEL, x, y, 10.0, **options)
    bounds = (-20.0, 20.0)
    wide = absum_jax.single_fourier_accuracy(
        MODEL, x, y, 10.0, bounds=bounds, **options
    )
    attacked = absum_jax.single_fourier_attack(x, 1, 2, 10.0, bounds=bounds)
    assert wide.mean == absum_jax.accuracy(MODEL, attacked, y) != clipped.mean


@pytest.mark.parametrize("batch_size", [4, 100])
def test_eps_zero_is_clean_accuracy(batch_size):
    x, y = images()
    clean = absum_jax.accuracy(MODEL, x, y, batch_size=batch_size)
    attacked = absum_jax.single_fourier_accuracy(
        MODEL, x, y, 0.0, frequencies=[(0, 0), (2, 5)], batch_size=batch_size
    )
    np.testing.assert_array_equal(attacked.accuracy, clean)


def test_batch_size_changes_only_predictions_within_rounding():
    x, _ = images(count=61)
    logits = np.asarray(forward(PARAMS, x))
    first, second = np.sort(logits, axis=-1)[:, :-3:-1].T
    # 2e-5: the margin within which float32 logits may turn, by the project's design.
    close = int((first - second < 2e-5).sum())
    y = np.argmax(logits, axis=-1)
    y[::3] = (y[::3] + 1) % CLASSES
    expected = np.mean(np.argmax(logits, axis=-1) == y)
    for batch_size in (1, 30, 500):
        result = absum_jax.accuracy(MODEL, x, y, batch_size=batch_size)
        assert abs(result - expected) * 61 <= close + 1e-3


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 24])
def test_no_image_is_lost_or_counted_twice(batch_size):
    # Only one image is classified correctly, so each must be counted exactly once.
    for right in (0, 11, 22):
        logits_fn, x = table_model(np.eye(2, dtype=np.float32)[np.zeros(23, int)])
        y = np.ones(23, int)
        y[right] = 0
        result = absum_jax.accuracy(logits_fn, x, y, batch_size=batch_size)
        assert result == np.float32(1 / 23)


def test_bfloat16_images():
    x, y = images()
    half = jnp.asarray(x, jnp.bfloat16)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), PARAMS)
    result = absum_jax.accuracy(Partial(conv_apply, params), half, y)
    assert result.dtype == jnp.float32
    expected = accuracy_in_numpy(forward(params, half), y)
    # Half a percent of predictions may turn in bfloat16: here no more than one.
    assert abs(result - expected) <= 1 / 23 + 1e-6


def test_vmap_over_stacked_params():
    x, y = images()
    several = [conv_params(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)

    def evaluate(params):
        return absum_jax.single_fourier_accuracy(
            Partial(conv_apply, params), x, y, 0.3, frequencies=[(0, 1), (3, 4)]
        )

    result = jax.jit(jax.vmap(evaluate))(stacked)
    expected = [evaluate(params) for params in several]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
    assert len(np.unique(expected.accuracy)) > 1
    jax.tree.map(np.testing.assert_array_equal, result, expected)


@pytest.mark.parametrize("plain", [False, True])
def test_jit_around_the_evaluation(plain):
    x, y = images()

    @jax.jit
    def evaluate(params, x, y, eps):
        model = functools.partial if plain else Partial
        logits_fn = model(conv_apply, params)
        clean = absum_jax.accuracy(logits_fn, x, y)
        return clean, absum_jax.single_fourier_accuracy(
            logits_fn, x, y, eps, frequencies=[(1, 1)]
        )

    clean, attacked = evaluate(PARAMS, x, y, 0.3)
    assert clean == absum_jax.accuracy(MODEL, x, y)
    expected = absum_jax.single_fourier_accuracy(MODEL, x, y, 0.3, frequencies=[(1, 1)])
    jax.tree.map(np.testing.assert_array_equal, attacked, expected)


def test_jit_around_concrete_images():
    x, y = map(jnp.asarray, images())

    @jax.jit
    def evaluate(eps):
        return absum_jax.single_fourier_accuracy(
            MODEL, x, y, eps, frequencies=[(1, 1)]
        ).mean

    expected = absum_jax.single_fourier_accuracy(MODEL, x, y, 0.3, frequencies=[(1, 1)])
    assert evaluate(0.3) == expected.mean


def test_plain_function_is_never_stale():
    logits = {"table": np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]}
    _, x = table_model(logits["table"])
    y = np.array([0, 0, 1, 1])

    def logits_fn(x):
        return look_up(jnp.asarray(logits["table"]), x)

    def attacked():
        return absum_jax.single_fourier_accuracy(logits_fn, x, y, 0.0).mean

    assert absum_jax.accuracy(logits_fn, x, y) == attacked() == 1.0
    logits["table"][:2] = logits["table"][2:]
    assert absum_jax.accuracy(logits_fn, x, y) == attacked() == 0.5
    # Nor is the number of classes remembered.
    logits["table"] = np.eye(7, dtype=np.float32)[[6, 6, 6, 1]]
    y[:] = 6
    assert absum_jax.accuracy(logits_fn, x, y) == attacked() == 0.75


class NnxModel(nnx.Module):
    """A model that behaves differently in training."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.conv(x)).mean((1, 2))
        return self.head(self.dropout(x))


def nnx_model(seed=0):
    model = NnxModel(nnx.Rngs(seed))
    model.norm.mean[...] = np.float32(0.25)
    return model


def test_nnx_module_in_evaluation_mode():
    x, y = images()
    model = nnx_model()
    model.eval()
    expected = np.float32(accuracy_in_numpy(model(x), y))
    assert absum_jax.accuracy(model, x, y) == expected
    assert absum_jax.accuracy(lambda x: model(x), x, y) == expected
    attacked = absum_jax.single_fourier_accuracy(model, x, y, 0.0, frequencies=[(1, 2)])
    assert attacked.mean == expected


@pytest.mark.parametrize("part", ["norm", "dropout"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model,
        lambda model: functools.partial(model),
        lambda model: Partial(model),
        lambda model: model.__call__,
    ],
    ids=["module", "partial", "Partial", "method"],
)
def test_nnx_module_in_training_mode_is_refused(wrap, part):
    x, y = images()
    model = nnx_model()
    model.eval()
    getattr(model, part).train()
    for evaluate in (
        absum_jax.accuracy,
        functools.partial(absum_jax.single_fourier_accuracy, eps=0.1),
    ):
        with pytest.raises(ValueError, match=rf"evaluation mode.*{part}.*eval\(\)"):
            evaluate(wrap(model), x, y)


class EquinoxModel(eqx.Module):
    """A model with dropout, and a function among its leaves."""

    conv: eqx.nn.Conv2d
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear
    activation: object

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(1, 4, 3, key=key)
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(4, CLASSES, key=key)
        self.activation = jax.nn.relu

    def __call__(self, x):
        def one(x):
            x = self.activation(self.conv(jnp.moveaxis(x, -1, 0)))
            return self.head(self.dropout(x.mean((1, 2))))

        return jax.vmap(one)(x)


def test_equinox_module():
    x, y = images()
    training = EquinoxModel(jax.random.key(0))
    model = eqx.nn.inference_mode(training)
    expected = np.float32(accuracy_in_numpy(model(x), y))
    assert absum_jax.accuracy(model, x, y) == expected
    with pytest.raises(ValueError, match=r"evaluation mode.*dropout.*inference_mode"):
        absum_jax.accuracy(training, x, y)


def test_linen_apply():
    x, y = images()
    model = linen.Sequential([linen.Conv(2, (3, 3)), lambda x: x.mean((1, 2))])
    variables = jax.jit(model.init)(jax.random.key(0), x)
    y = y % 2
    expected = np.float32(accuracy_in_numpy(model.apply(variables, x), y))
    assert absum_jax.accuracy(Partial(model.apply, variables), x, y) == expected
    assert absum_jax.accuracy(functools.partial(model.apply, variables), x, y) == (
        expected
    )


def test_summarize_frequencies():
    grid = jnp.array([[0.5, 0.25, 1.0], [0.25, 0.75, 0.25]])
    pairs = np.argwhere(np.ones((2, 3), bool))
    result = absum_jax.summarize_frequencies(grid, pairs)
    assert isinstance(result, absum_jax.SingleFourierAccuracy)
    np.testing.assert_array_equal(result.accuracy, grid)
    assert (result.mean, result.min, result.max) == (0.5, 0.25, 1.0)
    np.testing.assert_array_equal(result.worst, (0, 1))  # the first of three minima


class _Scorer:
    """An object whose method is a logits function, with state that may change."""

    sign = 1.0

    def apply(self, weights, x):
        return self.sign * x.reshape(x.shape[0], -1) @ weights


def test_a_partial_of_a_changing_object_is_never_stale():
    x = jax.random.uniform(jax.random.key(0), (10, 2, 2, 1))
    scorer = _Scorer()
    weights = jax.random.normal(jax.random.key(1), (4, 3))
    y = jnp.argmax(scorer.apply(weights, x), axis=-1)
    logits_fn = Partial(scorer.apply, weights)
    assert absum_jax.accuracy(logits_fn, x, y) == 1
    scorer.sign = -1.0
    assert absum_jax.accuracy(logits_fn, x, y) < 1


def test_a_keyword_may_overrule_training_mode():
    model = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    logits_fn = functools.partial(model, use_running_average=True)
    x = jnp.eye(4).reshape(4, 1, 1, 4)
    assert absum_jax.accuracy(lambda x: logits_fn(x)[:, 0, 0], x, jnp.arange(4)) == 1

    class Flat:
        def __call__(self, x, use_running_average=False):
            return model(x, use_running_average=use_running_average)[:, 0, 0]

    flat = functools.partial(Flat(), use_running_average=True)
    assert absum_jax.accuracy(flat, x, jnp.arange(4)) == 1


def test_the_mean_lies_between_the_extremes():
    grid = jnp.full((28, 28), 0.98)
    pairs = np.argwhere(np.ones((28, 28), bool))
    summary = absum_jax.summarize_frequencies(grid, pairs)
    assert summary.min <= summary.mean <= summary.max
