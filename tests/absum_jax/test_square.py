"""attacks/square.py: extremes of linear models, the schedule, and hidden gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import absum_jax
from absum_jax.attacks import square

KEY = jax.random.key(0)


def of_sum(pictures, x):
    """Logits that are products of the image with a picture for each class."""
    return jnp.einsum("nhwc,khwc->nk", x, pictures)


@pytest.mark.parametrize("shape", [(5, 5, 1), (4, 7, 3)], ids=str)
def test_reaches_the_optimum_of_a_linear_model(shape):
    rng = np.random.default_rng(0)
    pictures = np.float32(rng.normal(size=(2, *shape)))
    pictures[0] += 9  # so far ahead that nothing is broken
    x = np.float32(rng.uniform(0.3, 0.7, (2, *shape)))
    y = np.zeros(2, int)
    model = Partial(of_sum, pictures)
    attacked = absum_jax.square(model, x, y, key=KEY, eps=0.1, queries=3000)
    best = x + 0.1 * np.sign(pictures[1] - pictures[0])
    margin = absum_jax.margin_loss(model(attacked), y)
    optimum = absum_jax.margin_loss(model(best), y)
    start = absum_jax.margin_loss(model(x), y)
    assert ((margin - start) > 0.9 * (optimum - start)).all()
    # Each pixel is at an end of the ball.
    np.testing.assert_allclose(np.abs(attacked - x), 0.1, atol=1e-6)


def test_does_not_need_a_gradient():
    def rounded(x):
        bright = jnp.round(100 * x.mean(axis=(1, 2, 3)))
        return jnp.stack([50 - bright, bright - 50.5], axis=-1)

    x = np.full((4, 6, 6, 1), 0.45, np.float32)
    attacked = absum_jax.square(
        rounded, x, np.zeros(4, int), key=KEY, eps=0.1, queries=200
    )
    assert (rounded(attacked).argmax(axis=1) == 1).all()
    # The only other attack of this model does nothing, and says so.
    with pytest.warns(UserWarning, match="no gradient at 4 of 4 images"):
        absum_jax.apgd(rounded, x, np.zeros(4, int), key=KEY, eps=0.1, steps=3)


def test_attacks_probabilities_like_logits():
    pictures = np.float32(np.random.default_rng(2).normal(size=(3, 5, 4, 1)))
    x = np.float32(np.random.default_rng(3).uniform(size=(8, 5, 4, 1)))
    model = Partial(of_sum, pictures)
    y = np.asarray(model(x).argmax(axis=1))
    options = {"key": KEY, "eps": 0.1, "queries": 30}
    attacked = absum_jax.square(model, x, y, **options)
    shares = absum_jax.square(lambda x: jax.nn.softmax(model(x)), x, y, **options)
    broken, also = (
        np.asarray(model(z).argmax(axis=1)) != y for z in (attacked, shares)
    )
    assert broken.any()
    np.testing.assert_array_equal(broken, also)


def test_windows_are_squares_that_shrink_as_published():
    """A model that nothing changes sees stripes, and then a window in them."""
    seen = []

    def model(x):
        jax.debug.callback(
            lambda images: seen.append(np.array(images)), x, ordered=True
        )
        return jnp.broadcast_to(jnp.array([3.0, 1.0]), (len(x), 2))

    x = np.full((3, 20, 20, 1), 0.5, np.float32)
    absum_jax.square(model, x, np.zeros(3, int), key=KEY, eps=0.1, queries=70)
    jax.effects_barrier()
    stripes, *queried = seen
    assert len(queried) == 70
    np.testing.assert_allclose(np.abs(stripes - 0.5), 0.1, atol=1e-6)
    assert (stripes == stripes[:, :1]).all()
    tops = []
    for number, images in enumerate(queried):
        # Written as in the paper's appendix.
        halvings = sum(number > last for last in (10, 50))
        side = max(round(np.sqrt(0.8 / 2**halvings * 400)), 1)
        for one, changed in zip(images, images != stripes, strict=True):
            assert changed.any(axis=(0, 2)).sum() <= side
            if not changed.any():  # the stripes have the color of the window
                continue
            rows = np.flatnonzero(changed.any(axis=(1, 2)))
            assert rows.tolist() == list(range(rows[0], rows[0] + side))
            assert len(np.unique(one[changed])) == 1
            if number > 10:
                tops.append(rows[0])
    assert len(set(tops)) > 5


def test_sides_are_those_of_the_published_schedule():
    # The paper's appendix, for 10,000 queries.
    last = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    queries = np.array([1, *(n + i for n in last for i in (1, 2))])
    found = jax.vmap(lambda query: square._side(query, 224, 200))(queries)
    halvings = [sum(query - 1 > n for n in last) for query in queries]
    area = 0.8 * 224 * 200 / 2.0 ** np.array(halvings)
    np.testing.assert_array_equal(found, np.round(np.sqrt(area)))
    assert square._side(np.int32(9000), 5, 4) == 1


def test_images_stay_in_the_ball_and_keys_determine_them():
    rng = np.random.default_rng(1)
    model = Partial(of_sum, np.float32(rng.normal(size=(4, 5, 4, 3))))
    x, y = np.float32(rng.uniform(size=(6, 5, 4, 3))), np.arange(6) % 4
    options = {"eps": [0.0, 0.3], "queries": 12}
    attacked = absum_jax.square(model, x, y, key=KEY, **options)
    np.testing.assert_array_equal(attacked[0], x)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert np.abs(attacked[1] - x).max() <= 0.3 + 6e-8
    again = absum_jax.square(model, x, y, key=KEY, **options)
    np.testing.assert_array_equal(attacked, again)
    other = absum_jax.square(model, x, y, key=jax.random.key(1), **options)
    assert np.abs(attacked[1] - other[1]).max() > 0.1
