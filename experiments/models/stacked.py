"""Maps functions of one model over several models that are stacked."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def over_models(
    function: Callable[..., Any], in_axes: Sequence[int | None], *, shards: int = 1
) -> Callable[..., Any]:
    """Maps a function of one model over several that are stacked.

    On a CPU each device computes its models one after the other, so that one model fits
    its caches; elsewhere `jax.vmap` computes all at once. A single model is computed
    without `vmap`, which would turn convolutions into slow grouped ones.

    `in_axes` has 0 for each argument that is stacked, None for one that all models
    share. The models are divided equally over `shards` devices.
    """

    def mapped(*args: Any) -> Any:
        stacked = [a for a, axis in zip(args, in_axes, strict=True) if axis is not None]
        # Traced once for both kinds of device.
        traced = jax.jit(function)

        def one(stacked: Sequence[Any]) -> Any:
            rest = iter(stacked)
            chosen = zip(args, in_axes, strict=True)
            return traced(*(a if axis is None else next(rest) for a, axis in chosen))

        def one_by_one(*stacked: Any) -> Any:
            if shards == 1:
                return jax.lax.map(one, stacked)
            results = jax.lax.map(jax.vmap(one), jax.tree.map(divided, stacked))
            return jax.tree.map(joined, results)

        def divided(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(shards, -1, *leaf.shape[1:]).swapaxes(0, 1)

        def joined(leaf: jax.Array) -> jax.Array:
            return leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])

        models = jax.tree.leaves(stacked)[0].shape[0]
        if models == 1:
            first = jax.tree.map(lambda leaf: leaf[0], stacked)
            return jax.tree.map(lambda leaf: leaf[None], one(first))
        return jax.lax.platform_dependent(
            *stacked, cpu=one_by_one, default=lambda *stacked: jax.vmap(one)(stacked)
        )

    return mapped
