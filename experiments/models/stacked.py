"""Functions of one model, applied to several that are stacked."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def over_models(function: Callable[..., Any], in_axes: Sequence[int | None]) -> Any:
    """Like `jax.vmap`, but a plain call where the axis has one entry.

    Under `vmap` convolutions become grouped ones, which are slow.
    """

    def mapped(*args: Any) -> Any:
        leaves = [
            jax.tree.leaves(arg)
            for arg, axis in zip(args, in_axes, strict=True)
            if axis is not None
        ]
        if leaves[0][0].shape[0] > 1:
            return jax.vmap(function, in_axes)(*args)
        first = (
            arg if axis is None else jax.tree.map(lambda leaf: leaf[0], arg)
            for arg, axis in zip(args, in_axes, strict=True)
        )
        return jax.tree.map(lambda leaf: leaf[None], function(*first))

    return mapped
