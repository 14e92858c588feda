"""fourier_sensitivity: models whose gradients are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import absum_jax

SHAPE, CLASSES = (11, 5, 6, 2), 3
RNG = np.random.default_rng(0)
X = RNG.uniform(size=SHAPE).astype(np.float32)
Y = RNG.integers(0, CLASSES, SHAPE[0])
WEIGHTS = RNG.normal(size=(*SHAPE[1:], CLASSES)).astype(np.float32)


def linear(weights, x):
    return jnp.einsum("nhwc,hwck->nk", x.astype(weights.dtype), weights)


def power_in_numpy(gradients):
    """The mean power by explicit sums over the pixels, at signed frequencies."""
    height, width = gradients.shape[1:3]
    rows, columns = (
        np.exp(-2j * np.pi * np.outer(np.arange(n) - n // 2, np.arange(n)) / n)
        for n in (height, width)
    )
    spectra = np.einsum("lp,npqc,mq->nclm", rows, gradients, columns)
    return (abs(spectra) ** 2).mean((0, 1)) / (height * width)


def cross_entropy_gradients(x, y):
    """Of a linear model: its weights, times the softmax less the label."""
    weights = WEIGHTS.astype(np.float64)
    logits = np.einsum("nhwc,hwck->nk", x.astype(np.float64), weights)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.einsum("nk,hwck->nhwc", shares - np.eye(CLASSES)[y], weights)


@pytest.mark.parametrize("batch_size", [1, 4, 500])
def test_cross_entropy_of_a_linear_model(batch_size):
    model = Partial(linear, WEIGHTS)
    found = absum_jax.fourier_sensitivity(model, X, Y, batch_size=batch_size)
    assert found.shape == SHAPE[1:3]
    assert found.dtype == np.float32
    expected = power_in_numpy(cross_entropy_gradients(X, Y))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_margin_of_two_classes_is_the_spectrum_of_the_weights():
    """The gradient is the difference of the weights at any image."""
    weights = WEIGHTS[..., :2]
    found = absum_jax.fourier_sensitivity(
        Partial(linear, weights), X, Y % 2, loss=absum_jax.margin_loss
    )
    expected = power_in_numpy(np.float64(weights[None, ..., 1] - weights[None, ..., 0]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def one_wave(logit, x):
    phase = 2 * jnp.pi * (jnp.arange(5)[:, None] / 5 + 2 * jnp.arange(6) / 6)
    response = (x * jnp.cos(phase)[..., None]).sum((1, 2, 3))
    return jnp.stack([-logit * response, logit * response], axis=-1)


def test_a_model_that_sees_one_frequency():
    found = absum_jax.fourier_sensitivity(
        Partial(one_wave, jnp.float32(0.5)), X, Y % 2, loss=absum_jax.margin_loss
    )
    # The gradient is a cosine: (1, 2) and (-1, -2) have h w / 4 each.
    expected = np.zeros(SHAPE[1:3])
    expected[2 + 1, 3 + 2] = expected[2 - 1, 3 - 2] = 30 / 4
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_change_of_the_loss_to_first_order():
    """The power at a frequency is the squared derivative along its complex wave."""
    model, y = Partial(linear, WEIGHTS), Y[:1]
    found = absum_jax.fourier_sensitivity(model, X[:1], y)
    waves = np.exp(2j * np.pi * np.arange(5)[:, None] / 5) * np.ones(6) / np.sqrt(30)

    def loss(step, channel, wave):
        x = X[:1].astype(np.float64)
        x[..., channel] += step * wave
        logits = np.einsum("nhwc,hwck->nk", x, WEIGHTS.astype(np.float64))
        return np.log(np.exp(logits).sum()) - logits[0, y[0]]

    slopes = [
        (loss(1e-5, channel, wave) - loss(-1e-5, channel, wave)) / 2e-5
        for channel in range(2)
        for wave in (waves.real, waves.imag)
    ]
    # The mean over two channels.
    np.testing.assert_allclose(found[2 + 1, 3], np.square(slopes).sum() / 2, rtol=1e-4)


def test_bfloat16_under_jit_and_vmap():
    half = Partial(linear, jnp.asarray(WEIGHTS, jnp.bfloat16))
    found = absum_jax.fourier_sensitivity(half, jnp.asarray(X, jnp.bfloat16), Y)
    assert found.dtype == np.float32
    expected = power_in_numpy(cross_entropy_gradients(X, Y))
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.1 * expected.max())
    stacked = np.stack([WEIGHTS, 2 * WEIGHTS])

    def evaluate(weights):
        return absum_jax.fourier_sensitivity(Partial(linear, weights), X, Y)

    both = jax.jit(jax.vmap(evaluate))(stacked)
    for ours, weights in zip(both, stacked, strict=True):
        np.testing.assert_allclose(ours, evaluate(weights), rtol=1e-5)


def test_padding_without_a_gradient_does_not_count():
    def root(scale, x):
        return scale * jnp.sqrt(x.sum((1, 2, 3)))[:, None] * jnp.array([1.0, -1.0])

    # Padding is black, where the gradient of the root is infinite.
    model = Partial(root, jnp.float32(1))
    found = absum_jax.fourier_sensitivity(model, X[:3], Y[:3] % 2, batch_size=2)
    whole = absum_jax.fourier_sensitivity(model, X[:3], Y[:3] % 2)
    np.testing.assert_allclose(found, whole, rtol=1e-5)
    assert np.isfinite(found).all()


def test_probabilities_are_no_logits():
    def softmax(weights, x):
        return jax.nn.softmax(linear(weights, x))

    model = Partial(softmax, WEIGHTS)
    with pytest.raises(ValueError, match="`logits_fn` must return logits, got prob"):
        absum_jax.fourier_sensitivity(model, X, Y, batch_size=4)
    margin = absum_jax.fourier_sensitivity(model, X, Y, loss=absum_jax.margin_loss)
    assert (margin > 0).all()


def test_a_loss_that_does_not_fit():
    model = Partial(linear, WEIGHTS)
    with pytest.raises(ValueError, match=r"^`loss` must be a function.*got 'margin'"):
        absum_jax.fourier_sensitivity(model, X, Y, loss="margin")
    with pytest.raises(
        ValueError, match=r"^`loss` must return one loss for each of 11"
    ):
        absum_jax.fourier_sensitivity(model, X, Y, loss=lambda logits, y: logits)
