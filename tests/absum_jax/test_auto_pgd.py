"""attacks/auto_pgd.py: a NumPy loop of the algorithm, optima, and what always holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from numpy_apgd import ascend

import absum_jax
from absum_jax.attacks import _balls, _descent

KEY = jax.random.key(3)
SHAPE = (3, 4, 2)


def logits_of(weights, x):
    """A wavy function, on which steps both raise and lower the loss."""
    hidden = jnp.sin(x.reshape(len(x), -1) @ weights[0])
    return hidden @ weights[1]


def wavy_model(classes=4, seed=1):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(24, 16)), rng.normal(size=(16, classes))
    return Partial(logits_of, weights)


def images(count, seed=1):
    return np.random.default_rng(seed).uniform(size=(count, *SHAPE))


def starts(x, eps, norm):
    """The random starts of the library."""
    keys = _descent.keys_of(KEY, jnp.arange(len(x)))
    *_, ball = _balls.around(jnp.asarray(x), eps, (0, 1), norm)
    noise = [ball.surface(jax.random.fold_in(key, 0), SHAPE, x.dtype) for key in keys]
    return ball.project(x + eps * jnp.stack(noise))


@pytest.mark.parametrize("loss", [None, absum_jax.dlr_loss], ids=["ce", "dlr"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 1 / 32), ("l2", 5 / 32)])
def test_the_algorithm_in_numpy(norm, eps, loss):
    with jax.enable_x64(True):
        model, x = wavy_model(), images(12)
        y = np.asarray(model(x).argmax(axis=1))
        loss_fn = loss or (lambda z, y: -jax.nn.log_softmax(z)[jnp.arange(len(y)), y])
        value = jax.jit(
            jax.value_and_grad(lambda x, y: loss_fn(model(x[None]), y[None])[0])
        )
        attacked = absum_jax.apgd(
            model, x, y, key=KEY, eps=eps, steps=50, norm=norm, loss=loss
        )
        broken = np.asarray(model(attacked).argmax(axis=1)) != y
        assert 0 < broken.sum() < len(x)
        expected = []
        for i, start in enumerate(np.asarray(starts(x, eps, norm))):
            found, _ = ascend(
                lambda z, own=y[i]: tuple(map(np.asarray, value(z, own))),
                lambda z, own=y[i]: model(z[None])[0].argmax() != own,
                x[i], start, eps, 50, norm,
            )  # fmt: skip
            expected.append(found)
        np.testing.assert_allclose(attacked, expected, atol=1e-6)


def test_a_loss_in_bfloat16():
    model, x = jax.tree.map(np.float32, wavy_model()), np.float32(images(4))
    y = np.asarray(model(x).argmax(axis=1))

    def rounded(logits, y):
        return absum_jax.margin_loss(logits, y).astype(jnp.bfloat16)

    attacked = absum_jax.apgd(model, x, y, key=KEY, eps=0.1, steps=5, loss=rounded)
    assert attacked.dtype == jnp.float32
    assert np.isfinite(attacked).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_optimum_of_a_linear_model(norm, targeted):
    rng = np.random.default_rng(0)
    kernel = np.float32(rng.normal(size=(24, 2)))
    # So far from the boundary that nothing is broken, and away from the bounds.
    bias = np.float32([50, 0])
    model = Partial(lambda w, x: x.reshape(len(x), -1) @ w[0] + w[1], (kernel, bias))
    x = np.float32(rng.uniform(0.4, 0.6, (3, *SHAPE)))
    y = np.full(3, int(targeted))
    attacked = absum_jax.apgd(
        model, x, y, key=KEY, eps=0.1, norm=norm, targeted=targeted,
        loss=absum_jax.margin_loss,
    )  # fmt: skip
    towards = kernel[:, 1] - kernel[:, 0]
    step = np.sign(towards) if norm == "linf" else towards / np.linalg.norm(towards)
    expected = x + 0.1 * step.reshape(SHAPE)
    np.testing.assert_allclose(attacked, expected, atol=2e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "attack",
    [
        lambda *args, **options: absum_jax.apgd(*args, steps=7, **options),
        lambda *args, **options: absum_jax.pgd(
            *args, steps=7, step_size=0.1, **options
        ),
    ],
    ids=["apgd", "pgd"],
)
def test_images_stay_in_the_ball_and_the_bounds(attack, norm):
    x = np.float32(images(20))
    x[0] = 0  # in a corner of the bounds
    model = jax.tree.map(np.float32, wavy_model())
    y = np.arange(20) % 4
    for eps in (0.0, 1e-4, 0.1, 2.0):
        attacked = attack(model, x, y, key=KEY, eps=eps, norm=norm)
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        change = np.asarray(attacked, np.float64) - x
        flat = change.reshape(20, -1)
        length = np.linalg.norm(flat, np.inf if norm == "linf" else 2, axis=1)
        # A pixel is rounded after the addition in the L-infinity ball.
        assert length.max() <= (eps + 6e-8 if norm == "linf" else eps)
        if eps > 0.01:
            assert length.max() > min(eps, 0.9) / 2


def test_restarts_break_no_fewer_images():
    model, x = jax.tree.map(np.float32, wavy_model()), np.float32(images(60))
    y = np.asarray(model(x).argmax(axis=1))

    def broken(restarts):
        options = {"key": KEY, "eps": 0.2, "steps": 2, "restarts": restarts}
        attacked = absum_jax.apgd(model, x, (y + 1) % 4, targeted=True, **options)
        return np.asarray(model(attacked).argmax(axis=1)) == (y + 1) % 4

    one, four = broken(1), broken(4)
    assert four[one].all()
    assert four.sum() > one.sum()


def test_attacked_images_do_not_depend_on_others():
    model, x = jax.tree.map(np.float32, wavy_model()), np.float32(images(8))
    y = np.asarray(model(x).argmax(axis=1))
    keys = _descent.keys_of(KEY, jnp.arange(8))
    options = {"eps": [0.01, 0.05], "steps": 9}
    together = absum_jax.apgd(model, x, y, key=KEY, **options)
    alone = absum_jax.apgd(model, x[5:6], y[5:6], key=keys[5:6], **options)
    np.testing.assert_allclose(together[:, 5:6], alone, atol=1e-6)
