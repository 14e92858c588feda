"""evaluation/auto_attack.py: linear models, order, masks, batches, eps, problems."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import absum_jax
from absum_jax.evaluation import auto_attack as module

KEY = jax.random.key(5)
SHAPE = (3, 4, 1)
QUICK = {"steps": 6, "queries": 25}


def linear(weights, x):
    return x.reshape(len(x), -1) @ weights[0] + weights[1]


def waves(weights, x):
    return jnp.sin(3 * x.reshape(len(x), -1) @ weights[0]) @ weights[1]


def wavy_model(seed=0, classes=4):
    rng = np.random.default_rng(seed)
    shapes = (12, 8), (8, classes)
    return Partial(waves, tuple(np.float32(rng.normal(size=s)) for s in shapes))


def images(model, count, seed=1):
    """Images with labels, of which the model gets nine of ten right."""
    x = np.float32(np.random.default_rng(seed).uniform(size=(count, *SHAPE)))
    y = np.asarray(model(x).argmax(axis=1))
    return x, np.where(np.arange(count) % 10 == 7, (y + 1) % 4, y)


WAVES = wavy_model()
X, Y = images(WAVES, 33)
attack = functools.partial(absum_jax.auto_attack, key=KEY, **QUICK)


def test_accuracy_of_a_linear_model_in_closed_form():
    rng = np.random.default_rng(0)
    kernel = np.float32(rng.normal(size=(12, 4)))
    model = Partial(linear, (kernel, np.float32(rng.normal(size=4))))
    x = np.float32(rng.uniform(0.45, 0.55, (60, *SHAPE)))
    logits = np.asarray(model(x))
    y = logits.argmax(axis=1)
    rows = np.arange(60)
    # To each other class, in units of the largest change of a pixel.
    leads = logits[rows, y][:, None] - logits
    sums = np.abs(kernel.T[y][:, :, None] - kernel[None]).sum(axis=1)
    sums[rows, y] = 1
    leads[rows, y] = np.inf
    distance = (leads / sums).min(axis=1)
    eps = np.quantile(distance, [0.0, 0.3, 0.6])
    eps = np.float32((eps + np.sort(distance)[[1, 19, 37]]) / 2)
    result = absum_jax.auto_attack(model, x, y, key=KEY, eps=eps, **QUICK)
    expected = [(distance > e).mean() for e in eps]
    np.testing.assert_allclose(result.accuracy, expected, atol=1e-6)
    for name in module.COMPONENTS:
        alone = absum_jax.auto_attack(
            model, x, y, key=KEY, eps=eps[2], components=(name,), steps=30, queries=400
        )
        # None beyond the distance. The cross-entropy mixes classes, FAB oversteps the
        # boundary by 5 %, and a search is random.
        assert not (np.asarray(alone.broken_by > 0) & (distance > eps[2])).any()
        missed = alone.accuracy - expected[2]
        assert missed <= {"apgd-t": 1e-6, "square": 0.3}.get(name, 0.1)


def test_eps_zero_is_the_clean_accuracy():
    result = attack(WAVES, X, Y, eps=0.0)
    assert result.accuracy == absum_jax.accuracy(WAVES, X, Y)
    np.testing.assert_array_equal(result.images, X)
    assert ((result.broken_by == 1) == (np.asarray(WAVES(X).argmax(axis=1)) != Y)).all()


def _check(result, x=X, y=Y, model=WAVES):
    """What always holds."""
    for eps, of_eps, by in zip(
        result.eps, result.images, np.asarray(result.broken_by), strict=True
    ):
        wrong = np.asarray(model(of_eps).argmax(axis=1)) != y
        np.testing.assert_array_equal(by > 0, wrong)
        assert np.abs(np.asarray(of_eps) - x).max() <= eps + 6e-8
        assert of_eps.min() >= 0
        assert of_eps.max() <= 1
        np.testing.assert_array_equal(of_eps[by == 0], x[by == 0])
        np.testing.assert_array_equal(of_eps[by == 1], x[by == 1])


def test_batches_masks_and_order_of_eps_do_not_matter():
    eps = [0.05, 0.02, 0.1]
    whole = attack(WAVES, X, Y, eps=eps)
    _check(whole)
    assert set(np.unique(whole.broken_by)) >= {0, 1, 2}
    assert whole.accuracy[1] > whole.accuracy[0] > whole.accuracy[2]
    # Of 9, 3 and 1 images, and the first two sizes are compiled: 33, 9 and 3.
    in_batches = attack(WAVES, X, Y, eps=eps, batch_size=9)
    masked = jax.jit(lambda model, x: attack(model, x, Y, eps=eps))(WAVES, X)
    for other in (in_batches, masked):
        np.testing.assert_array_equal(whole.broken_by, other.broken_by)
        np.testing.assert_array_equal(whole.forward, other.forward)
        np.testing.assert_array_equal(whole.backward, other.backward)
        np.testing.assert_allclose(whole.images, other.images, atol=1e-5)
    alone = attack(WAVES, X, Y, eps=0.02)
    assert alone.images.shape == X.shape
    np.testing.assert_array_equal(alone.broken_by, whole.broken_by[1])


def test_vmap_over_models():
    each = wavy_model(0), wavy_model(1)
    models = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    both = jax.vmap(lambda model: attack(model, X, Y, eps=0.05))(models)
    for i in range(2):
        alone = attack(each[i], X, Y, eps=0.05)
        np.testing.assert_array_equal(both.broken_by[i], alone.broken_by)
    assert str(both) == repr(both)
    for read in (lambda: both.name, lambda: both.rows):
        with pytest.raises(ValueError, match=r"`components` must be .* shape \(2, 4\)"):
            read()
    first = jax.tree.map(lambda array: array[0], both)
    assert first.name == "APGD + FAB-T + Square, 6 steps, 25 queries"


def test_logits_of_another_dtype_than_the_images():
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, WAVES)
        assert wide(X).dtype == jnp.float64
        result = attack(wide, X, Y, eps=0.05)
    expected = attack(WAVES, X, Y, eps=0.05)
    assert result.images.dtype == jnp.float32
    np.testing.assert_array_equal(result.broken_by, expected.broken_by)


def test_each_attack_only_sees_what_the_others_left():
    result = attack(WAVES, X, Y, eps=0.05)
    by = np.asarray(result.broken_by)
    forward, backward = np.asarray(result.forward), np.asarray(result.backward)
    for index in range(4):
        seen = forward[:, index] > 0
        np.testing.assert_array_equal(seen, (by == 0) | (by >= index + 2))
    robust = by == 0
    targets = 3
    np.testing.assert_array_equal(
        forward[robust], [[7, 7 * targets, 2 * 6 * targets, 26]] * robust.sum()
    )
    np.testing.assert_array_equal(
        backward[robust], [[7, 7 * targets, 6 * targets, 0]] * robust.sum()
    )


def test_a_component_draws_by_its_place_and_the_place_of_the_image():
    place = list(module.COMPONENTS).index("square")
    keys = [jax.random.fold_in(KEY, i) for i in range(len(X))]
    keys = jnp.stack([jax.random.fold_in(key, 100 * place + 1) for key in keys])
    alone = absum_jax.square(WAVES, X, Y, key=keys, eps=0.1, queries=QUICK["queries"])
    found = attack(WAVES, X, Y, eps=0.1, components=("square",), batch_size=8)
    is_broken = np.asarray(found.broken_by > 1)
    assert 0 < is_broken.sum() < len(X)
    np.testing.assert_allclose(found.images[is_broken], alone[is_broken], atol=1e-6)


def test_never_more_accurate_than_its_parts():
    whole = absum_jax.auto_attack(WAVES, X, Y, key=KEY, eps=0.04, queries=100)
    pgd = absum_jax.pgd_accuracy(
        WAVES, X, Y, key=KEY, eps=0.04, step_size=0.01, steps=40
    )
    assert whole.accuracy <= pgd.accuracy + 1 / len(X)


@pytest.mark.parametrize(
    ("components", "options", "name"),
    [
        (("apgd-ce", "apgd-t", "fab-t", "square"), {}, "AutoAttack"),
        (("square", "apgd-t", "apgd-ce"), {}, "APGD + Square"),
        (("square",), {"steps": 7}, "Square"),
        (("fab-t",), {"steps": 7, "queries": 1}, "FAB-T, 7 steps"),
        (
            ("apgd-ce", "apgd-t", "fab-t", "square"),
            {"steps": 2, "queries": 1234},
            "APGD + FAB-T + Square, 2 steps, 1,234 queries",
        ),
    ],
)
def test_only_the_standard_version_is_autoattack(components, options, name):
    # Clean errors only, so that nothing is attacked.
    result = absum_jax.auto_attack(
        WAVES, X[7:8], Y[7:8], key=KEY, eps=0.1, components=components, **options
    )
    assert result.name == name
    assert len(result.rows) == 1 + len(components)
    assert f"{name}, 1 images." in str(result)


def test_table():
    result = attack(WAVES, X, Y, eps=[0.02, 0.05], components=("apgd-ce", "square"))
    lines = str(result).splitlines()
    assert len(lines) == 2 + 6 + 2
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells == ["clean", "0.02", "3", "90.91", "76.43 to 96.86", "0", "0"]
    rows = result.rows
    assert [row["attack"] for row in rows[:3]] == ["clean", "APGD-CE", "Square"]
    last = rows[-1]
    assert last["accuracy"] == pytest.approx(float(result.accuracy[1]))
    assert last["low"] < last["accuracy"] < last["high"]
    assert last["forward"] == int(result.forward[1, :, 3].sum())
    assert "<table>" in result._repr_html_()
    assert repr(result).startswith("AutoAttackResult(eps=[0.02, 0.05], accuracy=[")


def test_results_remain_pytrees_of_anything():
    result = attack(WAVES, X, Y, eps=[0.02], components=("square",))
    for other in (
        jax.eval_shape(lambda: result),
        jax.tree.map(lambda _: None, result),
        jax.tree.map(lambda _: "PartitionSpec", result),
    ):
        assert repr(other) == str(other)
        assert all(f"{field}=" in repr(other) for field in result._fields)
        assert other._repr_html_() is None


def test_problems_are_reported_once():
    def probabilities(x):
        return jax.nn.softmax(WAVES(x))

    def flat(x):
        return jnp.zeros((len(x), 4)) * x.sum(axis=(1, 2, 3))[:, None]

    with pytest.warns(UserWarning, match="Probabilities") as caught:
        result = attack(probabilities, X, Y, eps=[0.0, 0.1])
    assert [str(w.message) for w in caught] == [
        "Probabilities in place of logits for 33 images; return their logarithms."
    ]
    assert str(caught[0].message) in str(result)
    y = np.zeros(33, int)
    with (
        pytest.warns(UserWarning, match="No gradient at 33 images") as caught,
        pytest.warns(UserWarning, match="Equal logits of all classes for 33 images"),
    ):
        result = attack(flat, X, y, eps=[0.1, 0.2])
    assert result.problems.no_gradient == 33
    assert result.problems.equal_logits == 33
    assert result.accuracy.tolist() == [1, 1]


def test_traced_images_out_of_range_are_counted():
    beyond = X.copy()
    beyond[3] += 2
    beyond[4, 0, 0] = 1.01
    result = jax.jit(lambda x: attack(WAVES, x, Y, eps=0.0))(beyond)
    assert result.problems.out_of_range == 2


def test_nan_logits_are_counted():
    def undefined(x):
        """Is NaN at bright images, some of which are so after an attack alone."""
        bright = x.max(axis=(1, 2, 3)) > 0.97
        return jnp.where(bright[:, None], jnp.nan, WAVES(x))

    expected = (X.max(axis=(1, 2, 3)) > 0.97).sum()
    assert 0 < expected < len(X)
    with pytest.warns(UserWarning, match=f"NaN logits for {expected} images"):
        result = attack(undefined, X, Y, eps=0.0)
    assert result.problems.nan_logits == expected
    with pytest.warns(UserWarning, match="NaN logits"):
        result = attack(undefined, X, Y, eps=0.1)
    attacked = result.images.max(axis=(1, 2, 3)) > 0.97
    assert result.problems.nan_logits == attacked.sum() > expected
    found = jax.jit(lambda x: attack(undefined, x, Y, eps=0.1))(X)
    assert found.problems.nan_logits == attacked.sum()


def test_a_traced_eps_that_is_negative_gives_nan_alone():
    eps = jnp.array([-0.1, 0.0, 0.1])
    result = jax.jit(lambda eps: attack(WAVES, X, Y, eps=eps))(eps)
    assert np.isnan(result.accuracy[0])
    expected = attack(WAVES, X, Y, eps=eps[1:])
    np.testing.assert_array_equal(result.accuracy[1:], expected.accuracy)


@pytest.mark.parametrize(
    "components", [(), ("pgd",), ("square", "square"), "square", None, [["square"]]]
)
def test_unknown_components(components):
    with pytest.raises(ValueError, match="`components` must be different names out of"):
        attack(WAVES, X, Y, eps=0.1, components=components)


def test_too_few_classes():
    model = wavy_model(classes=3)
    with pytest.raises(ValueError, match="`logits_fn` must return at least four"):
        attack(model, X, Y % 3, eps=0.1)
    without = attack(model, X, Y % 3, eps=0.1, components=("apgd-ce", "fab-t"))
    assert without.accuracy <= 1


@pytest.mark.parametrize("left", [1, 3, 16, 17, 40, 63, 64, 200, 256, 1000])
def test_pieces_hold_all_images_with_little_padding(left):
    sizes = [256, 64, 16]
    yielded = list(module.pieces(left, sizes))
    assert sum(yielded) - left < max(left, 16)
    assert sum(yielded[:-1]) < left <= sum(yielded)
    assert len(yielded) <= left / 256 + 5


def shifted(weights, z):
    return waves(weights, (z + 1) / 4)


@pytest.mark.parametrize("component", ["apgd-ce", "fab-t", "square"])
def test_other_bounds_are_other_units(component):
    """The same model of images in [-1, 3]: each attack has to know the bounds."""
    x = np.round(256 * X) / np.float32(256)  # 4 x - 1 is exact
    model, options = Partial(shifted, WAVES.args[0]), {"components": (component,)}
    expected = attack(WAVES, x, Y, eps=0.05, **options)
    found = attack(model, 4 * x - 1, Y, eps=0.2, bounds=(-1.0, 3.0), **options)
    np.testing.assert_array_equal(found.broken_by, expected.broken_by)
    np.testing.assert_allclose((found.images + 1) / 4, expected.images, atol=1e-5)
    # Some by the attack, some are wrong before, some hold.
    column = 2 + module.COMPONENTS[component].column
    assert set(np.unique(found.broken_by)) == {0, 1, column}


@pytest.mark.parametrize(("classes", "targets"), [(6, 5), (12, 9)])
def test_targets_are_nine_classes_at_most(classes, targets):
    # As in the standard version; nothing is broken, so that each target is tried.
    kernel = np.float32(np.random.default_rng(0).normal(size=(12, classes)))
    model = Partial(linear, (kernel, 50 * np.eye(classes, dtype=np.float32)[0]))
    y = np.zeros(3, int)
    result = absum_jax.auto_attack(
        model, X[:3], y, key=KEY, eps=1e-3, components=("apgd-t", "fab-t"), steps=2
    )
    assert result.accuracy == 1
    passes = [[0, 3 * targets, 2 * 2 * targets, 0]] * 3
    np.testing.assert_array_equal(result.forward, passes)
