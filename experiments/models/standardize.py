"""Standardisation of images, as the first layer of every model."""

import jax
import jax.numpy as jnp


def standardize(
    x: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Subtracts the mean of each channel and divides by its standard deviation.

    Part of the model, so that attacks work on pixels in [0, 1] (P, appendix).
    """
    return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype)
