"""Forms of convolutions, and of their transpositions, that XLA:CPU computes fast."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

Params = dict[str, Any]


def transposed(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Transposes an array, and keeps XLA from fusing the computation of it.

    XLA fuses a transposition with all that leads to its operand, several normalizations
    and residuals for instance, and then computes them element by element in an order
    that no cache likes. It fuses nothing into a condition. Both branches are equal.
    """
    if list(axes) == list(range(x.ndim)):
        return x
    return jax.lax.cond(
        # XLA learns only after it has simplified conditions that this one is constant.
        jax.lax.optimization_barrier(jnp.bool_(True)),
        lambda x: x.transpose(axes),
        lambda x: -(-x).transpose(axes),
        x,
    )


def sliced(x: jax.Array, kernel: jax.Array, params: Params) -> tuple[jax.Array, Params]:
    """Drops the rows of images that a dilated kernel never meets.

    The kernel of a strided 1x1 convolution has such a gradient: a dilated convolution
    with one position, which skips most of the image.

    Args:
      x: images, in any layout.
      kernel: likewise.
      params: of the convolution.

    Returns:
      The images and the parameters of the convolution of the same result.
    """
    layout = params["dimension_numbers"]
    padding, dilation = list(params["padding"]), list(params["rhs_dilation"])
    spatial = zip(layout.lhs_spec[2:], layout.rhs_spec[2:], strict=True)
    for i, (image_axis, kernel_axis) in enumerate(spatial):
        low, high = padding[i]
        size = x.shape[image_axis]
        reach = (kernel.shape[kernel_axis] - 1) * dilation[i] + 1
        is_plain = params["lhs_dilation"][i] == 1 and max(low, high) <= 0
        if dilation[i] > 1 and is_plain and reach == size + low + high:
            x = jax.lax.slice_in_dim(x, -low, size + high, dilation[i], image_axis)
            padding[i], dilation[i] = (0, 0), 1
    return x, params | {"padding": tuple(padding), "rhs_dilation": tuple(dilation)}


def convolved(
    primitive: core.Primitive, x: jax.Array, kernel: jax.Array, params: Params
) -> jax.Array:
    """Convolves in the canonical layout, strided convolutions' gradients in phases.

    Every other row of such a gradient needs every other row of the kernel: it is the
    convolutions of the image with the kernel's parts, interleaved. XLA multiplies by
    the whole kernel, and asks the system for memory for the products.

    Args:
      primitive: the convolution.
      x: images NHWC, of any number of spatial axes.
      kernel: HWIO likewise.
      params: the convolution's.
    """
    dilation = params["lhs_dilation"]
    is_plain = (
        params["feature_group_count"] == params["batch_group_count"] == 1
        and params["out_sharding"] is None
        and all(one == 1 for one in params["window_strides"] + params["rhs_dilation"])
    )
    if not is_plain or all(factor == 1 for factor in dilation):
        return primitive.bind(x, kernel, **params)
    sizes = [
        (size - 1) * factor + 1 + sum(margins) - window + 1
        for size, factor, margins, window in zip(
            x.shape[1:-1], dilation, params["padding"], kernel.shape[:-2], strict=True
        )
    ]
    is_covered = all(map(operator.ge, kernel.shape, dilation))  # no phase is empty
    if min(sizes) < 1 or not is_covered:
        return primitive.bind(x, kernel, **params)
    undilated = params | {"lhs_dilation": (1,) * len(dilation)}

    def phases(axis: int, kernel: jax.Array, padding: tuple[Any, ...]) -> jax.Array:
        """Convolves along the axes from one on, whose phases are the last axes."""
        if axis == len(dilation):
            return primitive.bind(x, kernel, **undilated | {"padding": padding})
        factor, low = dilation[axis], params["padding"][axis][0]
        rows = -(-sizes[axis] // factor)
        parts = []
        for phase in range(factor):
            first = (low - phase) % factor
            part = kernel[(slice(None),) * axis + (slice(first, None, factor),)]
            before = (low - phase - first) // factor
            after = rows + part.shape[axis] - 1 - before - x.shape[1 + axis]
            parts.append(phases(axis + 1, part, (*padding, (before, after))))
        joined = jnp.stack(parts, axis=2 + axis)
        shape = list(parts[0].shape)
        shape[1 + axis] *= factor
        whole = joined.reshape(shape)
        return jax.lax.slice_in_dim(whole, 0, sizes[axis], axis=1 + axis)

    return phases(0, kernel, ())
