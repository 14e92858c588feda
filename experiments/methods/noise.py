"""Training images with noise of one random frequency each."""

import jax
import jax.numpy as jnp

from absum_jax.attacks.single_fourier import add_pattern, scaled_pattern


def add_single_frequencies(key: jax.Array, x: jax.Array, norm: jax.Array) -> jax.Array:
    """Adds a wave of a random frequency to each image, and clips to [0, 1].

    The noise is that of `absum_jax.fourier_noise_accuracy`: a pattern of the given L2
    norm, with a random sign for each channel, of a frequency (l, m) that is drawn
    uniformly from all for each image.

    Args:
      key: random key of the batch.
      x: images (batch, height, width, channels) in [0, 1].
      norm: L2 norm of the noise of a channel.

    Returns:
      The noisy images, of the same shape.
    """
    count, *shape, channels = x.shape
    of_frequencies, of_signs = jax.random.split(key)
    ends = jnp.array(shape)
    pairs = jax.random.randint(of_frequencies, (count, 2), 0, ends)
    signs = jax.random.rademacher(of_signs, (count, 1, 1, channels), x.dtype)

    def pattern(pair: jax.Array) -> jax.Array:
        l, m = pair
        return scaled_pattern(l, m, shape, norm, "l2")

    return add_pattern(x, signs * jax.vmap(pattern)(pairs)[..., None], (0.0, 1.0))
