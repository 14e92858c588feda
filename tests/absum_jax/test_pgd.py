"""attacks/gradient.py: optima of linear models, a NumPy loop, and what always holds."""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import absum_jax

KEY = jax.random.key(0)
CROSS_ENTROPY = None


def linear(params, x):
    return x.reshape(len(x), -1) @ params["kernel"] + params["bias"]


def linear_model(shape, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(np.prod(shape), classes)).astype(np.float32)
    return {"kernel": kernel, "bias": np.zeros(classes, np.float32)}


def uniform(shape, low=0.0, high=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, shape).astype(np.float32)


SHAPE = (2, 3, 1)
PARAMS = linear_model(SHAPE)
LINEAR = Partial(linear, PARAMS)
X = uniform((5, *SHAPE), seed=1)
Y = np.array([0, 1, 1, 0, 1])


def optimum(x, y, eps, bounds=(0.0, 1.0), targeted=False, kernel=PARAMS["kernel"]):
    """The point of the ball and the bounds where the other class is ahead the most."""
    towards_other = np.sign(kernel[:, 1 - y] - kernel[:, y]).T.reshape(x.shape)
    sign = -towards_other if targeted else towards_other
    return np.clip(x + x.dtype.type(eps) * sign, *map(x.dtype.type, bounds))


def attack(model=LINEAR, x=X, y=Y, function=absum_jax.pgd, **options):
    defaults = {"key": KEY, "eps": 0.25, "step_size": 0.125, "steps": 5}
    if function is absum_jax.fgsm:
        defaults = {"eps": 0.25}
    return function(model, x, y, **(defaults | options))


def start(model=LINEAR, x=X, y=Y, **options):
    """Where the attack begins: steps of no size."""
    return attack(model, x, y, **(options | {"step_size": 0.0, "steps": 1}))


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-0.3, 1.7)], ids=str)
@pytest.mark.parametrize("eps", [0.0, 1 / 255, 0.3, 5.0])
def test_optimum_of_a_linear_model(eps, bounds, targeted):
    options = {"eps": eps, "bounds": bounds, "targeted": targeted}
    expected = optimum(X, Y, **options)
    fgsm = absum_jax.fgsm(LINEAR, X, Y, **options)
    np.testing.assert_array_equal(fgsm, expected)
    pgd = attack(**options, step_size=eps / 4, steps=9)
    np.testing.assert_array_equal(pgd, expected)


def test_fgsm_is_one_step_from_the_image():
    expected = absum_jax.fgsm(LINEAR, X, Y, eps=0.1)
    one_step = attack(eps=0.1, step_size=0.1, steps=1, init_radius=0.0)
    np.testing.assert_array_equal(one_step, expected)


KERNEL_SIZE, POOL, FILTERS, CLASSES = 3, 2, 3, 3


def cnn_params(seed):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(KERNEL_SIZE, KERNEL_SIZE, 2, FILTERS)) / 4
    return {
        "kernel": kernel.astype(np.float32),
        "bias": rng.normal(0.2, 0.1, FILTERS).astype(np.float32),
        "head": rng.normal(size=(4 * FILTERS, CLASSES)).astype(np.float32),
    }


def cnn(pool, params, x):
    x = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jnp.maximum(x + params["bias"], 0).reshape(-1, 2, POOL, 2, POOL, FILTERS)
    x = x.mean((2, 4)) if pool == "mean" else x.max((2, 4))
    return x.reshape(len(x), -1) @ params["head"]


def cnn_model(pool="mean", seed=0):
    return Partial(cnn, pool, cnn_params(seed))


CNN_X = uniform((4, 6, 6, 2), seed=2)
CNN_Y = np.array([0, 1, 2, 0])


def away_from_zero(array, distance=1e-5):
    """Returns the array, whose signs float32 must know as float64 does."""
    assert np.abs(array).min() > distance
    return array


def cnn_in_numpy(pool, params, x):
    """Logits in float64, and the function from their gradient to that of x."""
    params = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    convolved = np.einsum("bijcuv,uvcf->bijf", windows, params["kernel"])
    active = away_from_zero(convolved + params["bias"]) > 0
    relu = np.where(active, convolved + params["bias"], 0)
    blocks = relu.reshape(-1, 2, POOL, 2, POOL, FILTERS)
    if pool == "mean":
        pooled, share = blocks.mean((2, 4)), np.full(blocks.shape, 1 / POOL**2)
    else:
        pooled = blocks.max((2, 4))
        share = (blocks == pooled[:, :, None, :, None]).astype(float)
        # Where no entry is active several are the largest, but none has a gradient.
        alone = share.sum((2, 4)) == 1
        assert (alone | (pooled == 0)).all()
    logits = pooled.reshape(len(x), -1) @ params["head"]

    def pull_back(gradient):
        gradient = (gradient @ params["head"].T).reshape(pooled.shape)
        gradient = (gradient[:, :, None, :, None] * share).reshape(relu.shape) * active
        result = np.zeros(x.shape)
        height, width = relu.shape[1:3]
        for u, v in np.ndindex(KERNEL_SIZE, KERNEL_SIZE):
            part = np.einsum("bijf,cf->bijc", gradient, params["kernel"][u, v])
            result[:, u : u + height, v : v + width] += part
        return result

    return logits, pull_back


def loss_gradient_in_numpy(logits, y, loss):
    """The gradient of the loss by the logits."""
    own = np.eye(CLASSES)[y]
    if loss is CROSS_ENTROPY:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True) - own
    others = np.where(own, -np.inf, logits)
    second, first = np.sort(others, axis=1).T[-2:]
    away_from_zero(first - second)
    return np.eye(CLASSES)[others.argmax(axis=1)] - own


def pgd_in_numpy(images, x, y, pool, params, eps, step_size, bounds, loss, targeted):
    """The iterates of PGD from some start, without end."""
    while True:
        logits, pull_back = cnn_in_numpy(pool, params, images)
        gradient = pull_back(loss_gradient_in_numpy(logits, y, loss))
        away_from_zero(gradient[gradient != 0])
        assert (gradient != 0).mean() > 0.5
        ascent = -np.sign(gradient) if targeted else np.sign(gradient)
        images = np.clip(images + step_size * ascent, x - eps, x + eps)
        images = np.clip(images, *bounds)
        yield images


@pytest.mark.parametrize(
    ("pool", "loss", "targeted"),
    [
        ("mean", CROSS_ENTROPY, False),
        ("max", absum_jax.margin_loss, False),
        ("max", CROSS_ENTROPY, True),
        ("mean", absum_jax.margin_loss, True),
    ],
)
def test_each_step_equals_numpy(pool, loss, targeted):
    params, model = cnn_params(1), cnn_model(pool, seed=1)
    setting = {"eps": 0.15, "bounds": (0.05, 1.0), "loss": loss, "targeted": targeted}
    x = np.clip(CNN_X, 0.05, 1.0)
    options = setting | {"init_radius": 0.1}
    first = start(model, x, CNN_Y, **options)
    iterates = pgd_in_numpy(
        np.asarray(first, np.float64), x.astype(np.float64), CNN_Y, pool, params,
        step_size=0.06, **setting,
    )  # fmt: skip
    clipped = False
    for steps, expected in zip(range(1, 6), iterates, strict=False):
        result = attack(model, x, CNN_Y, step_size=0.06, steps=steps, **options)
        np.testing.assert_allclose(result, expected, atol=1e-6)
        clipped |= np.isclose(abs(expected - x), 0.15).mean() > 0.1
    assert clipped


def test_float64():
    with jax.enable_x64(True):
        x = np.random.default_rng(0).uniform(size=CNN_X.shape)
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), cnn_params(0))
        options = {"eps": 0.1, "init_radius": 0.0}
        result = attack(
            Partial(cnn, "mean", params), x, CNN_Y, step_size=0.03, steps=2, **options
        )
    assert result.dtype == np.float64
    iterates = pgd_in_numpy(
        x, x, CNN_Y, "mean", params, 0.1, 0.03, (0.0, 1.0), CROSS_ENTROPY, False
    )
    next(iterates)
    np.testing.assert_allclose(result, next(iterates), atol=1e-15)


BOUNDS = [(0.0, 1.0), (-0.3, 0.7), (-2.0, -1.9), (0.1, 255.0)]


@pytest.mark.filterwarnings("ignore:`logits_fn` had no gradient")
@hypothesis.given(
    bounds=st.sampled_from(BOUNDS),
    eps=st.sampled_from([1e-6, 1 / 255, 0.3, 7.0, 1e3]),
    step_size=st.sampled_from([0.0, 1e-3, 0.2, 1e4]),
    steps=st.integers(1, 4),
    init_radius=st.sampled_from([None, 0.0, 0.05, 100.0]),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("early_stop", [False, True])
def test_within_the_ball_and_the_bounds(
    early_stop, bounds, eps, step_size, steps, init_radius, seed
):
    low, high = map(np.float32, bounds)
    # A hair outside is accepted, and clipped.
    x = uniform(X.shape, low - 5e-7, high + 5e-7, seed)
    x.flat[:4] = low, high, low - np.float32(5e-7), high + np.float32(5e-7)
    result = attack(
        x=x, eps=eps, step_size=step_size, steps=steps, init_radius=init_radius,
        bounds=bounds, early_stop=early_stop, restarts=2, key=jax.random.key(seed),
    )  # fmt: skip
    assert (result >= low).all()
    assert (result <= high).all()
    image = np.clip(x, low, high).astype(np.float64)
    # The ends of the ball are rounded once.
    rounding = np.spacing(np.float32(abs(image).max() + eps))
    assert abs(np.asarray(result, np.float64) - image).max() <= eps + rounding


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init_radius": 0.3},
        {"init_radius": 0.3, "restarts": 3},
        {"init_radius": 0.3, "restarts": 3, "early_stop": True},
        {"function": absum_jax.fgsm},
    ],
    ids=["None", "radius", "restarts", "early stop", "fgsm"],
)
def test_eps_zero_gives_the_clipped_images(options):
    bounds = (-0.3, 0.7)
    x = uniform(X.shape, -0.3, 0.7)
    x.flat[:2] = np.float32(-0.3) - np.float32(1e-7), 0.7 + 5e-7
    result = attack(x=x, eps=0.0, bounds=bounds, **options)
    np.testing.assert_array_equal(result, np.clip(x, *map(np.float32, bounds)))


@pytest.mark.parametrize("function", [absum_jax.fgsm, absum_jax.pgd])
def test_an_infinite_ball_is_that_of_the_bounds(function):
    # A pixel without gradient has no direction to go infinitely far in.
    params = PARAMS | {"kernel": PARAMS["kernel"] * (np.arange(6) > 0)[:, None]}
    result = attack(Partial(linear, params), eps=np.inf, function=function)
    assert ((result >= 0) & (result <= 1)).all()
    if function is absum_jax.fgsm:
        expected = optimum(X, Y, 1.0, kernel=params["kernel"])
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("options", [{"eps": np.inf}, {"step_size": np.inf}])
def test_infinite_sizes_in_l2(options):
    result = attack(Partial(linear, PARAMS), norm="l2", **options)
    assert ((result >= 0) & (result <= 1)).all()
    length = np.linalg.norm((result - X).reshape(len(X), -1), axis=1)
    if "eps" not in options:
        # The whole radius, in the direction of the gradient.
        huge = attack(Partial(linear, PARAMS), norm="l2", step_size=1e6)
        np.testing.assert_allclose(result, huge, atol=1e-6)
    assert (length > 0).all()


WIDE = {"bounds": (-10.0, 10.0), "eps": 0.5}
BLANK = np.full((16, 8, 8, 3), 0.5, np.float32)
BLANK_Y = np.zeros(16, int)
BLANK_MODEL = Partial(linear, linear_model((8, 8, 3)))


def blank_start(**options):
    return np.asarray(start(BLANK_MODEL, BLANK, BLANK_Y, **(WIDE | options)))


@pytest.mark.parametrize("init_radius", [0.125, 0.5, None])
def test_starts_are_uniform(init_radius):
    noise = (blank_start(init_radius=init_radius) - 0.5) / (init_radius or 0.5)
    assert abs(noise).max() <= 1 + 1e-6
    # Kolmogorov-Smirnov: a uniform sample stays below 1.95 with probability 0.999.
    sample = np.sort(noise.ravel())
    ranks = (np.arange(sample.size) + 0.5) / sample.size
    assert abs(ranks - (sample + 1) / 2).max() * np.sqrt(sample.size) < 1.95
    assert len(np.unique(noise)) > 0.99 * noise.size


def test_init_radius_none_is_eps():
    np.testing.assert_array_equal(blank_start(), blank_start(init_radius=0.5))


def test_init_radius_zero_starts_at_the_image():
    np.testing.assert_array_equal(blank_start(init_radius=0.0), BLANK)


def test_an_init_radius_beyond_eps_is_projected():
    far, near = blank_start(init_radius=4.0), blank_start(init_radius=1.0)
    assert abs(far - 0.5).max() == 0.5
    assert (abs(far - 0.5) == 0.5).mean() > 0.8
    np.testing.assert_allclose(far, np.clip(0.5 + 4 * (near - 0.5), 0, 1), atol=1e-5)


def test_starts_depend_on_the_key():
    other = blank_start(key=jax.random.key(1))
    noise, other = blank_start().ravel() - 0.5, other.ravel() - 0.5
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.1


def test_old_style_keys():
    old = blank_start(key=jax.random.PRNGKey(3))
    np.testing.assert_array_equal(old, blank_start(key=jax.random.key(3)))


def test_noise_of_an_image_depends_on_its_own_key_alone():
    own = jax.vmap(functools.partial(jax.random.fold_in, KEY))(jnp.arange(16))
    whole = blank_start(eps=0.25)
    np.testing.assert_array_equal(blank_start(eps=0.25, key=own), whole)
    data = jax.random.key_data(own)
    np.testing.assert_array_equal(blank_start(eps=0.25, key=data), whole)
    some = np.array([5, 0, 11])
    part = start(
        BLANK_MODEL, BLANK[some], BLANK_Y[some], **(WIDE | {"eps": 0.25}), key=own[some]
    )
    np.testing.assert_array_equal(part, whole[some])
    first = start(BLANK_MODEL, BLANK[:2], BLANK_Y[:2], **(WIDE | {"eps": 0.25}))
    np.testing.assert_array_equal(first, whole[:2])


def cnn_logits(images, seed=0):
    return np.asarray(jax.jit(functools.partial(cnn, "mean"))(cnn_params(seed), images))


def losses_in_numpy(logits, y):
    logits = np.asarray(logits, np.float64)
    own = logits[np.arange(len(y)), y]
    largest = logits.max(axis=1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1)) - own


MANY_X, MANY_Y = uniform((24, 6, 6, 2), seed=3), np.arange(24) % CLASSES
MODEL = cnn_model()
# Weak enough that where an image starts matters.
WEAK = {"eps": 0.2, "step_size": 0.02, "steps": 3}


@pytest.mark.parametrize("targeted", [False, True])
def test_losses_never_fall_with_restarts(targeted):
    def attacked(restarts):
        images = attack(
            MODEL, MANY_X, MANY_Y, restarts=restarts, targeted=targeted, **WEAK
        )
        losses = losses_in_numpy(cnn_logits(images), MANY_Y)
        return np.asarray(images), -losses if targeted else losses

    once, losses = attacked(1)
    several, larger = attacked(4)
    same = np.isclose(several, once, atol=1e-6).all((1, 2, 3))
    assert (same | (larger > losses)).all()
    # Each of four starts is the best of some images.
    assert 0 < same.sum() < 16


def is_right(images, y=MANY_Y):
    return cnn_logits(images).argmax(axis=1) == y


def test_early_stop_keeps_the_first_broken_iterate():
    y = cnn_logits(MANY_X).argmax(axis=1)
    y[:4] = (y[:4] + 1) % CLASSES
    options = {"eps": 0.3, "step_size": 0.02}
    iterates = [start(MODEL, MANY_X, y, **options)]
    iterates += [
        attack(MODEL, MANY_X, y, **options, steps=steps) for steps in range(1, 8)
    ]
    right = np.array([is_right(iterate, y) for iterate in iterates])
    first = np.where(right.all(axis=0), 7, right.argmin(axis=0))
    assert len(np.unique(first)) > 4
    expected = np.array(iterates)[first, np.arange(24)]
    result = attack(MODEL, MANY_X, y, **options, steps=7, early_stop=True)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    # Exactly, where no step was taken.
    begun = attack(MODEL, MANY_X, y, **options, steps=7, early_stop=True, init_radius=0)
    np.testing.assert_array_equal(begun[:4], MANY_X[:4])
    # These images do not become right again, so that both end with the same ones.
    np.testing.assert_array_equal(is_right(result, y), right[-1])


@pytest.mark.parametrize(
    ("change", "values"), [("steps", (1, 2, 4, 7)), ("restarts", (1, 4))]
)
def test_early_stop_accuracy_never_rises(change, values):
    y = cnn_logits(MANY_X).argmax(axis=1)
    options = {"eps": 0.3, "step_size": 0.03, "steps": 3, "early_stop": True}
    right = []
    for value in values:
        images = attack(MODEL, MANY_X, y, **(options | {change: value}))
        right.append(is_right(images, y))
    assert right[0].sum() > right[-1].sum()
    for before, after in itertools.pairwise(right):
        # Image by image: what is broken stays so.
        assert not (after & ~before).any()


def is_bright(params, x):
    return jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], axis=-1) * params


def darkness(logits, y):
    return logits[:, 0]


@pytest.mark.parametrize("early_stop", [False, True])
def test_restarts_with_a_loss_that_says_nothing_of_success(early_stop):
    # Bright images are broken, and the loss is that of dark ones.
    model = Partial(is_bright, np.float32(1.0))
    x, y = np.full((32, *SHAPE), 0.5, np.float32), np.zeros(32, int)
    options = {"eps": 0.1, "step_size": 0.0, "steps": 1, "loss": darkness}
    images = attack(model, x, y, **options, restarts=3, early_stop=early_stop)
    broken = (images[:, 0, 0, 0] > 0.5).mean()
    # Any of three starts, or all of them: 7/8 and 1/8.
    assert broken > 0.7 if early_stop else broken < 0.3


def test_accuracy_does_not_rise_with_steps_here():
    y = cnn_logits(MANY_X).argmax(axis=1)
    options = {"eps": 0.3, "step_size": 0.03}
    counts = [
        is_right(attack(MODEL, MANY_X, y, **options, steps=steps), y).sum()
        for steps in (1, 3, 6, 10)
    ]
    assert counts[0] > counts[-1]
    assert (np.diff(counts) <= 0).all()


def test_early_stop_of_a_targeted_attack():
    iterates = [start(eps=0.5, targeted=True)]
    iterates += [
        attack(eps=0.5, step_size=0.05, steps=steps, targeted=True)
        for steps in range(1, 9)
    ]
    hit = np.array([(linear(PARAMS, np.asarray(i)).argmax(1) == Y) for i in iterates])
    first = np.where(hit.any(axis=0), hit.argmax(axis=0), 8)
    assert len(np.unique(first)) > 1
    result = attack(eps=0.5, step_size=0.05, steps=8, targeted=True, early_stop=True)
    expected = np.array(iterates)[first, np.arange(5)]
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("eps", [0.9, [0.8, 0.9]], ids=str)
def test_steps_end_once_all_images_are_broken(eps):
    passes = []

    def counted(x):
        jax.debug.callback(lambda _: passes.append(1), x[0])
        return linear(PARAMS, x)

    result = attack(counted, eps=eps, steps=1000, early_stop=True)
    for images in np.reshape(result, (-1, *X.shape)):
        assert (linear(PARAMS, images).argmax(axis=1) != Y).all()
    jax.effects_barrier()
    assert 1 < len(passes) < 30


EPS = [0.0, 0.05, 0.2]


@pytest.mark.parametrize(
    "several",
    [
        {},
        {"step_size": [0.0, 0.02, 0.1]},
        {"init_radius": [0.05, 0.0, 0.1]},
        {"step_size": np.array([0.1, 0.02, 0.03]), "init_radius": (0.0, 0.05, 0.01)},
        {"restarts": 2, "early_stop": True, "step_size": jnp.array([0.1, 0.05, 0.01])},
    ],
    ids=lambda options: "+".join(options) or "eps",
)
def test_a_list_of_eps_gives_what_each_gives(several):
    options = {"step_size": 0.03, "steps": 3} | several
    result = attack(MODEL, MANY_X, MANY_Y, eps=EPS, **options)
    assert result.shape == (3, *MANY_X.shape)
    for index, (eps, images) in enumerate(zip(EPS, result, strict=True)):
        alone = {
            name: float(value[index])
            if name in ("step_size", "init_radius") and np.ndim(value)
            else value
            for name, value in options.items()
        }
        expected = attack(MODEL, MANY_X, MANY_Y, eps=eps, **alone)
        np.testing.assert_allclose(images, expected, atol=1e-6)


def test_fgsm_of_a_list_of_eps():
    result = absum_jax.fgsm(LINEAR, X, Y, eps=np.array(EPS))
    expected = np.stack([optimum(X, Y, eps) for eps in EPS])
    np.testing.assert_array_equal(result, expected)


def test_a_list_of_one_has_a_leading_axis():
    assert attack(eps=[0.1]).shape == (1, *X.shape)
    assert attack(eps=np.float32(0.1)).shape == X.shape


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_margin_loss(classes):
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(20, classes)).astype(np.float32)
    logits[0], logits[1, 0] = 0.5, -np.inf
    y = rng.integers(0, classes, 20)
    y[1] = 1
    expected = [
        max(row[j] for j in range(classes) if j != label) - row[label]
        for row, label in zip(logits, y, strict=True)
    ]
    result = absum_jax.margin_loss(logits, y)
    np.testing.assert_array_equal(result, np.array(expected))
    np.testing.assert_array_equal(result > 0, [
        np.delete(row, label).max() > row[label]
        for row, label in zip(logits, y, strict=True)
    ])  # fmt: skip
    jitted = jax.jit(absum_jax.margin_loss)(logits, y)
    np.testing.assert_array_equal(jitted, result)


def test_margin_loss_of_nan_logits():
    logits = np.array([[np.nan, 1.0, 2.0], [1.0, np.nan, 2.0], [3.0, 1.0, 2.0]])
    result = absum_jax.margin_loss(logits.astype(np.float32), np.array([0, 0, 0]))
    np.testing.assert_array_equal(result, [np.nan, np.nan, -1.0])


def scaled(scale, apply, params, x):
    return scale * apply(params, x)


def test_margin_loss_where_the_cross_entropy_saturates():
    y = linear(PARAMS, X).argmax(axis=1)
    certain = Partial(scaled, np.float32(1e4), linear, PARAMS)
    options = {"eps": 0.9, "init_radius": 0.0, "step_size": 0.3}
    with pytest.warns(UserWarning, match="no gradient at 5 of 5 .*margin_loss"):
        still = attack(certain, X, y, **options)
    np.testing.assert_array_equal(still, X)
    moved = attack(certain, X, y, loss=absum_jax.margin_loss, **options)
    np.testing.assert_array_equal(moved, optimum(X, y, 0.9))
    assert (linear(PARAMS, np.asarray(moved)).argmax(axis=1) != y).all()


def own_logit(logits, y):
    return -jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]


@pytest.mark.parametrize("targeted", [False, True])
def test_any_loss(targeted):
    params = linear_model(SHAPE, classes=4)
    y = np.array([0, 1, 2, 3, 0])
    sign = (1 if targeted else -1) * np.sign(params["kernel"][:, y])
    expected = np.clip(X + np.float32(0.25) * sign.T.reshape(X.shape), 0, 1)
    result = attack(Partial(linear, params), y=y, loss=own_logit, targeted=targeted)
    np.testing.assert_array_equal(result, expected)


def test_optax_losses_are_losses():
    loss = optax.softmax_cross_entropy_with_integer_labels
    options = {"init_radius": 0.1, "steps": 2}
    result = attack(MODEL, MANY_X, MANY_Y, loss=loss, **options)
    expected = attack(MODEL, MANY_X, MANY_Y, **options)
    np.testing.assert_array_equal(result, expected)


def half_precision(params, x):
    return linear(params, x.astype(jnp.bfloat16))


@pytest.mark.parametrize("apply", [linear, half_precision])
def test_bfloat16_is_attacked_in_float32(apply):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), PARAMS)
    x = jnp.asarray(X, jnp.bfloat16)
    # Steps far below the resolution of bfloat16.
    result = attack(Partial(apply, params), x, eps=1e-3, step_size=3e-4, steps=7)
    assert result.dtype == jnp.float32
    kernel = np.asarray(params["kernel"], np.float32)
    exact = np.asarray(x, np.float32)
    np.testing.assert_array_equal(result, optimum(exact, Y, 1e-3, kernel=kernel))


def test_float16_images():
    x = jnp.asarray(X, jnp.float16)
    result = absum_jax.fgsm(LINEAR, x, Y, eps=1e-5)
    assert result.dtype == jnp.float32
    expected = optimum(np.asarray(x, np.float32), Y, 1e-5)
    np.testing.assert_array_equal(result, expected)


def dequantized(params, x):
    kernel = params["kernel"] * params["scale"]
    return linear({"kernel": kernel, "bias": params["bias"]}, x)


def test_integer_parameters():
    scale = np.float32(3.0 / 127)
    kernel = np.rint(PARAMS["kernel"] / scale).astype(np.int8)
    bias = np.zeros(2, np.int32)
    model = Partial(dequantized, {"kernel": kernel, "scale": scale, "bias": bias})
    result = attack(model, steps=9)
    expected = optimum(X, Y, 0.25, kernel=kernel.astype(np.float32))
    np.testing.assert_array_equal(result, expected)
    whole = Partial(linear, {"kernel": kernel, "bias": bias})
    np.testing.assert_array_equal(
        attack(whole, steps=9, loss=absum_jax.margin_loss), expected
    )


def undefined_beyond(threshold, params, x):
    """Linear logits, NaN where the first pixel is bright."""
    logits = linear(params, x)
    return jnp.where(x[:, :1, 0, 0] > threshold, jnp.nan, logits)


PARTLY_NAN_X = X.copy()
PARTLY_NAN_X[:, 0, 0, 0] = 0.1, 0.9, 0.1, 0.95, 0.2
IS_NAN = np.array([False, True, False, True, False])


@pytest.mark.filterwarnings("ignore:`logits_fn` had no gradient")
@pytest.mark.parametrize(
    "aim",
    [{}, {"restarts": 3, "early_stop": True}, {"restarts": 2, "targeted": True}],
    ids=lambda aim: "+".join(aim) or "default",
)
def test_nan_logits_of_some_images(aim):
    # Beyond infinity is nothing: with another threshold it is one program.
    model, linear_model = (Partial(undefined_beyond, t, PARAMS) for t in (0.5, np.inf))
    options = {"eps": 0.05, "step_size": 0.02, "steps": 6} | aim
    result = attack(model, PARTLY_NAN_X, **options)
    assert ((result >= 0) & (result <= 1)).all()
    assert (abs(result - PARTLY_NAN_X) <= 0.05 + 1e-7).all()
    # They stay where they start, and disturb no other image.
    begun = start(model, PARTLY_NAN_X, **options)
    np.testing.assert_array_equal(result[IS_NAN], begun[IS_NAN])
    expected = attack(linear_model, PARTLY_NAN_X, **options)
    np.testing.assert_array_equal(result[~IS_NAN], expected[~IS_NAN])


def infinite_slope(params, x):
    """Linear logits whose gradient is NaN at black pixels: 0 times infinity."""
    return linear(params, x) + 0 * jnp.sqrt(x).sum((1, 2, 3))[:, None]


def test_nan_gradients_with_finite_logits():
    x = X.copy()
    x[0, 0, 0] = x[3, 1, 2] = 0
    model = Partial(infinite_slope, PARAMS)
    assert np.isfinite(model(x)).all()
    result = absum_jax.fgsm(model, x, Y, eps=0.25)
    expected = optimum(x, Y, 0.25)
    stays = x == 0
    assert stays.sum() == 2
    np.testing.assert_array_equal(result[stays], 0)
    np.testing.assert_array_equal(result[~stays], expected[~stays])


@pytest.mark.parametrize("early_stop", [False, True])
def test_restarts_keep_an_image_that_was_broken_by_nan(early_stop):
    # Each start is bright, and NaN, by a coin's toss: more restarts find more of them.
    x = np.full((32, *SHAPE), 0.5, np.float32)
    model, y = Partial(undefined_beyond, 0.5, PARAMS), np.zeros(32, int)
    options = {"eps": 0.1, "step_size": 0.0, "steps": 1, "early_stop": early_stop}
    one, three = (
        np.isnan(model(attack(model, x, y, restarts=restarts, **options))).any(axis=1)
        for restarts in (1, 3)
    )
    assert 8 < one.sum() < 24 < three.sum()
    assert not (one & ~three).any()


@pytest.mark.filterwarnings("ignore:`logits_fn` had no gradient")
@pytest.mark.parametrize("early_stop", [False, True])
def test_restarts_of_a_targeted_attack_prefer_a_hit_to_nan(early_stop):
    # Dark images hit class 0, bright ones are NaN, which is no answer of any class.
    kernel, bias = np.zeros((6, 2), np.float32), np.array([1.0, 0.0], np.float32)
    model = Partial(undefined_beyond, 0.5, {"kernel": kernel, "bias": bias})
    x, y = np.full((32, *SHAPE), 0.5, np.float32), np.zeros(32, int)
    images = attack(
        model, x, y, eps=0.1, step_size=0.0, steps=1, restarts=3, targeted=True,
        early_stop=early_stop,
    )  # fmt: skip
    assert (images[:, 0, 0, 0] <= 0.5).mean() > 0.7


def overflowing(params, x):
    """Linear logits; class 1 wins at bright images, class 0 infinitely at dark ones."""
    bright = x[:, :1, 0, 0] > 0.5
    return jnp.where(bright, params["bias"], jnp.array([jnp.inf, 0.0])) + 0 * x.sum()


def test_restarts_prefer_a_broken_image_to_an_infinitely_certain_one():
    # inf - inf: the cross-entropy of an infinite logit is NaN, even of the own class.
    model = Partial(overflowing, {"bias": np.array([0.0, 1.0], np.float32)})
    x, y = np.full((32, *SHAPE), 0.5, np.float32), np.zeros(32, int)
    with pytest.warns(UserWarning, match="had no gradient at"):  # but NaN
        images = attack(model, x, y, eps=0.1, step_size=0.0, steps=1, restarts=3)
    assert (np.asarray(model(images)).argmax(axis=1) == 1).mean() > 0.7


def test_jit_and_vmap_around_the_attack():
    several = [cnn_params(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)

    def attacked(params, eps, key):
        model = Partial(cnn, "mean", params)
        options = {"step_size": 0.02, "steps": 2}
        return absum_jax.pgd(model, CNN_X, CNN_Y, key=key, eps=eps, **options)

    result = jax.jit(jax.vmap(attacked, in_axes=(0, None, None)))(stacked, 0.1, KEY)
    for images, params in zip(result, several, strict=True):
        np.testing.assert_allclose(images, attacked(params, 0.1, KEY), atol=1e-6)


def test_a_plain_function_is_attacked_as_its_pytree():
    expected = attack(MODEL, MANY_X, MANY_Y, **WEAK)
    plain = attack(lambda x: cnn("mean", cnn_params(0), x), MANY_X, MANY_Y, **WEAK)
    np.testing.assert_allclose(plain, expected, atol=1e-6)


def test_a_list_of_traced_eps():
    @jax.jit
    def attacked(eps):
        return attack(eps=[eps, 2 * eps])

    np.testing.assert_array_equal(attacked(0.1), attack(eps=[0.1, 0.2]))
