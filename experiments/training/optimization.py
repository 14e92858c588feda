"""SGD with regularization methods, hyperparameters as data, and their schedule."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.config import NONE, Setting
from experiments.methods import METHODS, Method

# The factor of the learning rate at a milestone.
_DECAY = 0.1


class Hyperparameters(NamedTuple):
    """Hyperparameters of one model as data, so that new values recompile nothing."""

    learning_rate: jax.Array
    momentum: jax.Array
    decay: jax.Array | None  # weight decay of all parameters
    # Of each method in the program; zero where the model has another one.
    strengths: dict[str, jax.Array]

    @property
    def methods(self) -> list[tuple[Method, jax.Array]]:
        """Lists the methods in the program, in the table's order, and strengths."""
        # jax sorts the keys of a dict.
        strengths = self.strengths
        return [
            (m, strengths[name]) for name, m in METHODS.items() if name in strengths
        ]


class Schedule(NamedTuple):
    """The place of an epoch in training, as data."""

    epoch: jax.Array  # from 0
    epochs: jax.Array
    milestones: jax.Array  # (K,), epochs from which on the learning rate is a tenth


def hyperparameters(
    settings: Sequence[Setting], learning_rate: float, momentum: float,
    decay: float = 0.0,
) -> Hyperparameters:  # fmt: skip
    """Returns the hyperparameters of several settings, each array (settings,)."""
    used = {setting.method for setting in settings} - {NONE.method}
    return Hyperparameters(
        learning_rate=jnp.full(len(settings), learning_rate),
        momentum=jnp.full(len(settings), momentum),
        decay=jnp.full(len(settings), decay) if decay else None,
        strengths={
            name: jnp.array([s.strength if s.method == name else 0.0 for s in settings])
            for name, method in METHODS.items()
            if method.is_always_compiled or name in used
        },
    )


def without_unused(h: Hyperparameters, settings: Sequence[Setting]) -> Hyperparameters:
    """Returns the hyperparameters without the methods that no setting has.

    Another program than with them: for large networks, which are compiled once for
    hours, and for timing.
    """
    used = {setting.method for setting in settings}
    return h._replace(strengths={n: s for n, s in h.strengths.items() if n in used})


def schedule(epoch: int, epochs: int, milestones: Sequence[int] = ()) -> Schedule:
    """Returns the schedule at an epoch, as arrays."""
    return Schedule(
        jnp.asarray(epoch), jnp.asarray(epochs), jnp.asarray(milestones, jnp.int32)
    )


def decayed(h: Hyperparameters, at: Schedule) -> Hyperparameters:
    """Returns the hyperparameters with the learning rate of an epoch."""
    passed = (at.epoch >= at.milestones).sum()
    return h._replace(learning_rate=h.learning_rate * _DECAY**passed)


def optimizer(h: Hyperparameters) -> optax.GradientTransformation:
    """Builds SGD with momentum and the methods of the program.

    Strength 0 switches a method off, exactly.
    """
    rate = h.learning_rate
    decay = () if h.decay is None else (optax.add_decayed_weights(h.decay),)
    return optax.chain(
        *decay,
        *(m.before_sgd(strength, rate) for m, strength in h.methods if m.before_sgd),
        optax.sgd(rate, momentum=h.momentum),
        *(m.after_sgd(strength, rate) for m, strength in h.methods if m.after_sgd),
    )
