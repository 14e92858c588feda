"""The Square attack: a random search that needs no gradient."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.attacks import _balls, losses
from absum_jax.attacks._descent import Aim, Budget, image_keys
from absum_jax.attacks._objective import Record, objective
from absum_jax.attacks.gradient import (
    check_aim,
    check_attacked,
    check_budget,
    over_eps,
)

# The fraction of pixels that a window covers at first, and the queries after which it
# is halved, for a search of about 10,000 queries.
_FRACTION = 0.8
_HALVINGS = np.array([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000])


class _State(NamedTuple):
    query: chex.Array  # scalar
    images: chex.Array  # the best ones
    losses: chex.Array  # (batch,)
    broken: chex.Array  # (batch,)
    record: Record


def _in_window(size: int, start: chex.Array, length: chex.Array) -> chex.Array:
    """Returns which of the rows or columns of an image are in a window, (size,)."""
    index = jnp.arange(size)
    return (index >= start) & (index < start + length)


def _side(query: chex.Array, height: int, width: int) -> chex.Array:
    """Returns how many pixels wide and high the window of a query is."""
    halvings = (query - 1 > jnp.asarray(_HALVINGS, query.dtype)).sum()
    area = _FRACTION * height * width * jnp.exp2(-halvings.astype(jnp.float32))
    side = jnp.round(jnp.sqrt(area)).astype(int)
    return jnp.clip(side, 1, min(height, width))


def search(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    keys: chex.PRNGKey,
    budget: Budget,
    bounds: tuple[chex.Numeric, chex.Numeric],
    aim: Aim,
    valid: chex.Array | None = None,
) -> tuple[chex.Array, Record]:
    """Attacks one batch by random search, unchecked.

    Args:
      logits_fn: the model.
      x: images (batch, height, width, channels).
      y: labels (batch,).
      keys: random keys of the windows and colors (batch,).
      budget: the radius, and the number of queries in place of that of steps.
      bounds: the range of pixel values.
      aim: the norm; nothing else of it is used.
      valid: (batch,), False for padding, which the attack does not wait for.

    Returns:
      The attacked images in at least float32, and a record of each.
    """
    x, eps, ball = _balls.around(x, budget.eps, bounds, aim.norm)
    dtype = x.dtype
    assess = objective(logits_fn, y, losses.margin_loss, valid=valid)
    height, width, channels = x.shape[1:]

    def stripes(key: chex.PRNGKey) -> chex.Array:
        """Draws a color for each column."""
        return jax.random.rademacher(key, (1, width, channels), dtype)

    def square(key: chex.PRNGKey, query: chex.Array) -> chex.Array:
        """Draws a window of one color in a picture of zeros."""
        side = _side(query, height, width)
        rows, columns, colors = jax.random.split(jax.random.fold_in(key, query), 3)
        top = jax.random.randint(rows, (), 0, height - side + 1)
        left = jax.random.randint(columns, (), 0, width - side + 1)
        window = (
            _in_window(height, top, side)[:, None]
            & _in_window(width, left, side)[None, :]
        )
        color = jax.random.rademacher(colors, (channels,), dtype)
        return jnp.where(window[..., None], color[None, None], 0)

    def goes_on(state: _State) -> chex.Array:
        return (state.query <= budget.steps) & ~state.broken.all()

    def body(state: _State) -> _State:
        query = state.query

        def change(key: chex.PRNGKey) -> chex.Array:
            return jnp.where(query == 0, stripes(key), 2 * square(key, query))

        # Twice eps moves each pixel of the window to one side of the ball.
        changes = jax.vmap(change)(keys)
        moved = jnp.where(changes == 0, 0, eps * changes)
        images = ball.project(state.images + moved)
        _, (here, probabilities) = assess(images)
        better = (here.losses > state.losses) | here.broken
        better = better & ~state.broken
        passes = (~state.broken).astype(int)
        never = jnp.zeros(y.shape, bool)
        record = Record(never, probabilities, passes, jnp.zeros_like(passes))
        return _State(
            query + 1,
            jnp.where(better[:, None, None, None], images, state.images),
            jnp.where(better, here.losses, state.losses),
            state.broken | here.broken,
            state.record.joined(record),
        )

    none = jnp.zeros(y.shape, bool) if valid is None else ~valid
    lowest = jnp.full(y.shape, -jnp.inf, dtype)
    first = _State(jnp.zeros((), int), x, lowest, none, Record.of_none(y))
    last = jax.lax.while_loop(goes_on, body, first)
    return last.images, last.record


def square(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    key: chex.PRNGKey,
    eps: chex.Numeric,
    queries: int = 5000,
    bounds: tuple[chex.Numeric, chex.Numeric] = (0.0, 1.0),
) -> chex.Array:
    r"""Attacks by the Square attack, a random search in the L-infinity ball.

    The attack needs no gradient, and so also works on a model that has none or hides
    it. It starts by adding :math:`\varepsilon` or :math:`-\varepsilon` to each column
    and channel. Each query then draws a random square window and a random sign for each
    channel, and moves the window's pixels to that side of the ball; the change is kept
    if :func:`margin_loss` grows. Windows cover 80 % of the pixels at first, and half as
    many after each of 10, 50, 200, 500, 1,000, 2,000, 4,000, 6,000 and 8,000 queries.
    The attack of an image stops once it is misclassified.

    Each image has windows of its own, which depend only on its key, and may lie
    anywhere. In the authors' implementation, the images of a batch share windows, and
    none that is smaller than the image reaches the last row or column. An image that is
    misclassified without an attack is attacked like all others.

    Args:
      logits_fn: a callable from images to logits, as in :func:`pgd`; it need not have a
        gradient.
      x: images (batch, height, width, channels), floating-point, within the bounds.
      y: integer labels (batch,).
      key: random key, or a key for each image, as in :func:`pgd`.
      eps: radius of the L-infinity ball, non-negative, in units of the pixels: a scalar
        or a list (E,).
      queries: number of windows tried, at least one. A new number does not trigger
        recompilation.
      bounds: the range of pixel values, in which the result lies without tolerance.

    Returns:
      The attacked images (batch, height, width, channels), for a list of eps with a
      leading axis (E,); in at least float32. For each image, this is a misclassified
      point if one was found, or else the point with the largest loss of those tried.

    Raises:
      ValueError: for the reasons of :func:`pgd`, but for probabilities, whose order is
        that of logits.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], -1)
      >>> x = jnp.array([0.25, 0.875]).reshape(2, 1, 1, 1)
      >>> attacked = absum_jax.square(
      ...     brighter, x, jnp.array([0, 1]), key=jax.random.key(0), eps=0.125,
      ...     queries=20,
      ... )
      >>> attacked.ravel()
      Array([0.375, 0.75 ], dtype=float32)

    References:
      Andriushchenko et al., `Square Attack: a Query-Efficient Black-Box Adversarial
      Attack via Random Search <https://arxiv.org/abs/1912.00049>`_, 2020
    """
    aim = check_aim(None, False, restarts=1)
    validation.check_count("queries", queries)
    budget = check_budget(eps, eps, queries, None)
    x, y, bounds = check_attacked(logits_fn, x, y, bounds)
    keys = image_keys(key, x.shape[0])
    # Probabilities have the order of logits, and no gradient is needed.
    return over_eps(search, logits_fn, x, y, keys, budget, bounds, aim)[0]
