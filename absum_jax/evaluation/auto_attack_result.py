"""The result of AutoAttack for each image, shown as a table."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import chex
import numpy as np

from absum_jax import html
from absum_jax._validation import nan_if_negative
from absum_jax.evaluation import display
from absum_jax.evaluation.counting import shares
from absum_jax.intervals import wilson_interval
from absum_jax.markdown import aligned

# In the order in which they run.
TITLES = ("APGD-CE", "APGD-T", "FAB-T", "Square")
STEPS, QUERIES = 100, 5000
# Values of `broken_by`; those of the attacks follow.
UNBROKEN, MISCLASSIFIED, FIRST = 0, 1, 2

_HEADER = (
    "attack", "eps", "broken", "robust accuracy (%)", "95 % interval", "forward",
    "backward",
)  # fmt: skip
_PROBLEMS = (
    "No gradient at {} images that are not broken: attacks by gradient show nothing.",
    "Probabilities in place of logits for {} images; return their logarithms.",
    "Equal logits of all classes for {} images.",
    "Pixels beyond the bounds in {} images, which were clipped.",
    "NaN logits for {} images, which count as broken.",
)


class Problems(NamedTuple):
    """Numbers of images that show signs of a faulty evaluation."""

    no_gradient: chex.Array  # not broken, and no attack had a gradient
    probabilities: chex.Array  # the model returned numbers in [0, 1] whose sum is 1
    equal_logits: chex.Array  # all logits are the same
    out_of_range: chex.Array  # a pixel is beyond the bounds
    nan_logits: chex.Array  # a logit is NaN, with or without an attack

    def sentences(self) -> list[str]:
        """Returns a sentence for each problem that at least one image has.

        Example:
          >>> from absum_jax.evaluation.auto_attack_result import Problems
          >>> Problems(0, 0, equal_logits=12, out_of_range=0, nan_logits=0).sentences()
          ['Equal logits of all classes for 12 images.']
        """
        return [
            text.format(f"{int(count):,}")
            for text, count in zip(_PROBLEMS, self, strict=True)
            if count
        ]


class AutoAttackResult(NamedTuple):
    """Images attacked by :func:`auto_attack`, and which attack broke each of them.

    A pytree of arrays, so that it passes through jit and vmap. `print` and notebooks
    show it as a table; `pandas.DataFrame` accepts its `rows`. For a scalar eps, arrays
    have no axis (E,).
    """

    eps: chex.Array  # (E,)
    images: chex.Array  # (E, N, height, width, channels), unchanged where not broken
    # (E, N): 0 if no attack broke an image, 1 if it is misclassified without an attack,
    # 2 to 5 if APGD-CE, APGD-T, FAB-T or Square broke it.
    broken_by: chex.Array
    forward: chex.Array  # (E, N, 4): evaluations of the model by each attack
    backward: chex.Array  # (E, N, 4): gradients, each of which evaluates it as well
    problems: Problems
    components: chex.Array  # (4,): which of the attacks ran
    steps: chex.Array
    queries: chex.Array

    @property
    def accuracy(self) -> chex.Array:
        """Returns the robust accuracy for each eps, a fraction.

        It never rises with eps. Of a traced eps that is negative, it is NaN.
        """
        left = (self.broken_by == UNBROKEN).sum(axis=-1)
        robust = shares(left, self.broken_by.shape[-1])
        return nan_if_negative(self.eps, robust)

    @property
    def name(self) -> str:
        """Returns "AutoAttack" for the standard version, or else what ran instead.

        The standard version runs all four attacks, with 100 steps and 5,000 queries.
        Name anything else as this property does when you report its accuracy.

        Raises:
          ValueError: if the result has an axis of models, as after `vmap`.
        """
        self._check_single()
        ran = [
            t for t, yes in zip(TITLES, np.asarray(self.components), strict=True) if yes
        ]
        others = [
            f"{int(count):,} {what}"
            for count, standard, what, used in (
                (self.steps, STEPS, "steps", ran != ["Square"]),
                (self.queries, QUERIES, "queries", "Square" in ran),
            )
            if used and count != standard
        ]
        if len(ran) == len(TITLES) and not others:
            return "AutoAttack"
        text = " + ".join(ran).replace("APGD-CE + APGD-T", "APGD")
        return f"{text}, {', '.join(others)}" if others else text

    def _check_single(self) -> None:
        if np.ndim(self.components) != 1:
            raise ValueError(
                "`components` must be those of one model, got shape "
                f"{np.shape(self.components)}: take one model's part of each array, by "
                "`jax.tree.map(lambda array: array[i], result)`."
            )

    def _is_single(self) -> bool:
        """Returns whether the numbers of one model can be read now."""
        known = self.eps, self.broken_by, self.forward, self.backward, *self.problems
        return display.are_numbers(*known) and np.ndim(self.components) == 1

    def _of_each_eps(self) -> Iterator[tuple[Any, ...]]:
        images = np.shape(self.broken_by)[-1]
        passes = (-1, images, len(TITLES))
        return zip(
            np.ravel(self.eps),
            np.reshape(self.broken_by, (-1, images)),
            np.reshape(self.forward, passes).sum(axis=1),
            np.reshape(self.backward, passes).sum(axis=1),
            strict=True,
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Returns a row for each eps and attack, after one for the clean images.

        `broken` counts the images that the attack was the first to break. `accuracy` is
        the fraction of images that are still classified correctly after it, and `low`
        to `high` is its 95 % interval. `forward` and `backward` are the passes of the
        attack, summed over images.

        Raises:
          ValueError: if the result has an axis of models, as after `vmap`.
        """
        self._check_single()
        rows = []
        for eps, broken_by, forward, backward in self._of_each_eps():
            left = images = len(broken_by)
            ran = [True, *np.asarray(self.components)]
            passes = zip([0, *forward], [0, *backward], strict=True)
            each = zip(("clean", *TITLES), ran, passes, strict=True)
            for code, (attack, yes, used) in enumerate(each, MISCLASSIFIED):
                broken = int((broken_by == code).sum())
                left -= broken
                low, high = wilson_interval(left / images, images)
                row = {"attack": attack, "eps": float(eps), "broken": broken}
                row |= {"accuracy": left / images, "low": low, "high": high}
                row |= {"forward": int(used[0]), "backward": int(used[1])}
                rows += [row] if yes else []
        return rows

    def _cells(self) -> list[tuple[str, ...]]:
        """Returns the cells of the table, in percent."""
        return [
            (
                row["attack"],
                f"{row['eps']:.4g}",
                f"{row['broken']:,}",
                f"{100 * row['accuracy']:.2f}",
                f"{100 * row['low']:.2f} to {100 * row['high']:.2f}",
                f"{row['forward']:,}",
                f"{row['backward']:,}",
            )
            for row in self.rows
        ]

    def _notes(self) -> list[str]:
        """Returns the sentences below the table."""
        images = np.shape(self.broken_by)[-1]
        return [f"{self.name}, {images:,} images.", *self.problems.sentences()]

    def __str__(self) -> str:
        """Formats a row for each eps and attack as a Markdown table, in percent."""
        if not self._is_single():
            return repr(self)
        return "\n".join([*aligned(_HEADER, self._cells()), "", *self._notes()])

    def __repr__(self) -> str:
        """Formats eps and the robust accuracies in one line."""
        known = display.are_numbers(self.broken_by)
        return display.line(
            self, eps=self.eps, accuracy=self.accuracy if known else None
        )

    def _repr_html_(self) -> str | None:
        if not self._is_single():
            return None
        return html.table(_HEADER, self._cells(), self._notes())
