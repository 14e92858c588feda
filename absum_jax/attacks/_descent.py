"""Projected gradient descent on one batch of images, unchecked."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.attacks import _balls
from absum_jax.attacks._objective import Candidate, Loss, Record, ascent, objective


class Budget(NamedTuple):
    """The limits of an attack: scalars that may be traced."""

    eps: chex.Numeric
    step_size: chex.Numeric
    steps: chex.Numeric
    init_radius: chex.Numeric


class Aim(NamedTuple):
    """The goal of an attack: constants of a compiled program."""

    loss: Loss | None  # None is the cross-entropy
    targeted: bool
    restarts: int
    early_stop: bool
    norm: str = "linf"  # one of _balls.NORMS


def keys_of(key: chex.PRNGKey, index: chex.Array) -> chex.PRNGKey:
    """Derives a key (batch,) for each image from one key and the images' indices."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def image_keys(key: Any, images: int) -> chex.PRNGKey:
    """Returns a key for each image, from one key or a key for each."""
    if validation.check_keys(key, images):
        return keys_of(key, jnp.arange(images))
    return key


def descend(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    keys: chex.PRNGKey | None,
    budget: Budget,
    bounds: tuple[chex.Numeric, chex.Numeric],
    aim: Aim,
    valid: chex.Array | None = None,
) -> tuple[chex.Array, Record]:
    """Attacks one batch by projected gradient descent, unchecked.

    Args:
      logits_fn: the model.
      x: images (batch, height, width, channels).
      y: labels (batch,), or targets.
      keys: of the random starts (batch,); None starts at the images.
      budget: the limits of the attack.
      bounds: the range of pixel values.
      aim: the goal of the attack.
      valid: (batch,), False for padding, which early stopping does not wait for.

    Returns:
      The attacked images in at least float32, and a record of each.
    """
    x, _, ball = _balls.around(x, budget.eps, bounds, aim.norm)
    dtype = x.dtype
    step_size, radius = (
        validation.nonnegative(value, dtype)
        for value in (budget.step_size, budget.init_radius)
    )
    assess = objective(logits_fn, y, aim.loss, targeted=aim.targeted, valid=valid)

    def climb(images: chex.Array) -> tuple[Candidate, Record]:
        """Takes one step; returns the moved images with the losses before the step."""
        gradient, (here, probabilities) = ascent(assess, images)
        moved = ball.project(ball.climb(images, gradient, step_size))
        motionless = (gradient == 0).all(axis=(1, 2, 3)) & ~here.broken
        # Images that are broken already take no further step.
        passes = (~here.broken).astype(int) if aim.early_stop else ones
        record = Record(motionless, probabilities, passes, passes)
        return here._replace(images=moved), record

    nothing, ones = Record.of_none(y), jnp.ones(y.shape, int)

    def run_all(start: chex.Array) -> tuple[chex.Array, Record]:
        def body(_: Any, state: tuple[Any, Record]) -> tuple[Any, Record]:
            images, record = state
            moved, of_step = climb(images)
            return moved.images, record.joined(of_step)

        return jax.lax.fori_loop(0, budget.steps, body, (start, nothing))

    def run_unbroken(start: chex.Array) -> tuple[chex.Array, Record]:
        def goes_on(state: tuple[Any, Any, Any, Any]) -> chex.Array:
            step, _, broken, _ = state
            return (step < budget.steps) & ~broken.all()

        def body(state: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
            step, images, _, record = state
            moved, of_step = climb(images)
            keep = moved.broken[:, None, None, None]
            images = jnp.where(keep, images, moved.images)
            return step + 1, images, moved.broken, record.joined(of_step)

        first = 0, start, jnp.zeros(y.shape, bool), nothing
        _, images, _, record = jax.lax.while_loop(goes_on, body, first)
        return images, record

    run = run_unbroken if aim.early_stop else run_all

    def start(restart: chex.Numeric) -> chex.Array:
        if keys is None:
            return x

        def noise(key: chex.PRNGKey) -> chex.Array:
            own = jax.random.fold_in(key, restart)
            return ball.inside(own, x.shape[1:], dtype)

        far = _balls.finite(radius, dtype)
        return ball.project(x + far * jax.vmap(noise)(keys))

    first, record = run(start(0))
    if aim.restarts == 1:
        return first, record

    def again(
        restart: chex.Array, state: tuple[Candidate, Record]
    ) -> tuple[Candidate, Record]:
        best, record = state
        begin = start(restart)
        if aim.early_stop:
            begin = jnp.where(best.broken[:, None, None, None], best.images, begin)
        images, of_run = run(begin)
        new, _ = assess(images)[1]
        better = new.losses > best.losses
        if aim.early_stop:
            better = ~best.broken & (new.broken | better)

        def choose(ours: chex.Array, theirs: chex.Array) -> chex.Array:
            shape = better.shape + (1,) * (ours.ndim - 1)
            return jnp.where(better.reshape(shape), ours, theirs)

        of_run = of_run._replace(forward=of_run.forward + 1)
        return jax.tree.map(choose, new, best), record.joined(of_run)

    record = record._replace(forward=record.forward + 1)
    state = assess(first)[1][0], record
    best, record = jax.lax.fori_loop(1, aim.restarts, again, state)
    return best.images, record
