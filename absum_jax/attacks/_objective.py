"""What attacks on one batch raise: losses, and whether an image is misclassified."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from absum_jax import _logits
from absum_jax.prox import accumulation_dtype

# From logits (batch, classes) and labels (batch,) to losses (batch,).
Loss = Callable[[chex.Array, chex.Array], chex.Array]


class Candidate(NamedTuple):
    """Attacked images and the success of the attack."""

    images: chex.Array
    losses: chex.Array  # (batch,), to be maximized
    broken: chex.Array  # (batch,), whether the attack succeeded


class Record(NamedTuple):
    """What attacking each image showed and cost, (batch,)."""

    # The attack failed, and the gradient of the loss was zero or NaN in each step.
    motionless: chex.Array
    probabilities: chex.Array  # all logits were in [0, 1] and their sum was 1
    forward: chex.Array  # number of evaluations of the model
    backward: chex.Array  # number of gradients, each of which evaluates it as well

    @classmethod
    def of_none(cls, y: chex.Array) -> "Record":
        """Returns the record of no step for labels (batch,)."""
        flags, counts = jnp.ones(y.shape, bool), jnp.zeros(y.shape, int)
        return cls(flags, flags, counts, counts)

    def joined(self, other: "Record") -> "Record":
        """Adds the record of further steps."""
        return Record(
            self.motionless & other.motionless,
            self.probabilities & other.probabilities,
            self.forward + other.forward,
            self.backward + other.backward,
        )


# From images to the sum of their losses, the attacked images with losses, and whether
# the model returned probabilities (batch,).
Objective = Callable[[chex.Array], tuple[chex.Array, tuple[Candidate, chex.Array]]]


def is_misclassified(logits: chex.Array, y: chex.Array) -> chex.Array:
    """Returns whether the largest logit is not the label's, or a logit is NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from absum_jax.attacks import _objective
      >>> logits = jnp.array([[2.0, 1.0], [2.0, 3.0], [jnp.nan, 0.0]])
      >>> _objective.is_misclassified(logits, jnp.array([0, 0, 0]))
      Array([False,  True,  True], dtype=bool)
    """
    return (logits.argmax(axis=-1) != y) | jnp.isnan(logits).any(axis=-1)


def are_probabilities(logits: chex.Array) -> chex.Array:
    """Returns whether the logits of each image are in [0, 1] and their sum is 1."""
    rounding = max(1e-3, float(jnp.finfo(logits.dtype).eps))
    logits = logits.astype(accumulation_dtype(logits))
    within = ((logits >= 0) & (logits <= 1)).all(axis=-1)
    return within & (jnp.abs(logits.sum(axis=-1) - 1) < rounding)


def objective(
    logits_fn: _logits.LogitsFn,
    y: chex.Array,
    loss: Loss | None,
    *,
    targeted: bool = False,
    valid: chex.Array | None = None,
) -> Objective:
    """Returns the function of images that an attack raises.

    Args:
      logits_fn: the model.
      y: labels (batch,), or targets.
      loss: of the logits and labels; None is the cross-entropy.
      targeted: whether to lower the loss of the classes `y`.
      valid: (batch,), False for padding, which counts as broken.
    """
    loss_fn = loss or optax.softmax_cross_entropy_with_integer_labels

    def assess(images: chex.Array) -> tuple[chex.Array, tuple[Candidate, chex.Array]]:
        logits = logits_fn(images)
        probabilities = are_probabilities(logits)
        logits = logits.astype(accumulation_dtype(logits))
        losses = loss_fn(logits, y)
        if jnp.shape(losses) != y.shape:
            raise ValueError(
                f"`loss` must return one loss for each of {y.shape[0]} images, "
                f"got shape {jnp.shape(losses)}."
            )
        losses = -losses if targeted else losses
        broken = is_misclassified(logits, y)
        if targeted:
            broken = ~broken
        # A loss may also be NaN because a model is infinitely certain.
        extreme = jnp.where(broken, jnp.inf, -jnp.inf)
        ranked = jnp.where(jnp.isnan(losses), extreme, losses).astype(images.dtype)
        if valid is not None:
            broken |= ~valid
        return losses.sum(), (Candidate(images, ranked, broken), probabilities)

    return assess


def ascent(
    assess: Objective, images: chex.Array
) -> tuple[chex.Array, tuple[Candidate, chex.Array]]:
    """Returns the gradient at images, finite, with what the objective found there."""
    gradient, found = jax.grad(assess, has_aux=True)(images)
    return jnp.nan_to_num(gradient), found
