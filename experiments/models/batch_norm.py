"""Batch normalization by the batch's own statistics, fast on CPUs too."""

import functools
import math

import jax
import jax.numpy as jnp

# Rows that one loop adds up: XLA splits longer sums over leading axes into several
# passes, each on one core.
_ADDED = 16

_Arrays = tuple[jax.Array, jax.Array, jax.Array]


def normalized(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, epsilon: float, groups: int = 1
) -> _Arrays:
    """Normalizes a batch channel by channel, in float32.

    CPUs compute sums, and those of the gradient, as products with ones; other devices
    compute the plain formula and its derivative. The groups are equal and contiguous
    parts of the batch that are normalized separately.

    Returns:
      The normalized batch (batch, ..., channels), and its mean and biased variance
      (channels,), averaged over the groups.
    """
    grouped = x.astype(jnp.float32)
    if groups > 1:
        grouped = grouped.reshape(groups, -1, *x.shape[1:])
    out, mean, var = jax.lax.platform_dependent(
        grouped, scale, bias,
        cpu=lambda x, scale, bias: by_products(x, scale, bias, epsilon, groups),
        default=lambda x, scale, bias: plain(x, scale, bias, epsilon, groups),
    )  # fmt: skip
    if groups > 1:
        mean, var = mean.mean(axis=0), var.mean(axis=0)
    return out.reshape(x.shape), mean, var


def plain(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, groups: int
) -> _Arrays:
    """Normalizes as flax does: in one pass over the batch, without negative variance.

    Several groups are the first axis of `x`, and of the mean and variance.
    """
    axes = tuple(range(groups > 1, x.ndim - 1))
    mean = x.mean(axes)
    var = jnp.maximum(jnp.square(x).mean(axes) - jnp.square(mean), 0)
    factor = jax.lax.rsqrt(_along(var, x) + epsilon) * _along(scale, x)
    return (x - _along(mean, x)) * factor + _along(bias, x), mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def by_products(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, groups: int
) -> _Arrays:
    """Computes `plain` and its gradient with sums that are fast on CPUs."""
    rows = x.size // (groups * x.shape[-1])
    of_x, of_square = _sums(x, jnp.square(x), groups)
    mean = of_x / rows
    var = jnp.maximum(of_square / rows - jnp.square(mean), 0)
    factor = jax.lax.rsqrt(var + epsilon) * scale
    return (x - _along(mean, x)) * _along(factor, x) + bias, mean, var


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, groups: int
) -> tuple[_Arrays, tuple[jax.Array, ...]]:
    out, mean, var = by_products(x, scale, bias, epsilon, groups)
    return (out, mean, var), (x, scale, mean, var)


def _backward(
    epsilon: float, groups: int, residuals: tuple[jax.Array, ...], gradients: _Arrays
) -> _Arrays:
    """Computes the gradient with two sums over the batch.

    Source: Ioffe and Szegedy, https://arxiv.org/abs/1502.03167, 2015, section 3.
    """
    x, scale, mean, var = residuals
    g, g_mean, g_var = gradients
    rows = x.size // (groups * x.shape[-1])
    inverse = jax.lax.rsqrt(var + epsilon)
    centred = x - _along(mean, x)
    of_bias, of_product = _sums(g, g * centred, groups)
    of_scale = inverse * of_product
    slope = (2 * g_var - scale * inverse**2 * of_scale) / rows
    offset = (g_mean - scale * inverse * of_bias) / rows
    of_x = g * _along(inverse * scale, x) + centred * _along(slope, x)
    of_x += _along(offset, x)
    if groups > 1:
        of_scale, of_bias = of_scale.sum(axis=0), of_bias.sum(axis=0)
    return of_x, of_scale, of_bias


by_products.defvjp(_forward, _backward)


def _sums(a: jax.Array, b: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
    """Sums two batches over all axes but the last, and the first of several groups."""
    images = a.shape[0] if groups == 1 else groups * a.shape[1]
    positions = a.size // (images * a.shape[-1])
    added = math.gcd(positions, _ADDED)
    # One loop for both reads their common input once. The axis of images remains, as
    # it may be sharded.
    parts = jax.lax.reduce(
        tuple(x.reshape(images, added, positions // added, -1) for x in (a, b)),
        (jnp.float32(0), jnp.float32(0)),
        lambda sums, terms: (sums[0] + terms[0], sums[1] + terms[1]),
        (1,),
    )
    rows = images * positions // (added * groups)
    parts = [x.reshape(groups, rows, -1) for x in parts]
    ones = jnp.ones((groups, 1, rows), a.dtype)
    first, second = ((ones @ x).reshape(*a.shape[: groups > 1], -1) for x in parts)
    return first, second


def _along(values: jax.Array, x: jax.Array) -> jax.Array:
    """Reshapes values per channel, or per group and channel, to broadcast with `x`."""
    groups = values.shape[:-1]
    return values.reshape(*groups, *[1] * (x.ndim - 1 - len(groups)), -1)
