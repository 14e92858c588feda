"""A network as three pure functions of a parameter tree."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import absum_jax
from experiments.models.small_cnn import SmallCNN

Params = Any
ConvUses = dict[str, tuple[absum_jax.ConvUse, ...]]
# Each model as it is computed, and in a form whose convolutions tracing can see.
_MODELS: dict[str, tuple[Callable[..., nnx.Module], Callable[..., nnx.Module]]] = {
    "small_cnn": (SmallCNN, functools.partial(SmallCNN, form="native"))
}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network as pure functions.

    `init(key)` makes a parameter tree (nested dicts of arrays), `train_logits(params,
    x, key)` draws dropout from the key, `logits(params, x)` evaluates,
    `conv_uses(image_shape)` tells at which sizes the kernels of the tree are used.
    """

    init: Callable[[jax.Array], Params]
    train_logits: Callable[[Params, jax.Array, jax.Array], jax.Array]
    logits: Callable[[Params, jax.Array], jax.Array]
    conv_uses: Callable[[tuple[int, ...]], ConvUses]


@functools.lru_cache
def build(model: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Classifier:
    """The classifier of a name; equal arguments give the same functions.

    That the functions are the same objects lets `jax.jit` find what it compiled.

    Args:
      model: one of the paper's models, such as `"small_cnn"`.
      mean: per-channel mean that images are standardised by.
      std: per-channel standard deviation likewise.
    """
    create, create_native = (
        functools.partial(form, mean=mean, std=std) for form in _MODELS[model]
    )
    abstract = nnx.eval_shape(lambda: create(rngs=nnx.Rngs(0)))
    state = nnx.state(abstract, nnx.Param)
    training, evaluation, native = (
        nnx.graphdef(nnx.view(module, deterministic=deterministic))
        for module, deterministic in (
            (abstract, False),
            (abstract, True),
            (nnx.eval_shape(lambda: create_native(rngs=nnx.Rngs(0))), True),
        )
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

    def conv_uses(image_shape: tuple[int, ...]) -> ConvUses:
        return absum_jax.conv_input_shapes(
            lambda params, x: merged(native, params)(x),
            nnx.to_pure_dict(state),
            jax.ShapeDtypeStruct((1, *image_shape), jnp.float32),
        )

    return Classifier(init, train_logits, logits, conv_uses)
