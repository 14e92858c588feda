"""Auto-PGD: projected gradient descent that chooses its own step sizes."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from absum_jax import _logits
from absum_jax.attacks import _balls, losses
from absum_jax.attacks._descent import Aim, Budget, image_keys
from absum_jax.attacks._objective import Loss, Record, ascent, objective
from absum_jax.attacks.gradient import (
    check_aim,
    check_attacked,
    check_budget,
    check_not_futile,
    over_eps,
)

# Constants of the paper's algorithm 1: the step size is halved if at most a percentage
# of the steps raised the loss; periods between checks are fractions of all steps.
_MOMENTUM = 0.75
_MOST_RAISES = 75
_FIRST_PERIOD, _SHORTENING, _SHORTEST_PERIOD = 0.22, 0.03, 0.06


class _State(NamedTuple):
    """The state of one run, with arrays (batch, ...) unless a scalar is noted."""

    step: chex.Array  # scalar
    images: chex.Array  # to be evaluated next
    previous: chex.Array
    losses: chex.Array  # of the previous images
    size: chex.Array
    best_images: chex.Array
    best_losses: chex.Array
    best_gradient: chex.Array
    # Since the last check of the step size.
    elapsed: chex.Array  # scalar
    period: chex.Array  # scalar, the number of steps between checks
    raises: chex.Array  # number of steps that raised the loss
    checked_losses: chex.Array  # the best ones at the last check
    halved: chex.Array  # whether the last check halved the step size
    broken: chex.Array
    record: Record


def _rows(flags: chex.Array) -> chex.Array:
    return flags[:, None, None, None]


def ascend(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    keys: chex.PRNGKey,
    budget: Budget,
    bounds: tuple[chex.Numeric, chex.Numeric],
    aim: Aim,
    valid: chex.Array | None = None,
    target: chex.Array | None = None,
) -> tuple[chex.Array, Record]:
    """Attacks one batch by Auto-PGD, unchecked.

    The step size starts at twice eps. The attack of an image stops once it succeeds.

    Args:
      logits_fn: the model.
      x: images (batch, height, width, channels).
      y: labels (batch,), or targets if the aim is targeted.
      keys: random keys of the starts (batch,).
      budget: the radius and the number of steps.
      bounds: the range of pixel values.
      aim: the goal of the attack.
      valid: (batch,), False for padding, which the attack does not wait for.
      target: classes (batch,) for :func:`targeted_dlr_loss`, which then replaces the
        loss of the aim; any misclassification is a success. None keeps that loss.

    Returns:
      The attacked images in at least float32, and a record of each.
    """
    x, eps, ball = _balls.around(x, budget.eps, bounds, aim.norm)
    dtype = x.dtype
    loss = aim.loss
    if target is not None:
        loss = functools.partial(losses.targeted_dlr_loss, target=target)
    assess = objective(logits_fn, y, loss, targeted=aim.targeted, valid=valid)
    steps = jnp.asarray(budget.steps, int)

    def period(fraction: float) -> chex.Array:
        # Rounded first: in float32, 0.06 of 100 steps is not 6.
        hundredths = jnp.asarray(round(100 * fraction), int)
        return jnp.maximum(hundredths * steps // 100, 1)

    def goes_on(state: _State) -> chex.Array:
        return (state.step <= steps) & ~state.broken.all()

    def body(state: _State) -> _State:
        step, images = state.step, state.images
        gradient, (here, probabilities) = ascent(assess, images)
        passes = (~state.broken).astype(int)
        motionless = (gradient == 0).all(axis=(1, 2, 3)) & ~here.broken
        record = Record(motionless, probabilities, passes, passes)
        record = state.record.joined(record)
        broken = state.broken | here.broken

        started = step > 0
        better = here.losses > state.best_losses
        best_losses = jnp.where(better, here.losses, state.best_losses)
        best_images = jnp.where(_rows(better), images, state.best_images)
        best_gradient = jnp.where(_rows(better), gradient, state.best_gradient)
        raised = started & (here.losses > state.losses)
        raises = state.raises + raised.astype(int)
        elapsed = state.elapsed + started.astype(int)

        checked = elapsed == state.period
        stalled = ~state.halved & (state.checked_losses >= best_losses)
        halved = stalled | (100 * raises <= _MOST_RAISES * state.period)
        back = _rows(checked & halved)
        size = jnp.where(back, state.size / 2, state.size)
        images = jnp.where(back, best_images, images)
        gradient = jnp.where(back, best_gradient, gradient)
        shorter = state.period - period(_SHORTENING)
        shorter = jnp.maximum(shorter, period(_SHORTEST_PERIOD))

        aimed = ball.project(ball.climb(images, gradient, size))
        momentum = jnp.where(started, _MOMENTUM, 1).astype(dtype)
        change = momentum * (aimed - images)
        change += (1 - momentum) * (images - state.previous)
        moved = ball.project(images + change)
        return _State(
            step=step + 1,
            images=jnp.where(_rows(broken), state.images, moved),
            previous=images,
            losses=here.losses,
            size=size,
            best_images=best_images,
            best_losses=best_losses,
            best_gradient=best_gradient,
            elapsed=jnp.where(checked, 0, elapsed),
            period=jnp.where(checked, shorter, state.period),
            raises=jnp.where(checked, 0, raises),
            checked_losses=jnp.where(
                checked | ~started, best_losses, state.checked_losses
            ),
            halved=jnp.where(checked, halved, state.halved),
            broken=broken,
            record=record,
        )

    def run(restart: chex.Numeric, broken: chex.Array, images: chex.Array) -> _State:
        def noise(key: chex.PRNGKey) -> chex.Array:
            return ball.surface(jax.random.fold_in(key, restart), x.shape[1:], dtype)

        far = _balls.finite(eps, dtype)
        start = ball.project(x + far * jax.vmap(noise)(keys))
        start = jnp.where(_rows(broken), images, start)
        lowest = jnp.full(y.shape, -jnp.inf, dtype)
        count = jnp.zeros(y.shape, int)
        first = _State(
            step=jnp.zeros((), int), images=start, previous=start, losses=lowest,
            size=jnp.broadcast_to(2 * eps, _rows(broken).shape), best_images=start,
            best_losses=lowest, best_gradient=jnp.zeros_like(x),
            elapsed=jnp.zeros((), int), period=period(_FIRST_PERIOD), raises=count,
            checked_losses=lowest, halved=jnp.ones(y.shape, bool), broken=broken,
            record=Record.of_none(y),
        )  # fmt: skip
        return jax.lax.while_loop(goes_on, body, first)

    def again(restart: chex.Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
        images, best, broken, record = state
        last = run(restart, broken, images)
        better = last.best_losses > best
        found = jnp.where(_rows(better), last.best_images, images)
        images = jnp.where(_rows(last.broken), last.images, found)
        best = jnp.where(better, last.best_losses, best)
        return images, best, last.broken, record.joined(last.record)

    none = jnp.zeros(y.shape, bool) if valid is None else ~valid
    lowest = jnp.full(y.shape, -jnp.inf, dtype)
    first = x, lowest, none, Record.of_none(y)
    images, _, _, record = jax.lax.fori_loop(0, aim.restarts, again, first)
    return images, record


def apgd(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    key: chex.PRNGKey,
    eps: chex.Numeric,
    steps: int = 100,
    bounds: tuple[chex.Numeric, chex.Numeric] = (0.0, 1.0),
    loss: Loss | None = None,
    targeted: bool = False,
    restarts: int = 1,
    norm: str = "linf",
) -> chex.Array:
    r"""Attacks by Auto-PGD in the L-infinity or L2 ball.

    Auto-PGD chooses its own step sizes. It starts with :math:`\eta_0 = 2 \varepsilon`,
    and its steps have momentum:

    .. math::
      z &= \Pi\left(\hat x_k + \eta_k \operatorname{sign} \nabla L(\hat x_k, y)\right)
      \\
      \hat x_{k+1} &= \Pi\left(\hat x_k + \tfrac34 (z - \hat x_k) + \tfrac14 (\hat x_k -
      \hat x_{k-1})\right)

    The first step has no momentum and goes to z. In the L2 ball, the gradient divided
    by its L2 norm takes the place of its sign. At checks that become more frequent, the
    step size of an image is halved, and the attack returns to the best point so far, if
    at most three quarters of the steps since the last check raised the loss, or if the
    last check did not halve the step size and no better point has been found since.
    The first step is compared with the start; the authors' implementation compares it
    with a loss of zero. The attack of an image stops once it is misclassified or, if
    targeted, once it is classified as its target.

    Args:
      logits_fn: a callable from images to logits, as in :func:`pgd`.
      x: images (batch, height, width, channels), floating-point, within the bounds.
      y: integer labels (batch,); the target classes, if targeted.
      key: random key of the starts, or a key for each image, as in :func:`pgd`. The
        random change of a start has the norm eps before it is clipped to the bounds.
      eps: radius of the ball, non-negative, in units of the pixels: a scalar or a list
        (E,).
      steps: number of steps, at least one. A new number does not trigger recompilation.
      bounds: the range of pixel values, in which the result lies without tolerance.
      loss: a function of logits and labels, as in :func:`pgd`, such as
        :func:`dlr_loss`; None is the cross-entropy.
      targeted: whether to lower the loss of the classes `y`.
      restarts: number of random starts.
      norm: `"linf"` or `"l2"`, as in :func:`pgd`.

    Returns:
      The attacked images (batch, height, width, channels), for a list of eps with a
      leading axis (E,); in at least float32. For each image, this is the first point
      at which the attack succeeded, or else the point with the largest loss (with the
      smallest, if targeted).

    Raises:
      ValueError: for the reasons of :func:`pgd`.

    Warns:
      UserWarning: if the loss had no gradient at an image in any step.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], -1)
      >>> x = jnp.array([0.25, 0.875]).reshape(2, 1, 1, 1)
      >>> attacked = absum_jax.apgd(
      ...     brighter, x, jnp.array([0, 1]), key=jax.random.key(0), eps=0.125
      ... )
      >>> attacked.ravel()
      Array([0.375, 0.75 ], dtype=float32)

    References:
      Croce and Hein, `Reliable Evaluation of Adversarial Robustness with an Ensemble of
      Diverse Parameter-Free Attacks <https://arxiv.org/abs/2003.01690>`_, 2020,
      algorithm 1
    """
    aim = check_aim(loss, targeted, restarts, early_stop=True, norm=norm)
    budget = check_budget(eps, eps, steps, None)
    x, y, bounds = check_attacked(logits_fn, x, y, bounds)
    keys = image_keys(key, x.shape[0])
    attacked, record = over_eps(ascend, logits_fn, x, y, keys, budget, bounds, aim)
    check_not_futile(record, x.shape[0], aim)
    return attacked
