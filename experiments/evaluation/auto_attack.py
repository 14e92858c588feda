"""AutoAttack on trained models, a block of images a point."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from absum_jax.evaluation.auto_attack import COMPONENTS, attacked
from absum_jax.evaluation.auto_attack_result import FIRST, QUERIES, STEPS, TITLES
from experiments.evaluation import evaluator
from experiments.evaluation.attack import SEED, Attack, Models, image_keys, register
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.training.runs import Run

# Images of a point, which are attacked together. A CPU may take minutes for as many.
_BLOCK = 200


class AutoAttacked(NamedTuple):
    """What AutoAttack did to the images of a model with each eps."""

    # Numbers of images (eps, 6): not broken; misclassified without an attack; broken by
    # each of the four attacks.
    images: np.ndarray
    forward: np.ndarray  # (eps, 4): evaluations of the model by each attack
    backward: np.ndarray  # (eps, 4): gradients, each of which evaluates it as well
    problems: np.ndarray  # (5,): numbers of images, as in the library's `Problems`

    @property
    def accuracies(self) -> np.ndarray:
        """Returns the robust accuracies (eps,), as fractions."""
        left: np.ndarray = self.images[:, 0] / self.images.sum(axis=1)
        return left


def _counts(
    logits_fn: Any, x: jax.Array, y: jax.Array, keys: jax.Array, eps: jax.Array,
    batch: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Attacks images through one model, and counts them and the passes."""
    result = attacked(
        logits_fn, x, y, key=keys, eps=eps, bounds=(0.0, 1.0), steps=STEPS,
        queries=QUERIES, components=tuple(COMPONENTS), batch_size=batch,
    )  # fmt: skip
    broken_by = np.asarray(result.broken_by)
    codes = np.arange(FIRST + len(TITLES))
    counts = AutoAttacked(
        (broken_by[..., None] == codes).sum(axis=1),
        np.asarray(result.forward).sum(axis=1),
        np.asarray(result.backward).sum(axis=1),
        np.array(result.problems),
    )
    return counts._asdict()


# Not streamable: the random numbers of an image depend on its index among all.
@register("auto-attack")
def _auto_attack(images: EvaluationSet, eps: Sequence[float]) -> Attack:
    total = len(images.split)
    starts = range(0, total, _BLOCK)
    blocks = {
        f"{i}-{min(i + _BLOCK, total)}": (i, min(i + _BLOCK, total)) for i in starts
    }

    def measure(models: Models, name: str) -> dict[str, jax.Array]:
        start, stop = blocks[name]
        keys = image_keys(jnp.arange(start, stop))
        sharding = images.sharding(stop - start)
        x, y = (jax.device_put(a[start:stop], sharding) for a in (models.x, models.y))
        batch, count = (
            images.batch_size(1),
            jax.tree.leaves(models.variables)[0].shape[0],
        )
        # One by one: what is left to attack differs between models.
        counts = []
        for i in range(count):
            variables = jax.tree.map(lambda leaf, i=i: leaf[i], models.variables)
            logits_fn = jax.tree_util.Partial(images.classifier.logits, variables)
            counts.append(_counts(logits_fn, x, y, keys, jnp.asarray(eps), batch))
        return jax.tree.map(lambda *of_models: jnp.stack(of_models), *counts)

    conditions = {"eps": [*eps], "seed": SEED, "steps": STEPS, "queries": QUERIES}
    return Attack("block", list(blocks), measure, conditions)


def evaluate(
    images: EvaluationSet, runs: Sequence[Run], eps: Sequence[float]
) -> list[AutoAttacked]:
    """Attacks models by the standard version of AutoAttack, one after the other.

    An image that is broken with one eps is broken with every larger one. Each block of
    images is written as it ends.
    """
    found = []
    for run in runs:
        [blocks] = evaluator.run("auto-attack", images, [run], eps=eps)
        sums = jax.tree.map(lambda *numbers: sum(numbers), *blocks)
        found.append(AutoAttacked(**{name: np.array(n) for name, n in sums.items()}))
    return found
