"""Adversarial training, on classes that a change of many pixels can exchange."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import adversarial_training

_EPS, _PIXELS = 0.2, 16


def _images(count):
    """Images whose first pixel is mostly right, and whose others are always right.

    Only the first exceeds what a change of eps can take away.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, count)
    sign = 2 * y - 1
    flipped = np.where(rng.random(count) < 0.1, -sign, sign)
    x = np.tile(0.5 + 0.1 * sign[:, None], (1, _PIXELS))
    x[:, 0] = 0.5 + 0.4 * flipped
    return jnp.asarray(x.reshape(count, 4, 4, 1), jnp.float32), jnp.asarray(y)


def _mean(flags):
    return float(np.asarray(flags).mean())


def _apply(weights, x):
    lead = (x.reshape(len(x), -1) - 0.5) @ weights
    return jnp.stack([-lead, lead], axis=-1)


def _robust_accuracy(weights, x, y):
    """In closed form: the worst change lowers the lead by eps |w|."""
    lead = np.asarray(_apply(weights, x))[:, 1] * (2 * np.asarray(y) - 1)
    return _mean(lead > _EPS * np.abs(weights).sum())


def test_training_makes_a_model_robust():
    x, y = _images(400)
    accuracies = {}
    for eps in (0.0, _EPS):
        weights = adversarial_training.train(
            _apply, jnp.zeros(_PIXELS), x, y, key=jax.random.key(0),
            tx=optax.adam(0.05), eps=eps, epochs=20, steps=3, batch_size=40,
        )  # fmt: skip
        clean = _mean(_apply(weights, x).argmax(axis=-1) == y)
        accuracies[eps] = clean, _robust_accuracy(weights, x, y)
    # Without an attack, the other pixels decide, of which the worst change leaves none.
    assert accuracies[0.0] == (1.0, 0.0)
    first = _mean((x[:, 0, 0, 0] > 0.5) == y)
    assert accuracies[_EPS] == (first, first)
