"""attacks/_fab.py: projections against linear programming, distances in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from absum_jax.attacks import _fab
from absum_jax.attacks._descent import Aim, Budget

AIM = Aim(None, False, 1, True)


def _by_linear_program(x, normal, offset):
    """The smallest t such that w . d = c, |d| <= t, 0 <= x + d <= 1; None if none."""
    size = x.size
    rows = np.vstack([np.c_[np.eye(size), -np.ones(size)],
                      np.c_[-np.eye(size), -np.ones(size)]])  # fmt: skip
    found = scipy.optimize.linprog(
        np.r_[np.zeros(size), 1],
        A_ub=rows, b_ub=np.zeros(2 * size),
        A_eq=np.r_[normal.ravel(), 0][None], b_eq=[offset],
        bounds=[*zip(-x.ravel(), 1 - x.ravel(), strict=True), (0, None)],
    )  # fmt: skip
    return found.fun if found.success else None


def test_projection_is_that_of_a_linear_program():
    rng = np.random.default_rng(0)
    shape = (24, 2, 3, 2)
    x = np.float32(rng.uniform(size=shape))
    x[:4] = rng.integers(0, 2, (4, 2, 3, 2))  # pixels at the bounds
    normal = np.float32(rng.normal(size=shape) * rng.integers(0, 2, shape))
    offset = np.float32(rng.normal(size=24) * 1.5)
    offset[4] = 0
    change, size = _fab.to_hyperplane(x, normal, offset, (0.0, 1.0))
    assert (x + change).min() >= -1e-6
    assert (x + change).max() <= 1 + 1e-6
    reachable = 0
    for i in range(24):
        expected = _by_linear_program(x[i], normal[i], offset[i])
        direction = np.sign(offset[i]) * np.sign(normal[i])
        if expected is None:  # to the bound ahead
            end = np.where(direction > 0, 1 - x[i], np.where(direction < 0, -x[i], 0))
            np.testing.assert_allclose(change[i], end, atol=1e-6)
            continue
        reachable += 1
        np.testing.assert_allclose(size[i].item(), expected, atol=2e-6)
        np.testing.assert_allclose((normal[i] * change[i]).sum(), offset[i], atol=1e-5)
    assert 10 < reachable < 24


def _linear(seed=0, classes=3):
    rng = np.random.default_rng(seed)
    kernel = np.float32(rng.normal(size=(12, classes)))
    return kernel, lambda x: x.reshape(len(x), -1) @ kernel


def _approach(model, x, y, target, eps, steps=20):
    run = jax.jit(
        lambda eps: _fab.approach(
            model, x, y, None, Budget(eps, eps, steps, eps), (0.0, 1.0), AIM,
            valid=None, target=target,
        )
    )  # fmt: skip
    return run(eps)


def test_breaks_a_linear_model_just_beyond_its_distance():
    kernel, model = _linear()
    rng = np.random.default_rng(1)
    # Away from the bounds, so that the distance has a closed form.
    x = np.float32(rng.uniform(0.45, 0.55, (40, 2, 3, 2)))
    order = np.argsort(model(x), axis=1)
    y, target = order[:, -1], order[:, -2]
    logits = model(x)
    rows = np.arange(len(x))
    lead = logits[rows, y] - logits[rows, target]
    distance = lead / np.abs(kernel.T[y] - kernel.T[target]).sum(axis=1)
    chosen = distance < 0.3
    assert chosen.sum() > 5
    for factor, expected in ((1.06, True), (0.99, False)):
        eps = np.median(distance[chosen])
        images, record = _approach(model, x, y, jnp.asarray(target), factor * eps)
        # Another class than the target may be nearer.
        wrong = np.asarray(model(images).argmax(axis=1)) != y
        near = distance <= eps
        if expected:
            assert wrong[near].all()
        towards = np.asarray(model(images).argmax(axis=1)) == target
        beyond = distance > factor * eps
        assert not (towards & wrong & beyond).any()
        assert np.abs(images - x).max() <= factor * eps + 1e-7
        assert (np.asarray(record.forward) == 2 * np.asarray(record.backward)).all()


def _nearest(x, normal, offset):
    """The smallest change in the L-infinity norm onto a hyperplane, by bisection."""
    direction = np.sign(offset) * np.sign(normal)
    room = np.where(direction > 0, 1 - x, np.where(direction < 0, x, 0))
    low, high = 0.0, 1.0
    for _ in range(80):
        size = (low + high) / 2
        reached = (np.abs(normal) * np.minimum(room, size)).sum()
        low, high = (size, high) if reached < abs(offset) else (low, size)
    return direction * np.minimum(room, high)


def test_the_algorithm_in_numpy():
    """Of Croce and Hein, on a model with curved boundaries, image by image."""
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(12, 8)), rng.normal(size=(8, 3))

    def numpy_logits(z):
        return np.sin(z.ravel() @ weights[0]) @ weights[1]

    def gradient(z, label, target):
        slopes = np.cos(z.ravel() @ weights[0]) * (
            weights[1][:, target] - weights[1][:, label]
        )
        return (weights[0] @ slopes).reshape(z.shape)

    def approach(x, label, target, eps):
        z = x
        for step in range(20):
            logits, w = numpy_logits(z), gradient(z, label, target)
            offset = logits[label] - logits[target]
            here = _nearest(z, w, offset)
            there = _nearest(x, w, offset + (w * (z - x)).sum())
            sizes = [max(np.abs(d).max(), 1e-8) for d in (here, there)]
            share = min(sizes[0] / sum(sizes), 0.1)
            z = (1 - share) * (z + 1.05 * here) + share * (x + 1.05 * there)
            z = np.clip(z, 0, 1)
            if numpy_logits(z).argmax() != label:
                if np.abs(z - x).max() <= eps:
                    return z, step + 1
                z = x + 0.9 * (z - x)
        return x, 20

    with jax.enable_x64(True):
        x = rng.uniform(size=(12, 2, 3, 2))
        order = np.argsort([numpy_logits(z) for z in x], axis=1)
        y, target, eps = order[:, -1], order[:, -2], 0.06

        def model(x):
            return jnp.sin(x.reshape(len(x), -1) @ weights[0]) @ weights[1]

        images, record = _approach(model, x, y, jnp.asarray(target), eps)
        steps = np.asarray(record.backward)
        expected = [approach(*each, eps) for each in zip(x, y, target, strict=True)]
    np.testing.assert_array_equal(steps, [each[1] for each in expected])
    assert len(set(steps.tolist())) > 1
    assert steps.max() == 20
    np.testing.assert_allclose(images, [each[0] for each in expected], atol=1e-5)


def test_returns_the_image_where_it_fails():
    _, model = _linear()
    x = np.float32(np.random.default_rng(2).uniform(size=(5, 2, 3, 2)))
    y = np.asarray(model(x).argmax(axis=1))
    images, record = _approach(model, x, y, jnp.asarray((y + 1) % 3), 0.0, steps=4)
    np.testing.assert_array_equal(images, x)
    assert (np.asarray(record.backward) == 4).all()


@pytest.mark.parametrize("leads", [np.inf, np.nan])
def test_logits_that_are_not_finite_do_not_spread(leads):
    def model(x):
        return jnp.stack([x.sum(axis=(1, 2, 3)), jnp.full(len(x), leads)], axis=-1)

    x = np.full((2, 2, 3, 2), 0.5, np.float32)
    images, _ = _approach(model, x, np.zeros(2, int), jnp.ones(2, int), 0.1, steps=3)
    assert np.isfinite(images).all()
