"""Accuracies under many frequencies, with their mean and extremes."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _validation as validation
from absum_jax.evaluation import display


class SingleFourierAccuracy(NamedTuple):
    """Accuracies under the Single Fourier Attack, as fractions.

    A pytree of arrays, so that it passes through jit and vmap. For a tuple `top_k`, all
    but `nan_logits` have a first axis (K,). Notebooks show the summary as a table;
    `pandas.DataFrame` accepts its `rows`.
    """

    accuracy: chex.Array  # (h, w) for all (l, m), or (F,) for a list of them
    mean: chex.Array  # over frequencies, "Avg." in the paper
    min: chex.Array  # over frequencies, "Min." in the paper
    max: chex.Array  # over frequencies
    worst: chex.Array  # (l, m) of the first minimum
    nan_logits: chex.Array | None = None  # fraction of images with one, if known

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Returns a row with `l`, `m`, `accuracy` and `nan_logits` for each frequency.

        In place of `l` and `m`, `frequency` is the position in a list of frequencies.
        For a tuple `top_k`, `axis_0` is the position in it.
        """
        shape, nan_logits = np.shape(self.accuracy), self.nan_logits
        own = len(shape) - np.ndim(self.mean)
        if nan_logits is not None:
            nan_logits = display.for_each_top_k(nan_logits, shape, own)
        return display.rows(
            ["l", "m"] if own == 2 else ["frequency"],
            accuracy=self.accuracy,
            nan_logits=nan_logits,
        )

    def __repr__(self) -> str:
        """Formats the summary in a line, without the accuracy of each frequency."""
        return display.line(
            self,
            shape=np.shape(self.accuracy),
            mean=self.mean,
            min=self.min,
            max=self.max,
            worst=self.worst,
        )

    def _repr_html_(self) -> str | None:
        summary = self.mean, self.min, self.max, self.worst
        if not display.are_numbers(*summary):
            return None
        rows = display.rows((), mean=self.mean, min=self.min, max=self.max)
        worst = np.reshape(self.worst, (-1, 2))
        return display.as_html(
            [row | {"worst": pair} for row, pair in zip(rows, worst, strict=True)]
        )


def summarize_frequencies(
    accuracy: chex.Array, frequencies: chex.Array
) -> SingleFourierAccuracy:
    """Computes the mean, minimum, maximum and worst frequency of accuracies.

    Args:
      accuracy: accuracies under attack, of any shape with F entries.
      frequencies: the (l, m) pairs (F, 2) that they belong to, in the same order.

    Returns:
      The :class:`SingleFourierAccuracy`.

    Raises:
      ValueError: if there is not one frequency for each accuracy.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> accuracy, frequencies = jnp.array([0.9, 0.2]), jnp.array([[0, 0], [1, 3]])
      >>> absum_jax.summarize_frequencies(accuracy, frequencies).worst
      Array([1, 3], dtype=int32)
    """
    accuracy = jnp.asarray(validation.check_numbers("accuracy", accuracy))
    frequencies = validation.as_array("frequencies", frequencies)
    if not accuracy.size or frequencies.shape != (accuracy.size, 2):
        raise ValueError(
            "`frequencies` must be one (l, m) pair for each of the entries of "
            f"`accuracy` of shape {accuracy.shape}, got shape {frequencies.shape}."
        )
    return _summary(accuracy, validation.check_integers("frequencies", frequencies))


@jax.jit
def _summary(accuracy: chex.Array, frequencies: chex.Array) -> SingleFourierAccuracy:
    flat = jnp.ravel(accuracy)
    worst = frequencies[jnp.argmin(flat)]
    low, high = flat.min(), flat.max()
    # Row by row, as a long sum in float32 loses digits.
    mean = accuracy
    while mean.ndim:
        mean = mean.mean(axis=-1)
    # Rounding may shift the mean of equal values.
    mean = jnp.clip(mean, low, high)
    return SingleFourierAccuracy(accuracy, mean, low, high, worst)
