"""attacks/_balls.py: norms, distributions of starts, steps, and L2 descent in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.tree_util import Partial

import absum_jax
from absum_jax.attacks import _balls

KEYS = jax.random.split(jax.random.key(0), 2000)
SHAPE = (2, 3, 1)
X = np.float32(np.random.default_rng(0).uniform(0.3, 0.7, (4, *SHAPE)))


def drawn(norm, where):
    *_, ball = _balls.around(X, 0.1, (0, 1), norm)
    draw = jax.vmap(lambda key: getattr(ball, where)(key, SHAPE, np.float32))
    return np.asarray(jax.jit(draw)(KEYS)).reshape(len(KEYS), -1)


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2)])
def test_starts_are_uniform(norm, order):
    inside = np.linalg.norm(drawn(norm, "inside"), order, axis=1)
    # The volume within a radius r of a ball in six dimensions is r^6.
    assert scipy.stats.kstest(inside**6, "uniform").pvalue > 1e-3
    on_surface = drawn(norm, "surface")
    lengths = np.linalg.norm(on_surface, order, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)
    # No direction is preferred.
    assert np.abs(on_surface.mean(axis=0)).max() < 5 / np.sqrt(len(KEYS))


def test_projection_onto_the_l2_ball():
    x = np.float32(np.random.default_rng(1).uniform(0.3, 0.7, (50, *SHAPE)))
    z = x + np.float32(np.random.default_rng(2).normal(size=x.shape) / 9)
    *_, ball = _balls.around(x, 0.25, (0, 1), "l2")
    change = np.asarray(ball.project(z) - x).reshape(50, -1)
    far = np.linalg.norm((z - x).reshape(50, -1), axis=1) > 0.25
    assert 5 < far.sum() < 45
    np.testing.assert_array_equal(ball.project(z)[~far], z[~far])
    unit = (z - x).reshape(50, -1)[far]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(change[far], 0.25 * unit, atol=1e-6)


@pytest.mark.parametrize("bound", [1e3, 1e6, np.inf])
def test_wide_bounds_do_not_shrink_the_l2_ball(bound):
    far = X + np.float32(np.random.default_rng(5).normal(size=X.shape))
    for eps in (0.25, np.inf):
        *_, near = _balls.around(X, eps, (-9, 9), "l2")
        *_, wide = _balls.around(X, eps, (-bound, bound), "l2")
        np.testing.assert_array_equal(wide.project(far), near.project(far))
        change = np.asarray(wide.project(far) - X).reshape(4, -1)
        if eps == 0.25:
            np.testing.assert_allclose(np.linalg.norm(change, axis=1), eps, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_steps_do_not_depend_on_the_size_of_the_gradient(scale):
    *_, ball = _balls.around(X, 9.0, (-9, 9), "l2")
    gradient = np.float32(np.random.default_rng(3).normal(size=X.shape))
    moved = ball.climb(jnp.asarray(X), gradient * np.float32(scale), 0.5)
    unit = gradient / np.linalg.norm(gradient.reshape(4, -1), axis=1).reshape(
        4, 1, 1, 1
    )
    np.testing.assert_allclose(moved, X + 0.5 * unit, rtol=1e-5)
    stays = ball.climb(jnp.asarray(X), 0 * gradient, np.inf)
    np.testing.assert_array_equal(stays, X)


def test_l2_descent_in_numpy():
    kernel = np.float32(np.random.default_rng(4).normal(size=(6, 3)))

    def logits_of(kernel, x):
        return jnp.tanh(x.reshape(len(x), -1)) @ kernel

    model, y = Partial(logits_of, kernel), np.array([0, 1, 2, 0])
    eps, step = 0.2, 0.07
    attacked = absum_jax.pgd(
        model, X, y, key=jax.random.key(0), eps=eps, step_size=step, steps=5,
        init_radius=0.0, norm="l2", bounds=(0.29, 0.71),
    )  # fmt: skip
    z = np.float64(X).reshape(4, -1)
    start = z
    for _ in range(5):
        hidden = np.tanh(z)
        weights = np.exp(hidden @ kernel)
        shares = weights / weights.sum(axis=1, keepdims=True)
        slope = ((shares - np.eye(3)[y]) @ kernel.T) * (1 - hidden**2)
        z = z + step * slope / np.linalg.norm(slope, axis=1, keepdims=True)
        length = np.linalg.norm(z - start, axis=1, keepdims=True)
        z = np.clip(start + (z - start) * np.minimum(1, eps / length), 0.29, 0.71)
    np.testing.assert_allclose(np.reshape(attacked, z.shape), z, atol=2e-6)


def test_unknown_norms():
    with pytest.raises(ValueError, match=r"`norm` must be one of .*'l1'"):
        absum_jax.apgd(
            lambda x: x[:, 0, 0], X, np.zeros(4, int), key=KEYS[0], eps=0.1, norm="l1"
        )
