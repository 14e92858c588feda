"""Random crops and flips of images, on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Augmentation(NamedTuple):
    """Random choices for each image, of shape (N,)."""

    rows: jax.Array  # first row of the crop in the padded image, 0..2 * padding
    columns: jax.Array  # first column, in the same range
    flipped: jax.Array  # whether it is mirrored


def draw(key: jax.Array, images: int, padding: int) -> Augmentation:
    """Draws augmentations uniformly."""
    *keys, flip_key = jax.random.split(key, 3)
    shape = (images,)
    rows, columns = (jax.random.randint(key, shape, 0, 2 * padding + 1) for key in keys)
    return Augmentation(rows, columns, jax.random.bernoulli(flip_key, shape=shape))


def augment(images: jax.Array, drawn: Augmentation, padding: int) -> jax.Array:
    """Pads images (N, h, w, C) by zeros, crops them back to h x w, and flips them."""
    height, width = images.shape[1:3]
    rows = drawn.rows[:, None] + jnp.arange(height) - padding
    i = jnp.arange(width)
    mirrored = jnp.where(drawn.flipped[:, None], width - 1 - i, i)
    columns = drawn.columns[:, None] + mirrored - padding
    # Rows first, which are contiguous. "fill" returns zeros for indices outside of the
    # image in place of padding, but a negative index counts from the end.
    rows = jnp.where(rows < 0, height, rows)
    columns = jnp.where(columns < 0, width, columns)
    for axis, indices in ((1, rows[:, :, None, None]), (2, columns[:, None, :, None])):
        images = jnp.take_along_axis(images, indices, axis, mode="fill", fill_value=0)
    return images


def crop_and_flip(key: jax.Array, images: jax.Array, *, padding: int = 4) -> jax.Array:
    """Crops zero-padded images at random and mirrors half of them (P, appendix).

    Does what PyTorch's `RandomCrop(h, padding)` and `RandomHorizontalFlip` do, to
    images (N, h, w, C) of any dtype, before any standardization. The result does not
    depend on the sharding of the batch.
    """
    return augment(images, draw(key, len(images), padding), padding)
