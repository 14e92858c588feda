"""evaluation/gradient.py: what pgd returns, counted; and models that change."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.tree_util import Partial

import absum_jax
from absum_jax.evaluation import counting

KEY = jax.random.key(0)
CLASSES = 3
COUNT = 23


def apply(params, x):
    hidden = jnp.tanh(x.reshape(len(x), -1) @ params["hidden"])
    return hidden @ params["head"]


def make_params(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "hidden": rng.normal(size=(12, 8)).astype(np.float32),
        "head": rng.normal(size=(8, CLASSES)).astype(np.float32),
    }


PARAMS = make_params()
MODEL = Partial(apply, PARAMS)
X = np.random.default_rng(1).uniform(size=(COUNT, 3, 4, 1)).astype(np.float32)
Y = np.asarray(apply(PARAMS, X)).argmax(axis=1)
Y[::7] = (Y[::7] + 1) % CLASSES
SETTING = {"key": KEY, "step_size": 0.02, "steps": 3}
EPS = [0.0, 0.05, 0.1]


def right(logits, y=Y):
    return np.asarray(logits).argmax(axis=1) == y


def share(flags):
    return np.float32(np.mean(flags))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init_radius": 0.01, "step_size": [0.01, 0.02, 0.05]},
        {"restarts": 2, "early_stop": True, "loss": absum_jax.margin_loss},
        {"bounds": (-0.5, 1.25)},
    ],
    ids=lambda options: "+".join(options) or "default",
)
def test_accuracy_on_the_images_of_pgd(options):
    options = SETTING | options
    result = absum_jax.pgd_accuracy(MODEL, X, Y, eps=EPS, **options, batch_size=10)
    attacked = absum_jax.pgd(MODEL, X, Y, eps=EPS, **options)
    expected = [share(right(MODEL(images))) for images in attacked]
    assert len(set(expected)) == 3
    np.testing.assert_array_equal(result.accuracy, expected)
    np.testing.assert_array_equal(result.accuracy, [
        absum_jax.accuracy(MODEL, images, Y) for images in attacked
    ])  # fmt: skip
    np.testing.assert_array_equal(result.nan_logits, 0)
    np.testing.assert_array_equal(result.strength, np.float32(EPS))
    assert isinstance(result, absum_jax.AttackAccuracy)


def test_a_scalar_eps_gives_scalars():
    result = absum_jax.pgd_accuracy(MODEL, X, Y, eps=0.1, **SETTING)
    several = absum_jax.pgd_accuracy(MODEL, X, Y, eps=[0.1], **SETTING)
    assert [leaf.shape for leaf in result] == [()] * 5
    assert [leaf.shape for leaf in several] == [(1,)] * 5
    jax.tree.map(np.testing.assert_array_equal, result, jax.tree.map(np.ravel, several))


def test_fgsm_as_the_docstring_says():
    eps = [0.02, 0.1]
    result = absum_jax.pgd_accuracy(
        MODEL, X, Y, key=KEY, eps=eps, step_size=eps, steps=1, init_radius=0
    )
    attacked = absum_jax.fgsm(MODEL, X, Y, eps=eps)
    expected = [share(right(MODEL(images))) for images in attacked]
    np.testing.assert_array_equal(result.accuracy, expected)


def test_independent_of_the_batch_size():
    def evaluate(batch_size, step_size):
        # Without steps the random starts decide: noise that went by the place in a
        # batch would be seen.
        options = SETTING | {"restarts": 2, "early_stop": True, "step_size": step_size}
        return absum_jax.pgd_accuracy(
            MODEL, X, Y, **options, eps=[0.1, 0.3], batch_size=batch_size
        ).accuracy

    for step_size in (0.0, 0.02):
        expected = evaluate(100, step_size)
        assert 0 < expected[1] < expected[0] < 1
        for batch_size in (1, 5):
            np.testing.assert_array_equal(evaluate(batch_size, step_size), expected)


@pytest.mark.parametrize("batch_size", [4, COUNT])
def test_eps_zero_is_clean_accuracy(batch_size):
    clean = absum_jax.accuracy(MODEL, X, Y, batch_size=batch_size)
    attacked = absum_jax.pgd_accuracy(
        MODEL, X, Y, eps=0.0, **SETTING, batch_size=batch_size, init_radius=0.5
    )
    assert attacked.accuracy == clean


def test_steps_end_with_the_last_batch_that_is_padded():
    passes = []

    def logits_fn(x):
        jax.debug.callback(lambda _: passes.append(1), x[0])
        # Padding is black, and of class 0: right for ever.
        return jnp.stack([0.6 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.6], axis=-1)

    x, y = np.full((5, 1, 1, 1), 0.5, np.float32), np.zeros(5, int)
    result = absum_jax.pgd_accuracy(
        logits_fn, x, y, key=KEY, eps=0.2, step_size=0.1, steps=50, init_radius=0,
        early_stop=True, batch_size=2,
    )  # fmt: skip
    assert result.accuracy == 0
    jax.effects_barrier()
    assert 3 < len(passes) < 20


def test_top_k():
    options = SETTING | {"eps": 0.3}
    result = absum_jax.pgd_accuracy(MODEL, X, Y, **options, top_k=2)
    logits = np.asarray(MODEL(absum_jax.pgd(MODEL, X, Y, **options)))
    best = np.argsort(-logits, axis=1)[:, :2]
    expected = share((best == Y[:, None]).any(axis=1))
    assert result.accuracy == expected > share(right(logits))
    options["eps"] = [0.0, 0.3]
    both = absum_jax.pgd_accuracy(MODEL, X, Y, **options, top_k=(2, 1))
    assert both.accuracy.shape == (2, 2)
    assert both.accuracy[:, 1].tolist() == [expected, share(right(logits))]


def kinds_of_models():
    """Models as the pytrees and functions that may be given."""
    return {
        "Partial": MODEL,
        "function": lambda x: apply(PARAMS, x),
        "nnx": nnx_model(),
    }


class NnxModel(nnx.Module):
    """A model that behaves differently in training."""

    def __init__(self, rngs, features=4):
        self.conv = nnx.Conv(1, features, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(features, CLASSES, rngs=rngs)
        self.activation = jnp.tanh

    def __call__(self, x):
        x = self.activation(self.norm(self.conv(x))).mean((1, 2))
        return self.head(self.dropout(x))


def nnx_model(seed=0):
    model = NnxModel(nnx.Rngs(seed))
    model.norm.mean[...] = np.float32(0.25)
    model.norm.var[...] = np.float32(0.5)
    model.eval()
    return model


TARGET = Partial(apply, make_params(5))
TARGET_Y = np.asarray(TARGET(X)).argmax(axis=1)


@pytest.mark.parametrize("kind", kinds_of_models())
def test_transfer_from_any_kind_of_substitute(kind):
    substitute = kinds_of_models()[kind]
    options = SETTING | {"eps": [0.1, 0.4], "step_size": 0.1}
    result = absum_jax.pgd_accuracy(
        TARGET, X, TARGET_Y, **options, substitute=substitute, batch_size=12
    )
    attacked = absum_jax.pgd(substitute, X, TARGET_Y, **options)
    expected = [share(right(TARGET(images), TARGET_Y)) for images in attacked]
    assert expected[1] < 1
    np.testing.assert_array_equal(result.accuracy, expected)
    direct = absum_jax.pgd_accuracy(TARGET, X, TARGET_Y, **options)
    assert (direct.accuracy <= result.accuracy).all()
    assert direct.accuracy[1] < result.accuracy[1]


@pytest.mark.parametrize("kind", ["function", "nnx"])
def test_transfer_to_another_kind_of_model(kind):
    target = kinds_of_models()[kind]
    y = np.asarray(target(X)).argmax(axis=1)
    options = SETTING | {"eps": 0.5, "step_size": 0.2}
    result = absum_jax.pgd_accuracy(target, X, y, **options, substitute=TARGET)
    attacked = absum_jax.pgd(TARGET, X, y, **options)
    assert result.accuracy == share(right(target(attacked), y)) < 1


@pytest.mark.parametrize(
    "option", [{"substitute": MODEL}, {"top_k": 2}, {"top_k": (1, 2)}], ids=list
)
def test_early_stop_at_another_mistake_than_the_one_counted_is_refused(option):
    with pytest.raises(ValueError, match="`early_stop` must be False with a `subst"):
        absum_jax.pgd_accuracy(
            TARGET, X, TARGET_Y, **SETTING, eps=0.4, early_stop=True, **option
        )


def test_a_substitute_of_more_classes():
    params = make_params(1)
    wider = np.concatenate([params["head"], -params["head"]], axis=1)
    substitute = Partial(apply, params | {"head": wider})
    options = SETTING | {"eps": 0.4}
    result = absum_jax.pgd_accuracy(MODEL, X, Y, **options, substitute=substitute)
    attacked = absum_jax.pgd(substitute, X, Y, **options)
    assert result.accuracy == share(right(MODEL(attacked)))


def test_vmap_over_stacked_params():
    several = [make_params(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)

    def evaluate(params):
        return absum_jax.pgd_accuracy(
            Partial(apply, params), X, Y, eps=[0.0, 0.2], batch_size=12, **SETTING
        )

    result = jax.jit(jax.vmap(evaluate))(stacked)
    expected = [evaluate(params) for params in several]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
    assert len(np.unique(expected.accuracy)) > 2
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_everything_but_shapes_can_be_traced():
    @jax.jit
    def evaluate(params, x, y, key, eps, step_size, steps, init_radius):
        return absum_jax.pgd_accuracy(
            Partial(apply, params), x, y, key=key, eps=eps, step_size=step_size,
            steps=steps, init_radius=init_radius,
        )  # fmt: skip

    arguments = jnp.array([0.1, 0.2]), 0.03, 4, jnp.array([0.0, 0.1])
    result = evaluate(PARAMS, X, Y, KEY, *arguments)
    eps, step_size, steps, init_radius = arguments
    expected = absum_jax.pgd_accuracy(
        MODEL, X, Y, key=KEY, eps=eps, step_size=step_size, steps=steps,
        init_radius=init_radius,
    )  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def partly_undefined(params, x):
    return jnp.where(x[:, :1, 0, 0] > 0.75, jnp.nan, apply(params, x))


def test_nan_logits_are_wrong_and_reported():
    model = Partial(partly_undefined, PARAMS)
    x, is_nan = X.copy(), np.arange(COUNT) % 4 == 0
    x[:, 0, 0, 0] = np.where(is_nan, 0.95, 0.1)
    options = SETTING | {"eps": [0.0, 0.1], "restarts": 2}
    result = absum_jax.pgd_accuracy(model, x, Y, **options, batch_size=8)
    np.testing.assert_array_equal(result.nan_logits, share(is_nan))
    attacked = absum_jax.pgd(MODEL, x, Y, **options)
    expected = [share(right(MODEL(images)) & ~is_nan) for images in attacked]
    np.testing.assert_array_equal(result.accuracy, expected)


def test_nan_logits_of_every_image():
    model = Partial(lambda x: jnp.full((len(x), CLASSES), jnp.nan))
    result = absum_jax.pgd_accuracy(model, X, Y, **SETTING, eps=0.1)
    assert (result.accuracy, result.nan_logits) == (0, 1)


def test_early_stop_accuracy_never_rises_with_steps():
    options = SETTING | {"eps": [0.1, 0.2], "early_stop": True, "restarts": 2}
    accuracies = [
        absum_jax.pgd_accuracy(MODEL, X, Y, **options | {"steps": steps}).accuracy
        for steps in (1, 2, 4, 8)
    ]
    assert (np.diff(accuracies, axis=0) <= 0).all()
    assert (accuracies[-1] < accuracies[0]).all()


@pytest.mark.parametrize(("passes", "total"), [(2**20, 6 * 2**20), (2**29, 2**31 - 1)])
def test_passes_beyond_integers_are_the_largest_one(passes, total):
    batches = counting.in_batches(jnp.zeros((6, 2, 2, 1)), jnp.zeros(6, int), 2)

    def attack(batch):
        return batch.x, jnp.full(batch.y.shape, passes, jnp.int32)

    _, found = counting.count(lambda x: x[:, 0, :, 0], attack, batches, 1)
    assert found == total


def test_bfloat16_images():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), PARAMS)
    model, x = Partial(apply, params), jnp.asarray(X, jnp.bfloat16)
    result = absum_jax.pgd_accuracy(model, x, Y, eps=0.1, **SETTING)
    assert result.accuracy.dtype == jnp.float32
    exact = absum_jax.pgd_accuracy(model, x.astype(jnp.float32), Y, eps=0.1, **SETTING)
    assert result.accuracy == exact.accuracy


@pytest.mark.parametrize("batch_size", [5, 100])
def test_batch_norm_in_evaluation_mode(batch_size):
    model = nnx_model()
    statistics = (nnx.Param, nnx.BatchStat)
    before = jax.tree.map(np.array, nnx.state(model, statistics))
    y = np.asarray(model(X)).argmax(axis=1)
    y[::5] = (y[::5] + 1) % CLASSES
    options = SETTING | {"step_size": 0.1, "batch_size": batch_size}
    result = absum_jax.pgd_accuracy(model, X, y, eps=[0.0, 0.5], **options)
    clean = absum_jax.accuracy(model, X, y, batch_size=batch_size)
    assert result.accuracy[0] == clean == share(right(model(X), y))
    assert result.accuracy[1] < clean
    absum_jax.pgd(model, X, y, eps=0.5, **SETTING)
    after = jax.tree.map(np.array, nnx.state(model, statistics))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    jax.tree.map(np.testing.assert_array_equal, before, after)


class EquinoxModel(eqx.Module):
    """A model with dropout, and a function among its leaves."""

    hidden: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear
    activation: object

    def __init__(self, key):
        self.hidden = eqx.nn.Linear(12, 8, key=key)
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(8, CLASSES, key=key)
        self.activation = jnp.tanh

    def __call__(self, x):
        def one(x):
            x = self.activation(self.hidden(4 * x.ravel() - 2))
            return self.head(self.dropout(x))

        return jax.vmap(one)(x)


def linen_model():
    model = linen.Sequential([lambda x: x.reshape(len(x), -1), linen.Dense(CLASSES)])
    return Partial(model.apply, model.init(jax.random.key(0), X))


FRAMEWORKS = {
    "equinox": lambda: eqx.nn.inference_mode(EquinoxModel(jax.random.key(0))),
    "linen": linen_model,
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks(framework):
    model = FRAMEWORKS[framework]()
    y = np.asarray(model(X)).argmax(axis=1)
    options = SETTING | {"eps": 0.5, "step_size": 0.1}
    attacked = absum_jax.pgd(model, X, y, **options)
    result = absum_jax.pgd_accuracy(model, X, y, **options)
    assert result.accuracy == share(right(model(attacked), y)) < 1


ATTACKS = {
    "fgsm": functools.partial(absum_jax.fgsm, eps=0.1),
    "pgd": functools.partial(absum_jax.pgd, eps=0.1, **SETTING),
    "pgd_accuracy": functools.partial(absum_jax.pgd_accuracy, eps=0.1, **SETTING),
    "low_pass_accuracy": functools.partial(absum_jax.low_pass_accuracy, radius=1),
    "corruption_accuracy": functools.partial(
        absum_jax.corruption_accuracy, kind="contrast", key=KEY
    ),
    "fourier_sensitivity": absum_jax.fourier_sensitivity,
    "fourier_noise_accuracy": functools.partial(
        absum_jax.fourier_noise_accuracy, norm=0.1, key=KEY
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_module_in_training_mode_is_refused(attack):
    model = nnx_model()
    model.dropout.train()
    with pytest.raises(ValueError, match=r"`logits_fn`.*evaluation mode.*dropout"):
        ATTACKS[attack](model, X, Y)
    training = EquinoxModel(jax.random.key(0))
    with pytest.raises(ValueError, match=r"`logits_fn`.*evaluation mode.*dropout"):
        ATTACKS[attack](training, X, Y)


def test_a_substitute_in_training_mode_is_refused():
    model = nnx_model()
    model.norm.train()
    with pytest.raises(ValueError, match=r"`substitute`.*evaluation mode.*norm"):
        absum_jax.pgd_accuracy(MODEL, X, Y, eps=0.1, substitute=model, **SETTING)


def test_plain_functions_are_never_stale():
    state = {"sign": 1.0, "classes": 2}

    def logits_fn(x):
        bright = state["sign"] * (x.mean((1, 2, 3)) - 0.5)
        return jnp.stack([-bright, *[bright] * (state["classes"] - 1)], axis=-1)

    x = np.array([0.1, 0.2, 0.8], np.float32).reshape(3, 1, 1, 1)
    y = np.array([0, 0, 1])
    options = SETTING | {"eps": 0.1, "step_size": 0.1}

    def attacked():
        return np.ravel(absum_jax.pgd(logits_fn, x, y, **options))

    def evaluated():
        return absum_jax.pgd_accuracy(logits_fn, x, y, **options).accuracy

    np.testing.assert_allclose(attacked(), [0.2, 0.3, 0.7], atol=1e-6)
    assert evaluated() == 1
    state["sign"] = -1.0
    np.testing.assert_allclose(attacked(), [0.0, 0.1, 0.9], atol=1e-6)
    assert evaluated() == 0
    # Nor is the number of classes remembered.
    y[:] = 2
    with pytest.raises(ValueError, match=r"`y` must lie in 0\.\.1"):
        attacked()
    state["classes"] = 3
    attacked()
    state["classes"] = 2
    with pytest.raises(ValueError, match=r"`y` must lie in 0\.\.1"):
        attacked()


def test_plain_substitutes_are_never_stale():
    state = {"params": PARAMS}
    options = SETTING | {"eps": 0.3, "step_size": 0.1}

    def evaluate(substitute):
        return absum_jax.pgd_accuracy(MODEL, X, Y, **options, substitute=substitute)

    def changing(x):
        return apply(state["params"], x)

    assert evaluate(changing).accuracy == evaluate(None).accuracy
    state["params"] = make_params(9)
    after = evaluate(changing).accuracy
    assert after == evaluate(Partial(apply, state["params"])).accuracy
    assert after > evaluate(None).accuracy


class Scorer:
    """An object with state that may change, which is no pytree."""

    sign = 1.0

    def apply(self, params, x):
        return self.sign * apply(params, x)


class Holder(nnx.Module):
    """A module with such an object for an attribute."""

    def __init__(self, scorer, rngs):
        self.linear = nnx.Linear(12, CLASSES, rngs=rngs)
        self.scorer = scorer

    def __call__(self, x):
        return self.scorer.sign * self.linear(x.reshape(len(x), -1))


def set_parameter(model):
    model.head.kernel[...] = -model.head.kernel[...]
    model.head.bias[...] = -model.head.bias[...]


def set_layer(model):
    model.head = nnx.Linear(4, CLASSES, rngs=nnx.Rngs(7))


def set_function(model):
    model.activation = jax.nn.relu


def set_statistics(model):
    model.norm.mean[...] = np.float32(-3.0)
    model.norm.scale[...] = -model.norm.scale[...]


def set_more_classes(model):
    model.head = nnx.Linear(4, CLASSES + 2, rngs=nnx.Rngs(3))


def evaluations(model, y):
    """One result from the logits, one from their gradient."""
    return absum_jax.accuracy(model, X, y), absum_jax.fgsm(model, X, y, eps=0.1)


@pytest.mark.parametrize(
    "change",
    [set_parameter, set_layer, set_function, set_statistics, set_more_classes],
    ids=lambda change: change.__name__,
)
def test_a_module_changed_in_place_is_never_stale(change):
    model = nnx_model()
    y = np.asarray(model(X)).argmax(axis=1)
    before = evaluations(model, y)
    assert before[0] == 1
    change(model)
    after = evaluations(model, y)
    assert after[0] == share(right(model(X), y)) < 1
    expected = absum_jax.fgsm(lambda x: model(x), X, y, eps=0.1)
    np.testing.assert_allclose(after[1], expected, atol=1e-6)
    assert abs(expected - before[1]).max() > 0.1


HOLDERS = {
    "nnx attribute": lambda scorer: Holder(scorer, nnx.Rngs(0)),
    "Partial method": lambda scorer: Partial(scorer.apply, PARAMS),
    "Partial argument": lambda scorer: Partial(
        lambda scorer, params, x: scorer.apply(params, x), scorer, PARAMS
    ),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_model_with_a_changing_object_is_never_stale(holder):
    scorer = Scorer()
    model = HOLDERS[holder](scorer)
    y = np.asarray(model(X)).argmax(axis=1)
    assert evaluations(model, y)[0] == 1
    scorer.sign = -1.0
    result, attacked = evaluations(model, y)
    assert result == share(right(model(X), y)) < 1
    expected = absum_jax.fgsm(lambda x: model(x), X, y, eps=0.1)
    np.testing.assert_allclose(attacked, expected, atol=1e-6)
