"""The layers of a parameter tree as circular convolutions, constrained in batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _validation as validation
from absum_jax.kernels import check_layout, is_conv_kernel
from absum_jax.prox import accumulation_dtype
from absum_jax.spectral.circulant import CircularConv, circular_conv
from absum_jax.tracing import ConvUse, leaf_name
from absum_jax.transforms import Mask, is_absent, selecting

InputShapes = Mapping[str, Sequence[ConvUse] | Sequence[int]]
# (stacked kernels (layers, ...) of one geometry, geometry, bound) -> kernels
Constrain = Callable[[chex.Array, CircularConv, chex.Array], chex.Array]


_USES_NEEDED = (
    "`input_shapes` must hold `ConvUse`s with `kernel_axes`, as conv_input_shapes "
    "returns them,"
)


class Layer(NamedTuple):
    """A leaf as a circular convolution."""

    conv: CircularConv
    axes: tuple[int, ...]  # the permutation to (spatial..., in, out)


def _layers(
    path: tuple[Any, ...], shape: tuple[int, ...], uses: Any
) -> tuple[Layer, ...]:
    """The geometries of a leaf; a plain shape is one plain use of an HWIO kernel."""
    name = leaf_name(path)
    entries = validation.as_tuple(uses)
    are_sizes = entries is not None and all(map(validation.is_integer, entries))
    if entries is None or not (
        are_sizes or all(isinstance(use, ConvUse) for use in entries)
    ):
        raise ValueError(
            f"`input_shapes` of `{name}` must be spatial sizes or `ConvUse`s, "
            f"got {uses!r}."
        )
    if are_sizes:
        check_layout(path, len(shape), _USES_NEEDED)
        ones = (1,) * (len(shape) - 2)
        axes = tuple(range(len(shape)))
        entries = (ConvUse(entries, (), ones, (), ones, 1, axes),)
    layers = []
    for use in entries:
        if sorted(use.kernel_axes) != list(range(len(shape))):
            raise ValueError(
                f"`input_shapes` of `{name}` must permute its {len(shape)} axes, got "
                f"kernel_axes {use.kernel_axes}."
            )
        try:
            conv = circular_conv(
                [shape[axis] for axis in use.kernel_axes],
                use.input_shape,
                use.strides,
                use.kernel_dilation,
                use.groups,
            )
        except ValueError as error:
            raise ValueError(f"{error} (`input_shapes` of `{name}`)") from None
        layers.append(Layer(conv, tuple(use.kernel_axes)))
    return tuple(layers)


def select_layers(
    params: Any, input_shapes: InputShapes, mask: Mask | None
) -> dict[int, tuple[Layer, ...]]:
    """The layers of each leaf to constrain, by the leaf's place in the flat tree."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_absent)
    if not isinstance(input_shapes, Mapping):
        raise ValueError(
            "`input_shapes` must map the names of leaves to their uses, "
            f"got {input_shapes!r}."
        )
    shapes = dict(input_shapes)
    chosen = [True] * len(leaves)
    if mask is not None:
        tree = selecting(mask)(params)
        chosen = jax.tree.leaves(
            jax.tree.map(
                lambda keep, subtree: jax.tree.map(
                    lambda _: bool(keep), subtree, is_leaf=is_absent
                ),
                tree,
                params,
                is_leaf=is_absent,
            )
        )
    names = [leaf_name(path) for path, _ in leaves]
    # optax.partition may mask a whole module away, with the leaves that it holds.
    masked = [n for n, (_, leaf) in zip(names, leaves, strict=True) if is_absent(leaf)]
    missing = sorted(
        name
        for name in set(shapes) - set(names)
        if not any(not module or name.startswith(f"{module}/") for module in masked)
    )
    if missing:
        raise ValueError(
            f"`input_shapes` names {', '.join(missing)}, which `params` lacks; it has "
            f"{', '.join(names)}."
        )
    selected = {}
    for place, ((path, leaf), name) in enumerate(zip(leaves, names, strict=True)):
        if is_absent(leaf):
            continue
        marked = chosen[place] if mask is not None else is_conv_kernel(path, leaf.ndim)
        if name in shapes and chosen[place]:
            validation.check_real(name, leaf, abstract=True)
            selected[place] = _layers(path, leaf.shape, shapes[name])
        elif marked:
            raise ValueError(
                f"`input_shapes` must hold every kernel to constrain, `{name}` is "
                "missing; conv_input_shapes finds it, or leave it out with a `mask`."
            )
    if not selected:
        raise ValueError(
            "`mask` selects no leaf of `input_shapes`, or what wraps the "
            "transformation, such as `optax.partition`, passes it none of them."
        )
    return selected


def _after(previous: chex.Array | None, array: chex.Array) -> chex.Array:
    """Returns the same array, which is there only once another one is.

    On a CPU two batched decompositions at a time can wait for each other forever: each
    holds a thread of the pool that its parts are queued for (seen with two cores and
    jax 0.10). By default matrices are decomposed one by one, without parts; with
    `method="svd"` in batches.
    """
    if previous is None:
        return array
    # Never true, which XLA does not know.
    never = jnp.ravel(previous)[0] > jnp.inf
    return jnp.where(never, 0, array)


def constrain_leaves(
    leaves: Sequence[chex.Array],
    layers: Sequence[tuple[Layer, ...]],
    constrain: Constrain,
    max_norm: chex.Numeric,
) -> list[chex.Array]:
    """Constrains leaves, those of one geometry as one batch.

    A leaf with several uses is constrained for one after the other.
    """
    leaves = list(leaves)
    previous = None
    for turn in range(max(map(len, layers))):
        groups: dict[tuple[CircularConv, Any], list[tuple[int, Layer]]] = {}
        for place, uses in enumerate(layers):
            if turn < len(uses):
                key = uses[turn].conv, accumulation_dtype(leaves[place])
                groups.setdefault(key, []).append((place, uses[turn]))
        for (conv, dtype), group in groups.items():
            kernels = jnp.stack(
                [
                    leaves[place].transpose(layer.axes).astype(dtype)
                    for place, layer in group
                ]
            )
            kernels = _after(previous, kernels)
            kernels = constrain(kernels, conv, jnp.asarray(max_norm, dtype))
            previous = kernels
            for (place, layer), kernel in zip(group, kernels, strict=True):
                back = kernel.transpose(np.argsort(layer.axes))
                leaves[place] = back.astype(leaves[place].dtype)
    return leaves
