"""A network as pure functions of its variables."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import GetAttrKey

import absum_jax
from absum_jax.kernels import leaf_name
from experiments.models.architectures import ARCHITECTURES, without_values

ConvUses = dict[str, tuple[absum_jax.ConvUse, ...]]
_KINDS = nnx.Param, nnx.BatchStat


class Variables(NamedTuple):
    """The arrays of a trained network, in nested dicts."""

    params: Any
    batch_stats: Any  # running means and variances of batch normalization


def _with_stored_names(variables: Variables) -> tuple[Any, None]:
    keys = GetAttrKey("params"), GetAttrKey("statistics")
    return tuple(zip(keys, variables, strict=True)), None


# Checkpoints, digests and records name `batch_stats` `statistics`.
jax.tree_util.register_pytree_with_keys(
    Variables, _with_stored_names, lambda _, children: Variables(*children)
)


def variables_of(network: nnx.Module) -> Variables:
    """Returns the arrays of a network in flax nnx."""
    return Variables(*(nnx.to_pure_dict(nnx.state(network, kind)) for kind in _KINDS))


def named_kernels(params: Any, names: Iterable[str]) -> dict[str, jax.Array]:
    """Returns kernels among the parameters by their names in `conv_uses`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = {leaf_name(path): leaf for path, leaf in leaves}
    return {name: named[name] for name in names}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network as pure functions."""

    init: Callable[[jax.Array], Variables]  # from a key
    # From images and a key of dropout to logits and updated statistics.
    train_logits: Callable[[Variables, jax.Array, jax.Array], tuple[jax.Array, Any]]
    logits: Callable[[Variables, jax.Array], jax.Array]  # in evaluation
    # From the shape of an image to how the kernels among the parameters are used.
    conv_uses: Callable[[tuple[int, ...]], ConvUses]
    is_small: bool  # whether many models share a program


@functools.lru_cache
def build(
    model: str, mean: tuple[float, ...], std: tuple[float, ...], classes: int = 10,
    dtype: str = "float32", batch_norm_groups: int = 1,
) -> Classifier:  # fmt: skip
    """Builds the classifier with a name.

    Equal arguments give the same function objects, which `jax.jit` compiles only once.
    Images are standardized by the mean and standard deviation of each channel.
    Convolutions are of a dtype, unless the network is small; parameters and statistics
    are float32. Batch normalization divides a training batch into groups.
    """
    architecture = ARCHITECTURES[model]
    options: dict[str, Any] = {"mean": mean, "std": std, "classes": classes}
    if not architecture.is_small:
        options["dtype"] = jnp.dtype(dtype)

    def abstract(create: Callable[..., nnx.Module], *, training: bool) -> nnx.Module:
        module = without_values(create, **options)
        module.train(batch_groups=batch_norm_groups) if training else module.eval()
        return module

    create, native = architecture.create, architecture.create_native
    training = abstract(create, training=True)
    empty = [nnx.state(training, kind) for kind in _KINDS]
    definition = nnx.graphdef(training)
    evaluated = nnx.graphdef(abstract(create, training=False))
    traced = nnx.graphdef(abstract(native or create, training=False))

    def merged(graphdef: Any, variables: Variables) -> Any:
        states = []
        for state, values in zip(empty, variables, strict=True):
            filled = jax.tree.map(lambda leaf: leaf, state)
            nnx.replace_by_pure_dict(filled, values)
            states.append(filled)
        return nnx.merge(graphdef, *states)

    def init(key: jax.Array) -> Variables:
        return variables_of(create(**options, rngs=nnx.Rngs(key)))

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
            batch_stats = jax.tree.map(jnp.ones_like, shapes.batch_stats)
            return merged(traced, Variables(params, batch_stats))(x)

        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        return absum_jax.conv_input_shapes(fn, shapes.params, images)

    return Classifier(init, train_logits, logits, conv_uses, architecture.is_small)
