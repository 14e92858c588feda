"""Losses for attacks to maximize, one for each row of logits."""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from absum_jax import _validation as validation
from absum_jax.prox import accumulation_dtype


def _checked(
    logits: Any, y: Any, *, least: int, name: str = "y"
) -> tuple[chex.Array, chex.Array]:
    """Checks that there are at least so many classes; returns logits and labels.

    The logits are in at least float32, as 1e-12 is zero in float16.
    """
    logits = validation.check_real("logits", logits)
    if logits.ndim != 2 or not logits.size or logits.shape[1] < least:
        raise ValueError(
            f"`logits` must be (batch, classes) with at least {_WORDS[least]} classes, "
            f"got shape {logits.shape}."
        )
    y = validation.check_labels(y, logits, "rows of `logits`", name=name)
    classes = logits.shape[1]
    having = f"`logits` has {classes} classes"
    validation.check_label_range(y, classes, having, name=name)
    return logits.astype(accumulation_dtype(logits)), y


_WORDS = {2: "two", 3: "three", 4: "four"}


def _own(logits: chex.Array, y: chex.Array) -> chex.Array:
    """Returns the logit of each label."""
    return jnp.take_along_axis(logits, y[:, None], axis=-1)[:, 0]


def _largest_other(logits: chex.Array, y: chex.Array) -> chex.Array:
    """Returns the largest logit of the classes other than the label."""
    classes = jnp.arange(logits.shape[-1])[None]
    is_own = classes == y[:, None].astype(classes.dtype)
    return jnp.where(is_own, -jnp.inf, logits).max(axis=-1)


def margin_loss(logits: chex.Array, y: chex.Array) -> chex.Array:
    r"""Computes by how much the largest other logit exceeds the label's.

    .. math::
      \max_{j \ne y} z_j - z_y

    Unlike the cross-entropy, this loss does not saturate: where a model is very
    confident, the cross-entropy and its gradient are zero in float32, and an attack
    makes no progress.

    Args:
      logits: (batch, classes), at least two classes.
      y: integer labels (batch,).

    Returns:
      Losses (batch,), positive where another class has the largest logit.

    Raises:
      ValueError: if there is only one class, the logits are not real, or the labels are
        not integers, not one for each row, or out of range.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> absum_jax.margin_loss(jnp.array([[2.0, 5.0, 3.0]]), jnp.array([1]))
      Array([-2.], dtype=float32)

    References:
      Carlini and Wagner, `Towards Evaluating the Robustness of Neural Networks
      <https://arxiv.org/abs/1608.04644>`_, 2017
    """
    logits, y = _checked(logits, y, least=2)
    return _largest_other(logits, y) - _own(logits, y)


# Keeps the ratios finite where the largest logits are equal.
_SMALLEST = 1e-12


def dlr_loss(logits: chex.Array, y: chex.Array) -> chex.Array:
    r"""Computes the difference of logits ratio.

    .. math::
      \frac{\max_{j \ne y} z_j - z_y}{z_{\pi_1} - z_{\pi_3} + 10^{-12}}

    with :math:`z_{\pi_k}` the k-th largest logit. Like :func:`margin_loss`, this loss
    does not saturate. In addition, it does not change if all logits are multiplied by
    a positive number.

    Args:
      logits: (batch, classes), at least three classes.
      y: integer labels (batch,).

    Returns:
      Losses (batch,), positive where another class has the largest logit, and in
      [-1, 0] elsewhere.

    Raises:
      ValueError: if there are fewer than three classes, or for the reasons of
        :func:`margin_loss`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> absum_jax.dlr_loss(jnp.array([[2.0, 6.0, 4.0]]), jnp.array([1]))
      Array([-0.5], dtype=float32)

    References:
      Croce and Hein, `Reliable Evaluation of Adversarial Robustness with an Ensemble of
      Diverse Parameter-Free Attacks <https://arxiv.org/abs/2003.01690>`_, 2020, eq. 6
    """
    logits, y = _checked(logits, y, least=3)
    largest = jax.lax.top_k(logits, 3)[0]
    scale = largest[:, 0] - largest[:, 2] + _SMALLEST
    return (_largest_other(logits, y) - _own(logits, y)) / scale


def targeted_dlr_loss(
    logits: chex.Array, y: chex.Array, target: chex.Array
) -> chex.Array:
    r"""Computes the difference of logits ratio between a target and the label.

    .. math::
      \frac{z_t - z_y}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2 + 10^{-12}}

    with :math:`z_{\pi_k}` the k-th largest logit. An attack maximizes it in turn for
    several targets.

    Args:
      logits: (batch, classes), at least four classes.
      y: integer labels (batch,).
      target: integer classes t (batch,).

    Returns:
      Losses (batch,), positive where the target's logit exceeds the label's.

    Raises:
      ValueError: if there are fewer than four classes, or for the reasons of
        :func:`margin_loss`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> logits = jnp.array([[2.0, 6.0, 4.0, 2.0]])
      >>> absum_jax.targeted_dlr_loss(logits, jnp.array([1]), jnp.array([2]))
      Array([-0.5], dtype=float32)

    References:
      Croce and Hein, `Reliable Evaluation of Adversarial Robustness with an Ensemble of
      Diverse Parameter-Free Attacks <https://arxiv.org/abs/2003.01690>`_, 2020, eq. 7
    """
    logits, y = _checked(logits, y, least=4)
    _, target = _checked(logits, target, least=4, name="target")
    largest = jax.lax.top_k(logits, 4)[0]
    scale = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2 + _SMALLEST
    return (_own(logits, target) - _own(logits, y)) / scale
