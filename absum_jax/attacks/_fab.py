"""The targeted FAB attack: steps to the linearized boundary between two classes."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from absum_jax import _logits
from absum_jax.attacks import _balls
from absum_jax.attacks._descent import Aim, Budget
from absum_jax.attacks._objective import (
    Record,
    are_probabilities,
    is_misclassified,
)
from absum_jax.prox import accumulation_dtype

# Constants of the authors: overshoot beyond the boundary, the largest weight of the
# step from the original image, and the way back to it after a success.
_OVERSHOOT = 1.05
_MOST_FROM_ORIGINAL = 0.1
_WAY_BACK = 0.9


def to_hyperplane(
    images: chex.Array,
    normal: chex.Array,
    offset: chex.Array,
    bounds: tuple[chex.Numeric, chex.Numeric],
) -> tuple[chex.Array, chex.Array]:
    r"""Computes the smallest L-infinity change of images that reaches a hyperplane.

    .. math::
      \min \|\delta\|_\infty \quad \text{such that} \quad w \cdot \delta = c, \quad
      low \le x + \delta \le high

    A change of size t moves :math:`w \cdot \delta` by at most :math:`g(t) = \sum_i
    |w_i| \min(t, r_i)`, with :math:`r_i` the distance of pixel i from the bound ahead.
    As g is concave and piecewise linear, Newton's method from 0 finds g(t) = |c|
    exactly, after at most one step for each piece.

    Args:
      images: x (batch, height, width, channels), within the bounds.
      normal: w, of the same shape.
      offset: c (batch,).
      bounds: the range of pixel values.

    Returns:
      The changes, and their sizes t (batch, 1, 1, 1). If no change within the bounds
      reaches the hyperplane, all pixels go to the bound ahead, and t is the largest
      change.

    Example:
      >>> import jax.numpy as jnp
      >>> from absum_jax.attacks import _fab
      >>> x, w = jnp.array([[0.5, 1.0]]), jnp.array([[2.0, 1.0]])  # one is at the bound
      >>> change, size = _fab.to_hyperplane(
      ...     x.reshape(1, 1, 2, 1), w.reshape(1, 1, 2, 1), jnp.array([0.5]), (0, 1)
      ... )
      >>> change.ravel(), size.item()
      (Array([0.25, 0.  ], dtype=float32), 0.25)
    """
    low, high = (jnp.asarray(bound, images.dtype) for bound in bounds)
    distance = jnp.abs(offset)[:, None, None, None]
    direction = jnp.sign(offset)[:, None, None, None] * jnp.sign(normal)
    weights = jnp.abs(normal)
    ahead = jnp.where(direction > 0, high - images, images - low)
    room = jnp.where(direction == 0, 0, ahead)

    def total(terms: chex.Array) -> chex.Array:
        return terms.sum(axis=(1, 2, 3), keepdims=True)

    def body(state: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        size, _ = state
        reached = total(weights * jnp.minimum(room, size))
        slope = total(jnp.where(room > size, weights, 0))
        missing = jnp.maximum(distance - reached, 0)
        larger = size + jnp.where(slope > 0, missing / slope, 0)
        # Not the last digits, which rounding moves back and forth.
        return larger, larger > size * (1 + 1e-6)

    def goes_on(state: tuple[chex.Array, chex.Array]) -> chex.Array:
        return state[1].any()

    zero = jnp.zeros(distance.shape, images.dtype)
    first = zero, jnp.ones(zero.shape, bool)
    size, _ = jax.lax.while_loop(goes_on, body, first)
    change = direction * jnp.minimum(room, size)
    return change, jnp.abs(change).max(axis=(1, 2, 3), keepdims=True)


class _State(NamedTuple):
    step: chex.Array  # scalar
    images: chex.Array
    found: chex.Array  # the first misclassified images in the ball
    broken: chex.Array  # (batch,)
    record: Record


def approach(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    keys: chex.PRNGKey,
    budget: Budget,
    bounds: tuple[chex.Numeric, chex.Numeric],
    aim: Aim,
    valid: chex.Array | None,
    target: chex.Array,
) -> tuple[chex.Array, Record]:
    """Attacks one batch by the targeted FAB attack in the L-infinity ball, unchecked.

    The attack seeks the nearest misclassified point, starting at the image itself; its
    steps may leave the ball. It stops at the first such point in the ball.

    Args:
      logits_fn: the model.
      x: images (batch, height, width, channels).
      y: labels (batch,).
      keys: unused, as nothing is random.
      budget: the radius and the number of steps.
      bounds: the range of pixel values.
      aim: unused.
      valid: (batch,), False for padding, which the attack does not wait for.
      target: classes (batch,), whose boundary with the label the attack approaches.

    Returns:
      The attacked images in at least float32, and a record of each.
    """
    x, _, ball = _balls.around(x, budget.eps, bounds, "linf")
    dtype = x.dtype

    def lead(images: chex.Array) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
        """Returns by how much the target's logit exceeds the label's."""
        logits = logits_fn(images)
        probabilities = are_probabilities(logits)
        logits = logits.astype(accumulation_dtype(logits))
        both = jnp.stack([jnp.asarray(target), jnp.asarray(y)], axis=-1)
        own = jnp.take_along_axis(logits, both, axis=-1)
        leads = own[:, 0] - own[:, 1]
        return leads.sum(), (leads, probabilities)

    def goes_on(state: _State) -> chex.Array:
        return (state.step < budget.steps) & ~state.broken.all()

    def body(state: _State) -> _State:
        images = state.images
        normal, (leads, probabilities) = jax.grad(lead, has_aux=True)(images)
        normal, leads = jnp.nan_to_num(normal), leads.astype(dtype)
        behind = (normal * (images - x)).sum(axis=(1, 2, 3))
        offset = jnp.nan_to_num(-leads)
        here, size = to_hyperplane(images, normal, offset, bounds)
        there, size_there = to_hyperplane(x, normal, offset + behind, bounds)
        least = jnp.asarray(1e-8, dtype)
        size, size_there = jnp.maximum(size, least), jnp.maximum(size_there, least)
        weight = jnp.minimum(size / (size + size_there), _MOST_FROM_ORIGINAL)
        moved = (1 - weight) * (images + _OVERSHOOT * here)
        moved += weight * (x + _OVERSHOOT * there)
        moved = jnp.clip(moved, *(jnp.asarray(bound, dtype) for bound in bounds))

        wrong = is_misclassified(logits_fn(moved), y)
        inside = (ball.project(moved) == moved).all(axis=(1, 2, 3))
        new = wrong & inside & ~state.broken
        found = jnp.where(new[:, None, None, None], moved, state.found)
        nearer = x + _WAY_BACK * (moved - x)
        moved = jnp.where(wrong[:, None, None, None], nearer, moved)
        passes = (~state.broken).astype(int)
        motionless = (normal == 0).all(axis=(1, 2, 3)) & ~new & ~state.broken
        record = Record(motionless, probabilities, 2 * passes, passes)
        return _State(
            state.step + 1,
            moved,
            found,
            state.broken | new,
            state.record.joined(record),
        )

    none = jnp.zeros(y.shape, bool) if valid is None else ~valid
    first = _State(jnp.zeros((), int), x, x, none, Record.of_none(y))
    last = jax.lax.while_loop(goes_on, body, first)
    return last.found, last.record
