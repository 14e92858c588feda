"""Applies constraints to the models of a sweep that have one.

A constraint acts on the parameters of its own models alone, every so many steps. Under
the sweep's `vmap` a count of steps for each model would turn the condition into a
selection and clip at each step: here one count serves the program.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.config import Setting
from experiments.methods import METHODS, Constraint
from experiments.methods.method import Params, Uses

# The steps from one clip of the paper's SNC to the next.
CLIP_EVERY = Constraint._field_defaults["every"]
# The least number of steps after the last clip, in which the running statistics of
# batch normalization adapt to it: 0.9^50 = 0.5 % of their old values is left. In the
# paper, 350 epochs of 391 steps end 50 steps after a clip. Ours, without incomplete
# batches, would end with one.
SETTLE_STEPS = 50


class Constrained(NamedTuple):
    """The models of a sweep that have a constraint."""

    method: str
    columns: tuple[int, ...]  # among the sweep's settings
    settle_steps: int = 0  # at the end of training, which have no clip


def constrained(
    settings: Sequence[Setting], settle_steps: int = 0
) -> tuple[Constrained, ...]:
    """Lists the constraints in a sweep."""
    return tuple(
        Constrained(method, columns, settle_steps)
        for method, entry in METHODS.items()
        if entry.constraint is not None
        and (columns := tuple(i for i, s in enumerate(settings) if s.method == method))
    )


def is_due(
    constraint: Constraint, step: Any, last_step: Any, settle_steps: int = 0
) -> Any:
    """Returns whether a constraint acts after a step, which may be an array."""
    due = step % constraint.every == 0
    if settle_steps:
        due &= step <= last_step - settle_steps
    if constraint.at_end:
        due |= step == last_step
    return due


def is_idle(method: str, last_step: int, settle_steps: int = 0) -> bool:
    """Returns whether a method has a constraint that is never due in so many steps."""
    constraint = METHODS[method].constraint
    return constraint is not None and not (
        constraint.at_end or constraint.every <= last_step - settle_steps
    )


def constrain(
    params: Params, bounds: Mapping[str, jax.Array], uses: Uses,
    groups: Sequence[Constrained], step: jax.Array, last_step: jax.Array,
) -> Params:  # fmt: skip
    """Constrains the models of `groups` that are due after a step.

    Parameters and the bounds of each method have a leading axis of settings.
    """
    for method, columns, settle_steps in groups:
        constraint = METHODS[method].constraint
        assert constraint is not None
        due = is_due(constraint, step, last_step, settle_steps)
        index = jnp.array(columns)

        def apply(
            params: Params, constraint: Constraint = constraint, index: Any = index,
            bounds: jax.Array = bounds[method],
        ) -> Params:  # fmt: skip
            chosen = jax.tree.map(lambda leaf: leaf[index], params)
            moved = jax.vmap(lambda p, bound: constraint.apply(p, bound, uses))(
                chosen, bounds[index]
            )
            return jax.tree.map(lambda old, new: old.at[index].set(new), params, moved)

        params = jax.lax.cond(due, apply, lambda params: params, params)
    return params
