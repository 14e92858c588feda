"""A network as pure functions of its variables."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import absum_jax
from absum_jax.kernels import leaf_name
from experiments.models.architectures import ARCHITECTURES, without_values

ConvUses = dict[str, tuple[absum_jax.ConvUse, ...]]


class Variables(NamedTuple):
    """What a trained network consists of, nested dicts of arrays."""

    params: Any
    statistics: Any  # running means and variances of batch normalization


def named_kernels(params: Any, names: Iterable[str]) -> dict[str, jax.Array]:
    """The kernels among the parameters by the names that `conv_uses` gives them."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = {leaf_name(path): leaf for path, leaf in leaves}
    return {name: named[name] for name in names}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network as pure functions.

    `init(key)` makes its variables, `train_logits(variables, x, key)` draws dropout
    from the key and returns the moved statistics beside the logits, `logits(variables,
    x)` evaluates, `conv_uses(image_shape)` tells at which sizes the kernels among the
    parameters are used.
    """

    init: Callable[[jax.Array], Variables]
    train_logits: Callable[[Variables, jax.Array, jax.Array], tuple[jax.Array, Any]]
    logits: Callable[[Variables, jax.Array], jax.Array]
    conv_uses: Callable[[tuple[int, ...]], ConvUses]
    is_small: bool  # whether many models share a program


@functools.lru_cache
def build(
    model: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    classes: int = 10,
    dtype: str = "float32",
    batch_norm_groups: int = 1,
) -> Classifier:
    """The classifier of a name; equal arguments give the same functions.

    That the functions are the same objects lets `jax.jit` find what it compiled.

    Args:
      model: one of `ARCHITECTURES`, such as `"small_cnn"`.
      mean: per-channel mean that images are standardised by.
      std: per-channel standard deviation likewise.
      classes: how many classes there are.
      dtype: what convolutions of a network that is not small compute in; parameters
        and statistics are float32.
      batch_norm_groups: how many groups of a batch of training, which must divide it,
        have their own statistics in batch normalization, if the network has any.
    """
    architecture = ARCHITECTURES[model]
    options: dict[str, Any] = {"mean": mean, "std": std, "classes": classes}
    if not architecture.is_small:
        options["dtype"] = jnp.dtype(dtype)

    def abstract(create: Callable[..., nnx.Module], *, training: bool) -> nnx.Module:
        module = without_values(create, **options)
        module.train(batch_groups=batch_norm_groups) if training else module.eval()
        return module

    training = abstract(architecture.create, training=True)
    empty = Variables(
        *(nnx.state(training, kind) for kind in (nnx.Param, nnx.BatchStat))
    )
    definition, evaluated, traced = (
        nnx.graphdef(module)
        for module in (
            training,
            abstract(architecture.create, training=False),
            abstract(architecture.create_native or architecture.create, training=False),
        )
    )

    def pure(module: nnx.Module) -> Variables:
        params, statistics = (
            nnx.to_pure_dict(nnx.state(module, kind))
            for kind in (nnx.Param, nnx.BatchStat)
        )
        return Variables(params, statistics)

    def merged(graphdef: Any, variables: Variables) -> Any:
        states = []
        for state, values in zip(empty, variables, strict=True):
            filled = jax.tree.map(lambda leaf: leaf, state)
            nnx.replace_by_pure_dict(filled, values)
            states.append(filled)
        return nnx.merge(graphdef, *states)

    def init(key: jax.Array) -> Variables:
        return pure(architecture.create(**options, rngs=nnx.Rngs(key)))

    def train_logits(
        variables: Variables, x: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        module = merged(definition, variables)
        logits = module(x, dropout_key=key) if architecture.has_dropout else module(x)
        return logits, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    def logits(variables: Variables, x: jax.Array) -> jax.Array:
        return merged(evaluated, variables)(x)

    def conv_uses(image_shape: tuple[int, ...]) -> ConvUses:
        shapes = jax.eval_shape(init, jax.random.key(0))

        def fn(params: Any, x: jax.Array) -> jax.Array:
            statistics = jax.tree.map(
                lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes.statistics
            )
            return merged(traced, Variables(params, statistics))(x)

        return absum_jax.conv_input_shapes(
            fn,
            shapes.params,
            jax.ShapeDtypeStruct((1, *image_shape), jnp.float32),
        )

    return Classifier(init, train_logits, logits, conv_uses, architecture.is_small)
