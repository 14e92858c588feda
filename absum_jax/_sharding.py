"""Arrays on explicit mesh axes, where what is computed has no explicit layout."""

from collections.abc import Callable
from typing import Any

import chex
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def with_automatic_axes(
    function: Callable[..., Any], *args: Any, like: chex.Array | None = None
) -> Any:
    """Calls a function, leaving the layout of arrays on explicit mesh axes to XLA.

    Batches of a size that does not divide over the devices have no explicit sharding,
    nor do products of reshaped kernels.

    Args:
      function: what to call.
      *args: trees of arrays.
      like: an array of the result's sharding; None replicates the result.
    """
    for leaf in jax.tree.leaves(args):
        mesh = jax.typeof(leaf).sharding.mesh
        if AxisType.Explicit in mesh.axis_types:
            spec = PartitionSpec() if like is None else jax.typeof(like).sharding.spec
            function = jax.sharding.auto_axes(
                function, out_sharding=NamedSharding(mesh, spec)
            )
            break
    return function(*args)
