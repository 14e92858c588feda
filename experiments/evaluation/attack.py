"""Defines attacks on trained models, and registers them by name.

A new attack takes one module in this folder. For example, accuracy on inverted images:

    @on_stacked_models
    def _accuracies(logits_fn, x, y, *, batch):
        return absum_jax.accuracy(logits_fn, 1 - x, y, batch_size=batch)

    @register("inverted")
    def _inverted(images):
        return Attack(
            "evaluation", ["inverted"], lambda models, _: models.apply(_accuracies),
            is_streamable=True,
        )

`evaluator.run("inverted", images, runs)` then returns the accuracies [[a], [b], ...].
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax

from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.evaluation.points import Point
from experiments.models import Classifier, Variables
from experiments.models.stacked import over_models


class Models(NamedTuple):
    """Stacked models of one network, and a chunk of the images to evaluate them on."""

    images: EvaluationSet
    variables: Variables
    x: jax.Array  # in [0, 1]
    y: jax.Array

    def apply(self, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        """Calls a function that `on_stacked_models` returned."""
        models = jax.tree.leaves(self.variables)[0].shape[0]
        return function(
            self.images.classifier, self.variables, self.x, self.y, *arrays,
            batch=self.images.batch_size(models), **options,
        )  # fmt: skip


# Of the random numbers; the attack of a published number is drawn once.
SEED = 0


def image_keys(index: jax.Array) -> jax.Array:
    """Returns a key for each image by its index among all."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(SEED), index)


@dataclasses.dataclass(frozen=True)
class Attack:
    """An attack on trained models, or another measurement of them, point by point."""

    unit: str  # what a point is called in progress, in the singular
    points: Sequence[Point]
    # From models and a point to a tree of arrays (models, ...).
    measure: Callable[[Models, Any], Any]
    # What determines the values beside the images and the points, as JSON.
    conditions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Whether `measure` returns fractions of the images, and counts an image the same
    # whatever others are in the chunk.
    is_streamable: bool = False
    # From a model's tree of lists, of all images, to what is reported.
    value: Callable[[Any], Any] = lambda measured: measured


ATTACKS: dict[str, Callable[..., Attack]] = {}

_Factory = TypeVar("_Factory", bound=Callable[..., Attack])


def register(name: str) -> Callable[[_Factory], _Factory]:
    """Adds an attack, as a function of the images and its parameters, to `ATTACKS`."""
    if name in ATTACKS:
        raise ValueError(f"`name` must differ from other attacks', got {name!r}.")

    def add(factory: _Factory) -> _Factory:
        ATTACKS[name] = factory
        return factory

    return add


def on_stacked_models(function: Callable[..., Any]) -> jax.stages.Wrapped:
    """Compiles a function of one model for several that are stacked.

    In place of `logits_fn`, the result takes a classifier and stacked variables before
    the other arguments, of which keyword-only ones are static.
    """
    parameters = inspect.signature(function).parameters.values()
    static = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]

    def stacked(
        classifier: Classifier, variables: Variables, *arrays: Any, **options: Any
    ) -> Any:
        def one(variables: Variables) -> Any:
            logits_fn = jax.tree_util.Partial(classifier.logits, variables)
            return function(logits_fn, *arrays, **options)

        return over_models(one, (0,))(variables)

    stacked.__name__ = function.__name__
    return jax.jit(stacked, static_argnames=("classifier", *static))
