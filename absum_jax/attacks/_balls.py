"""Balls around images: where attacks start, how they move, and where they stay."""

import math
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp

from absum_jax import _validation as validation
from absum_jax.prox import accumulation_dtype

NORMS = ("linf", "l2")


class Ball(Protocol):
    """A ball around each image of a batch, within the bounds of pixels."""

    def project(self, images: chex.Array) -> chex.Array:
        """Moves images to the nearest points of the ball, and clips these."""

    def climb(self, images: chex.Array, gradient: chex.Array, size: Any) -> chex.Array:
        """Moves images by a size in the direction of steepest ascent.

        An infinite size does not move pixels without a gradient.
        """

    def inside(self, key: chex.PRNGKey, shape: tuple[int, ...], dtype: Any) -> Any:
        """Draws a point uniformly from the unit ball of the norm."""

    def surface(self, key: chex.PRNGKey, shape: tuple[int, ...], dtype: Any) -> Any:
        """Draws a point of norm one."""


def finite(size: Any, dtype: Any) -> chex.Array:
    """Returns a size of at most the square root of the largest number.

    Of a direction of norm one, points so far away keep it: their distances are
    representable, and so is what a projection multiplies these by.
    """
    return jnp.minimum(jnp.asarray(size, dtype), float(jnp.finfo(dtype).max) ** 0.5)


def _norms(images: chex.Array) -> chex.Array:
    """Returns the L2 norm of each image, (batch, 1, 1, 1)."""
    # In units of the largest entry, whose square may not be representable.
    unit = jnp.abs(images).max(axis=(1, 2, 3), keepdims=True)
    unit = jnp.where(unit > 0, unit, 1)
    squares = jnp.square(images / unit)
    return unit * jnp.sqrt(squares.sum(axis=(1, 2, 3), keepdims=True))


class _LinfBall(NamedTuple):
    lowest: chex.Array
    highest: chex.Array

    def project(self, images: chex.Array) -> chex.Array:
        return jnp.clip(images, self.lowest, self.highest)

    def climb(self, images: chex.Array, gradient: chex.Array, size: Any) -> chex.Array:
        direction = jnp.sign(gradient)
        return images + jnp.where(direction == 0, 0, size * direction)

    def inside(self, key: chex.PRNGKey, shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0)

    def surface(self, key: chex.PRNGKey, shape: tuple[int, ...], dtype: Any) -> Any:
        noise = self.inside(key, shape, dtype)
        return noise / jnp.abs(noise).max()


class _L2Ball(NamedTuple):
    x: chex.Array
    radius: chex.Array
    low: chex.Array
    high: chex.Array

    def project(self, images: chex.Array) -> chex.Array:
        change = images - self.x
        norms = _norms(change)
        # A little smaller, as rounding the sum may lengthen the change again.
        ulp = jnp.finfo(change.dtype).eps
        pixels = jnp.abs(self.x).max(axis=(1, 2, 3), keepdims=True)
        largest = jnp.minimum(
            jnp.maximum(jnp.abs(self.low), jnp.abs(self.high)),
            pixels + finite(self.radius, change.dtype),
        )
        radius = jnp.maximum(self.radius * (1 - 8 * ulp) - 2 * ulp * largest, 0)
        inner = self.x + change * (radius / jnp.maximum(norms, radius))
        images = jnp.where(norms <= radius, images, inner)
        return jnp.clip(images, self.low, self.high)

    def climb(self, images: chex.Array, gradient: chex.Array, size: Any) -> chex.Array:
        norms = _norms(gradient)
        direction = gradient / jnp.where(norms > 0, norms, 1)
        return images + finite(size, images.dtype) * direction

    def inside(self, key: chex.PRNGKey, shape: tuple[int, ...], dtype: Any) -> Any:
        key, own = jax.random.split(key)
        radius = jax.random.uniform(own, (), dtype) ** (1 / math.prod(shape))
        return radius * self.surface(key, shape, dtype)

    def surface(self, key: chex.PRNGKey, shape: tuple[int, ...], dtype: Any) -> Any:
        noise = jax.random.normal(key, shape, dtype)
        return noise / jnp.linalg.norm(noise)


def around(
    x: chex.Array,
    eps: chex.Numeric,
    bounds: tuple[chex.Numeric, chex.Numeric],
    norm: str,
) -> tuple[chex.Array, chex.Array, Ball]:
    """Prepares images and the balls around them.

    Args:
      x: images (batch, height, width, channels), of which traced ones may be beyond the
        bounds.
      eps: the radius; a negative or NaN one makes a ball of NaN.
      bounds: the range of pixel values.
      norm: one of NORMS.

    Returns:
      The images within the bounds, in at least float32, as in bfloat16 steps would be
      rounded to larger ones than requested; the radius in the same dtype; the balls.

    Example:
      >>> import jax.numpy as jnp
      >>> from absum_jax.attacks import _balls
      >>> x = jnp.array([0.25, 0.75]).reshape(1, 1, 2, 1)
      >>> x, eps, ball = _balls.around(x, 0.5, (0, 1), "linf")
      >>> ball.project(x + jnp.array([0.75, -0.125])[:, None]).ravel()
      Array([0.75 , 0.625], dtype=float32)
    """
    dtype = accumulation_dtype(x)
    low, high = (jnp.asarray(bound, dtype) for bound in bounds)
    x, eps = jnp.clip(x.astype(dtype), low, high), validation.nonnegative(eps, dtype)
    if norm == "l2":
        return x, eps, _L2Ball(x, eps, low, high)
    return x, eps, _LinfBall(jnp.maximum(x - eps, low), jnp.minimum(x + eps, high))
