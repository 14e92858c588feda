"""Projected gradient descent on one batch of images, unchecked."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.prox import accumulation_dtype

# From logits (batch, classes) and labels (batch,) to losses (batch,).
Loss = Callable[[chex.Array, chex.Array], chex.Array]


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


class Futility(NamedTuple):
    """Signs that an attack could not work, for each image."""

    # The attack failed, and the gradient of the loss was zero or NaN in each step.
    motionless: chex.Array
    probabilities: chex.Array  # all logits were in [0, 1] and their sum was 1


class _Candidate(NamedTuple):
    """Attacked images and the success of the attack."""

    images: chex.Array
    losses: chex.Array  # (batch,), to be maximized
    broken: chex.Array  # (batch,), whether the attack succeeded


def keys_of(key: chex.PRNGKey, index: chex.Array) -> chex.PRNGKey:
    """Derives a key (batch,) for each image from one key and the images' indices."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def _noise(
    x: chex.Array, keys: chex.PRNGKey, restart: chex.Numeric, radius: chex.Numeric
) -> chex.Array:
    """Draws uniform noise that depends only on each image's key and the restart."""

    def noise(key: chex.PRNGKey) -> chex.Array:
        own = jax.random.fold_in(key, restart)
        return jax.random.uniform(own, x.shape[1:], x.dtype, -1.0, 1.0)

    return radius * jax.vmap(noise)(keys)


def attack(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    keys: chex.PRNGKey | None,
    budget: Budget,
    bounds: tuple[chex.Numeric, chex.Numeric],
    aim: Aim,
    valid: chex.Array | None = None,
) -> tuple[chex.Array, Futility]:
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
      The attacked images in at least float32, and signs of futility.
    """
    # In bfloat16 steps would be rounded to larger ones than requested.
    dtype = accumulation_dtype(x)
    low, high = (jnp.asarray(bound, dtype) for bound in bounds)
    eps, step_size, radius = (
        validation.nonnegative(value, dtype)
        for value in (budget.eps, budget.step_size, budget.init_radius)
    )
    x = jnp.clip(x.astype(dtype), low, high)
    lowest, highest = jnp.maximum(x - eps, low), jnp.minimum(x + eps, high)
    loss_fn = aim.loss or optax.softmax_cross_entropy_with_integer_labels

    def assess(images: chex.Array) -> tuple[chex.Array, tuple[_Candidate, chex.Array]]:
        logits = logits_fn(images)
        rounding = max(1e-3, float(jnp.finfo(logits.dtype).eps))
        logits = logits.astype(accumulation_dtype(logits))
        losses = loss_fn(logits, y)
        if jnp.shape(losses) != y.shape:
            raise ValueError(
                f"`loss` must return one loss for each of {y.shape[0]} images, "
                f"got shape {jnp.shape(losses)}."
            )
        losses = -losses if aim.targeted else losses
        hit = logits.argmax(axis=-1) == y
        undefined = jnp.isnan(logits).any(axis=-1)
        broken = (hit & ~undefined) if aim.targeted else (~hit | undefined)
        # A loss may also be NaN because a model is infinitely certain.
        extreme = jnp.where(broken, jnp.inf, -jnp.inf)
        ranked = jnp.where(jnp.isnan(losses), extreme, losses)
        if valid is not None:
            broken |= ~valid
        within = ((logits >= 0) & (logits <= 1)).all(axis=-1)
        probabilities = within & (jnp.abs(logits.sum(axis=-1) - 1) < rounding)
        return losses.sum(), (_Candidate(images, ranked, broken), probabilities)

    def climb(images: chex.Array) -> tuple[_Candidate, Futility]:
        """Takes one step; returns the moved images with the losses before the step."""
        gradient, (here, probabilities) = jax.grad(assess, has_aux=True)(images)
        direction = jnp.where(jnp.isnan(gradient), 0, jnp.sign(gradient))
        # An infinite step size must not move pixels without a gradient.
        move = jnp.where(direction == 0, 0, step_size * direction)
        moved = jnp.clip(images + move, lowest, highest)
        no_gradient = (direction == 0).all(axis=(1, 2, 3))
        futility = Futility(no_gradient & ~here.broken, probabilities)
        return here._replace(images=moved), futility

    def both(futility: Futility, other: Futility) -> Futility:
        return jax.tree.map(jnp.logical_and, futility, other)

    unknown = jnp.ones(y.shape, bool)
    hopeless = Futility(unknown, unknown)

    def descend(start: chex.Array) -> tuple[chex.Array, Futility]:
        def body(_: Any, state: tuple[Any, Futility]) -> tuple[Any, Futility]:
            images, futility = state
            moved, of_step = climb(images)
            return moved.images, both(futility, of_step)

        return jax.lax.fori_loop(0, budget.steps, body, (start, hopeless))

    def descend_unbroken(start: chex.Array) -> tuple[chex.Array, Futility]:
        def goes_on(state: tuple[Any, Any, Any, Any]) -> chex.Array:
            step, _, broken, _ = state
            return (step < budget.steps) & ~broken.all()

        def body(state: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
            step, images, _, futility = state
            moved, of_step = climb(images)
            keep = moved.broken[:, None, None, None]
            images = jnp.where(keep, images, moved.images)
            return step + 1, images, moved.broken, both(futility, of_step)

        first = 0, start, ~unknown, hopeless
        _, images, _, futility = jax.lax.while_loop(goes_on, body, first)
        return images, futility

    run = descend_unbroken if aim.early_stop else descend

    def start(restart: chex.Numeric) -> chex.Array:
        if keys is None:
            return x
        noisy = x + _noise(x, keys, restart, radius)
        return jnp.clip(noisy, lowest, highest)

    first, futility = run(start(0))
    if aim.restarts == 1:
        return first, futility

    def again(
        restart: chex.Array, state: tuple[_Candidate, Futility]
    ) -> tuple[_Candidate, Futility]:
        best, futility = state
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

        return jax.tree.map(choose, new, best), both(futility, of_run)

    state = assess(first)[1][0], futility
    best, futility = jax.lax.fori_loop(1, aim.restarts, again, state)
    return best.images, futility
