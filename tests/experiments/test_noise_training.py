"""Training on random single-frequency noise: the noise, its defaults and its model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli
from experiments.config import NONE, Setting
from experiments.methods import METHODS
from experiments.methods.noise import add_single_frequencies
from experiments.methods.table import default
from experiments.options import SweepOptions
from experiments.training import optimization, step

HEIGHT, WIDTH, CHANNELS = 6, 5, 2
GRAY = jnp.full((600, HEIGHT, WIDTH, CHANNELS), 0.5)


def test_noise_has_the_norm_and_one_frequency():
    noisy = add_single_frequencies(jax.random.key(0), GRAY, 0.7)
    added = np.asarray(noisy, np.float64) - 0.5
    norms = np.linalg.norm(added, axis=(1, 2))
    np.testing.assert_allclose(norms, 0.7, rtol=1e-5)
    power = np.abs(np.fft.fft2(added, axes=(1, 2))) ** 2
    power /= power.sum(axis=(1, 2), keepdims=True)
    # All of it at a frequency and its negative, the same in both channels.
    np.testing.assert_allclose(power[..., 0], power[..., 1], atol=1e-5)
    np.testing.assert_allclose(power.max(axis=(1, 2)).min(), 0.5, atol=1e-5)
    assert ((power > 1e-5).sum(axis=(1, 2)) <= 2).all()
    # A random sign for each channel: half of the images have two equal ones.
    equal = np.isclose(added[..., 0], added[..., 1], atol=1e-6).all(axis=(1, 2))
    assert abs(equal.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(GRAY))


def test_frequencies_are_drawn_uniformly_for_each_image():
    keys = jax.random.split(jax.random.key(1), 10)
    noisy = jax.vmap(add_single_frequencies, (0, None, None))(keys, GRAY, 0.7)
    added = np.asarray(noisy, np.float64).reshape(-1, *GRAY.shape[1:]) - 0.5
    power = np.abs(np.fft.fft2(added[..., 0], axes=(1, 2))) ** 2
    shares = (power / power.sum(axis=(1, 2), keepdims=True)).mean(axis=0)
    # A frequency has half of the power of itself and of its negative, or all of it.
    expected = 1 / (HEIGHT * WIDTH)
    error = np.sqrt(expected / len(added))
    np.testing.assert_allclose(shares, expected, atol=5 * error)


def test_noise_stays_in_range():
    x = jnp.concatenate([jnp.zeros((8, 4, 4, 1)), jnp.ones((8, 4, 4, 1))])
    noisy = add_single_frequencies(jax.random.key(0), x, 4.0)
    assert noisy.min() == 0
    assert noisy.max() == 1
    assert ((noisy > 0) & (noisy < 1)).any()


def test_commands_offer_it_without_comparing_it_by_default():
    assert default() == ("none", "weight_decay", "l1", "absum", "snc")
    assert SweepOptions().methods == default()
    methods = ["--methods", "fourier-noise", "l1"]
    for selected, grid in ((), 9), (("--select-on=paper",), 1):
        options = cli.parse("table1", ["--dataset=mnist", *methods, *selected]).sweep
        first, *others = options.settings()
        # Yin et al., 2019: v = 4 for images of 32 x 32.
        assert first == Setting("fourier-noise", 4.0)
        assert [setting.method for setting in others] == ["l1"] * grid
    train = cli.parse("train", methods)
    assert train.settings[0] == Setting("fourier-noise", 4.0)
    train = cli.parse("train", [*methods, "--strengths=2"])
    assert train.settings == (Setting("fourier-noise", 2.0), Setting("l1", 2.0))


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_a_step_sees_noisy_images(classifier, noise, strength):
    """A step with the method is one without on the noisy images."""
    x, y = noise.images[:8] / np.float32(255), noise.labels[:8]
    key, variables = jax.random.key(1), classifier.init(jax.random.key(0))

    def stepped(setting, x):
        h = optimization.hyperparameters([setting], 0.1, 0.5)
        h = jax.tree.map(lambda leaf: leaf[0], h)
        optimizer = optimization.optimizer(h).init(variables.params)
        state = step.TrainState(variables, optimizer, jnp.zeros([], jnp.int32))
        train_step = jax.jit(step.train_step, static_argnums=0)
        state, metrics = train_step(classifier, state, h, x, y, 1, key)
        return state.variables.params, metrics.loss

    perturb = METHODS["fourier-noise"].perturb
    seen = perturb(jax.random.fold_in(key, 2), x, strength) if strength else x
    found = stepped(Setting("fourier-noise", strength), x)
    expected = stepped(NONE, seen)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected
    )
