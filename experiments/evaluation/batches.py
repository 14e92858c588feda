"""Maps functions over images in batches, without moving images between devices."""

from collections.abc import Callable
from typing import Any

import jax

from absum_jax.evaluation.counting import divided, joined


def map_batches(function: Callable[..., Any], arrays: Any, batch_size: int) -> Any:
    """Maps a function over batches, as `jax.lax.map` does with a batch size.

    Arguments and results are trees of arrays (images, ...). A batch uses all devices
    that the images are divided over; the last batches are padded with zeros.
    """
    images = jax.tree.leaves(arrays)[0].shape[0]
    results = jax.lax.map(function, divided(arrays, batch_size))
    return jax.tree.map(lambda array: joined(array, images), results)
