"""Maps functions over images in batches, without moving images between devices."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_batches(function: Callable[..., Any], arrays: Any, batch_size: int) -> Any:
    """Maps a function over batches, as `jax.lax.map` does with a batch size.

    Batch i has every n-th image from i on: where images are divided over devices along
    their first axis, each batch uses all devices. The last batches are padded with
    zeros. Arguments and results are trees of arrays (images, ...).
    """
    images = jax.tree.leaves(arrays)[0].shape[0]
    batches = math.ceil(images / batch_size)
    size = math.ceil(images / batches)

    def split(array: jax.Array) -> jax.Array:
        padding = [(0, batches * size - images)] + [(0, 0)] * (array.ndim - 1)
        padded = jnp.pad(array, padding)
        return padded.reshape(size, batches, *array.shape[1:]).swapaxes(0, 1)

    def joined(results: jax.Array) -> jax.Array:
        flat = results.swapaxes(0, 1).reshape(batches * size, *results.shape[2:])
        return flat[:images]

    results = jax.lax.map(function, jax.tree.map(split, arrays))
    return jax.tree.map(joined, results)
