"""Arrays on explicit mesh axes, where what is computed has no explicit layout."""

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
    """Calls a function, leaving the layout of arrays on explicit mesh axes to XLA.

    Batches of a size that does not divide over the devices have no explicit sharding,
    nor do products of reshaped kernels.

    Args:
      function: what to call.
      *args: trees of arrays.
      like: an array of the result's sharding, or of each result's; None replicates.
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
