"""Functions of one model, applied to several that are stacked."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def over_models(
    function: Callable[..., Any], in_axes: Sequence[int | None], *, shards: int = 1
) -> Callable[..., Any]:
    """Makes a function of one model a function of several that are stacked.

    On a CPU each device computes its models one after the other, so that its caches
    hold what one model needs; elsewhere `jax.vmap` computes all of them at once. A
    single model is computed as it is, as convolutions become grouped ones under `vmap`,
    which are slow.

    Args:
      function: the function of one model.
      in_axes: for each argument 0 if it is stacked, None if all models share it.
      shards: how many devices the models are divided over, as many on each.

    Returns:
      A function of the same arguments, which returns stacked results.
    """

    def mapped(*args: Any) -> Any:
        stacked = [
            arg for arg, axis in zip(args, in_axes, strict=True) if axis is not None
        ]
        # Traced once for both kinds of device.
        traced = jax.jit(function)

        def one(stacked: Sequence[Any]) -> Any:
            rest = iter(stacked)
            return traced(
                *(
                    arg if axis is None else next(rest)
                    for arg, axis in zip(args, in_axes, strict=True)
                )
            )

        def one_by_one(*stacked: Any) -> Any:
            if shards == 1:
                return jax.lax.map(one, stacked)
            results = jax.lax.map(jax.vmap(one), jax.tree.map(divided, stacked))
            return jax.tree.map(joined, results)

        def divided(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(shards, -1, *leaf.shape[1:]).swapaxes(0, 1)

        def joined(leaf: jax.Array) -> jax.Array:
            return leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])

        def all_at_once(*stacked: Any) -> Any:
            return jax.vmap(one)(stacked)

        models = jax.tree.leaves(stacked)[0].shape[0]
        if models == 1:
            first = jax.tree.map(lambda leaf: leaf[0], stacked)
            return jax.tree.map(lambda leaf: leaf[None], one(first))
        return jax.lax.platform_dependent(*stacked, cpu=one_by_one, default=all_at_once)

    return mapped
