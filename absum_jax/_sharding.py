"""Computations without an explicit layout for arrays on explicit mesh axes."""

from collections.abc import Callable
from typing import Any

import chex
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def with_automatic_axes(
    function: Callable[..., Any],
    *args: Any,
    like: chex.Array | tuple[chex.Array | None, ...] | None = None,
) -> Any:
    """Calls a function and leaves the layout of arrays on explicit mesh axes to XLA.

    Batches whose size is not divisible by the number of devices have no explicit
    sharding, nor do products of reshaped kernels.

    Args:
      function: the function to call.
      *args: trees of arrays, its arguments.
      like: an array with the sharding of the result, or one for each result; None
        replicates.

    Returns:
      The result of the function.
    """
    meshes = (jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(args))
    mesh = next((m for m in meshes if AxisType.Explicit in m.axis_types), None)
    if mesh is None:
        return function(*args)

    def sharding(like: chex.Array | None) -> NamedSharding:
        spec = PartitionSpec() if like is None else jax.typeof(like).sharding.spec
        return NamedSharding(mesh, spec)

    out = tuple(map(sharding, like)) if isinstance(like, tuple) else sharding(like)
    return jax.sharding.auto_axes(function, out_sharding=out)(*args)
