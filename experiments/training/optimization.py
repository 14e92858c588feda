"""SGD with every regularizer, its hyperparameters as data, and their schedule."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import absum_jax
from experiments.config import ABSUM_AUTODIFF, Setting
from experiments.training.constraints import CONSTRAINTS

# What the learning rate is multiplied by at a milestone.
_DECAY = 0.1


class Hyperparameters(NamedTuple):
    """Hyperparameters of one model as data, so that new values recompile nothing.

    A regularizer of strength None is not part of the program.
    """

    learning_rate: jax.Array
    momentum: jax.Array
    decay: jax.Array | None  # weight decay of all parameters
    weight_decay: jax.Array | None  # of convolution kernels
    l1: jax.Array | None
    absum: jax.Array | None
    max_norm: jax.Array  # infinite without a constraint
    absum_autodiff: jax.Array | None = None  # by the gradient of its penalty


class Schedule(NamedTuple):
    """What tells where in training an epoch is, as data."""

    epoch: jax.Array  # from 0
    epochs: jax.Array
    milestones: jax.Array  # (K,), epochs from which on the learning rate is a tenth


def hyperparameters(
    settings: Sequence[Setting],
    learning_rate: float,
    momentum: float,
    decay: float = 0.0,
) -> Hyperparameters:
    """The hyperparameters of several settings, each field of shape (settings,)."""

    def strengths(method: str) -> jax.Array:
        return jnp.array([s.strength if s.method == method else 0.0 for s in settings])

    has_autodiff = any(setting.method == ABSUM_AUTODIFF for setting in settings)
    return Hyperparameters(
        learning_rate=jnp.full(len(settings), learning_rate),
        momentum=jnp.full(len(settings), momentum),
        decay=jnp.full(len(settings), decay) if decay else None,
        weight_decay=strengths("weight_decay"),
        l1=strengths("l1"),
        absum=strengths("absum"),
        max_norm=jnp.array(
            [s.strength if s.method in CONSTRAINTS else jnp.inf for s in settings]
        ),
        absum_autodiff=strengths(ABSUM_AUTODIFF) if has_autodiff else None,
    )


def without_unused(h: Hyperparameters, settings: Sequence[Setting]) -> Hyperparameters:
    """The hyperparameters without the regularizers that no setting has.

    Another program than with them: for large networks, which are compiled once for
    hours, and for timing.
    """
    methods = {setting.method for setting in settings}
    return h._replace(
        weight_decay=h.weight_decay if "weight_decay" in methods else None,
        l1=h.l1 if "l1" in methods else None,
        absum=h.absum if "absum" in methods else None,
    )


def schedule(epoch: int, epochs: int, milestones: Sequence[int] = ()) -> Schedule:
    """The schedule at an epoch, as arrays."""
    return Schedule(
        jnp.asarray(epoch), jnp.asarray(epochs), jnp.asarray(milestones, jnp.int32)
    )


def decayed(h: Hyperparameters, at: Schedule) -> Hyperparameters:
    """The hyperparameters at an epoch, whose milestones have lowered the rate."""
    passed = (at.epoch >= at.milestones).sum()
    return h._replace(learning_rate=h.learning_rate * _DECAY**passed)


def optimizer(h: Hyperparameters) -> optax.GradientTransformation:
    """SGD with momentum and every regularizer; strength 0 switches one off, exactly."""
    chain = []
    if h.decay is not None:
        chain.append(optax.add_decayed_weights(h.decay))
    if h.weight_decay is not None:
        mask = absum_jax.conv_kernels
        chain.append(optax.add_decayed_weights(h.weight_decay, mask=mask))
    chain.append(optax.sgd(h.learning_rate, momentum=h.momentum))
    if h.l1 is not None:
        chain.append(absum_jax.l1(h.l1, learning_rate=h.learning_rate))
    if h.absum is not None:
        chain.append(absum_jax.absum(h.absum, learning_rate=h.learning_rate))
    return optax.chain(*chain)
