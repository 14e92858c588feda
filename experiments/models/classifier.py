"""A network as three pure functions of a parameter tree."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from experiments.models.small_cnn import SmallCNN

Params = Any
_MODELS: dict[str, Callable[..., nnx.Module]] = {"small_cnn": SmallCNN}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network as pure functions.

    `init(key)` makes a parameter tree (nested dicts of arrays), `train_logits(params,
    x, key)` draws dropout from the key, `logits(params, x)` evaluates.
    """

    init: Callable[[jax.Array], Params]
    train_logits: Callable[[Params, jax.Array, jax.Array], jax.Array]
    logits: Callable[[Params, jax.Array], jax.Array]


@functools.lru_cache
def build(model: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Classifier:
    """The classifier of a name; equal arguments give the same functions.

    That the functions are the same objects lets `jax.jit` find what it compiled.

    Args:
      model: one of the paper's models, such as `"small_cnn"`.
      mean: per-channel mean that images are standardised by.
      std: per-channel standard deviation likewise.
    """
    create = functools.partial(_MODELS[model], mean=mean, std=std)
    abstract = nnx.eval_shape(lambda: create(rngs=nnx.Rngs(0)))
    state = nnx.state(abstract, nnx.Param)
    training, evaluation = (
        nnx.graphdef(nnx.view(abstract, deterministic=deterministic))
        for deterministic in (False, True)
    )

    def init(key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.state(create(rngs=nnx.Rngs(key)), nnx.Param))

    def merged(graphdef: Any, params: Params) -> Any:
        filled = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(filled, params)
        return nnx.merge(graphdef, filled)

    def train_logits(params: Params, x: jax.Array, key: jax.Array) -> jax.Array:
        return merged(training, params)(x, dropout_key=key)

    def logits(params: Params, x: jax.Array) -> jax.Array:
        return merged(evaluation, params)(x)

    return Classifier(init, train_logits, logits)
