"""The spectral-norm constraint in a sweep, and other readings of it.

A constraint acts on the parameters of its own models alone, every so many steps. Under
the sweep's `vmap` a count of steps for each model would turn the condition into a
selection and clip at each step: here one count serves the program.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import absum_jax
from absum_jax.kernels import leaf_name
from experiments.config import SNC_NUMPY_AXES, Setting

Params = Any
Uses = Mapping[str, Sequence[absum_jax.ConvUse]]


class Constraint(NamedTuple):
    """When parameters are constrained, and how."""

    apply: Callable[[Params, jax.Array, Uses], Params]
    every: int = 100  # as in the paper
    at_end: bool = False  # also after the last step of training


class Constrained(NamedTuple):
    """The models of a sweep that have a constraint."""

    method: str
    columns: tuple[int, ...]  # among the sweep's settings
    settle_steps: int = 0  # at the end of training, which have no clip


def _clip(
    params: Params, max_norm: jax.Array, uses: Uses, *, projections: int = 1
) -> Params:
    """The plain reading: singular values of each multi-channel convolution."""
    return absum_jax.apply_spectral_norm_constraint(
        params, max_norm, uses, projections=projections
    )


def _clip_dense_too(params: Params, max_norm: jax.Array, uses: Uses) -> Params:
    """Clips dense layers as convolutions of one pixel."""

    def clip(leaf: jax.Array) -> jax.Array:
        if leaf.ndim != 2:
            return leaf
        return absum_jax.clip_conv_spectral_norm(leaf[None], (1,), max_norm)[0]

    return _clip(jax.tree.map(clip, params), max_norm, uses)


def _rescale(params: Params, max_norm: jax.Array, uses: Uses) -> Params:
    return absum_jax.apply_spectral_normalization(params, max_norm, uses)


def _on_kernels(
    params: Params,
    uses: Uses,
    clip: Callable[[jax.Array, absum_jax.ConvUse], jax.Array],
) -> Params:
    """Replaces each convolution kernel by what `clip` makes of it."""

    def replaced(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = leaf_name(path)
        if name not in uses:
            return leaf
        [use] = uses[name]
        return clip(leaf, use)

    return jax.tree_util.tree_map_with_path(replaced, params)


def _clip_filters(params: Params, max_norm: jax.Array, uses: Uses) -> Params:
    """Each filter as an operator of its own, one input and one output channel."""

    def clip(kernel: jax.Array, use: absum_jax.ConvUse) -> jax.Array:
        filters = kernel.reshape(*kernel.shape[:2], 1, -1)
        clipped = absum_jax.clip_conv_spectral_norm(
            filters, use.input_shape, max_norm, strides=use.strides,
            kernel_dilation=use.kernel_dilation, groups=filters.shape[-1],
        )  # fmt: skip
        return clipped.reshape(kernel.shape)

    return _on_kernels(params, uses, clip)


def _check_fits(shape: Sequence[int], size: Sequence[int]) -> None:
    """Refuses what `fft2` would crop, so that no whole kernel comes back."""
    if shape[0] > size[0] or shape[1] > size[1]:
        raise ValueError(
            f"kernel must not be larger than its input, got {tuple(shape)} on "
            f"{tuple(size)}: fft2 would crop it."
        )


def _clip_oihw(params: Params, max_norm: jax.Array, uses: Uses) -> Params:
    """PyTorch's kernels (out, in, height, width) taken for (height, width, in, out).

    On the size of the image, as the channels do not fit into that of the second layer;
    those of large networks do not fit into that of the image either. Strides are not
    taken into account, as in NumPy.
    """
    size = max(use.input_shape for [use] in uses.values())

    def clip(kernel: jax.Array, _: absum_jax.ConvUse) -> jax.Array:
        _check_fits(kernel.shape[:1:-1], size)
        clipped = absum_jax.clip_conv_spectral_norm(
            kernel.transpose(3, 2, 0, 1), size, max_norm
        )
        return clipped.transpose(2, 3, 1, 0)

    return _on_kernels(params, uses, clip)


def _clip_numpy_axes(params: Params, max_norm: jax.Array, uses: Uses) -> Params:
    """Clips what NumPy's default axes select in kernels (out, in, height, width).

    `fft2(kernel, (n, n))` transforms the last two axes, and `svd` decomposes the last
    two: the n x n transform of each filter by itself. The transform is n times an
    isometry of the filter. So this clips the singular values of each filter, a matrix
    (height, width), at `max_norm / n`, and cutting to the support loses nothing.
    """

    def clip(kernel: jax.Array, use: absum_jax.ConvUse) -> jax.Array:
        height, width = kernel.shape[:2]
        _check_fits((height, width), use.input_shape)
        filters = kernel.reshape(height, width, -1)
        count = filters.shape[-1]
        # As convolutions of one pixel from `height` to `width` channels.
        matrices = filters.transpose(0, 2, 1).reshape(1, 1, height, count * width)
        bound = max_norm / math.sqrt(math.prod(use.input_shape))
        clipped = absum_jax.clip_conv_spectral_norm(
            matrices, (1, 1), bound, groups=count
        ).reshape(height, count, width)
        return clipped.transpose(0, 2, 1).reshape(kernel.shape)

    return _on_kernels(params, uses, clip)


CONSTRAINTS: dict[str, Constraint] = {
    "snc": Constraint(_clip),
    # Other readings of the paper, which `snc-readings` compares.
    "snc-last": Constraint(_clip, at_end=True),
    "snc-every-step": Constraint(_clip, every=1),
    "snc-projected": Constraint(functools.partial(_clip, projections=10)),
    "snc-dense": Constraint(_clip_dense_too),
    "snc-rescaled": Constraint(_rescale),
    "snc-filters": Constraint(_clip_filters),
    "snc-oihw": Constraint(_clip_oihw),
    SNC_NUMPY_AXES: Constraint(_clip_numpy_axes),
}

# The steps from one clip of the paper's SNC to the next.
CLIP_EVERY = CONSTRAINTS["snc"].every
# The steps in which the running statistics of batch normalization follow the last clip,
# at least; 0.9^50 = 0.5 % is left of what they were. In the paper, 350 epochs of 391
# steps end 50 steps after a clip. Ours, without incomplete batches, would end with one.
SETTLE_STEPS = 50


def constrained(
    settings: Sequence[Setting], settle_steps: int = 0
) -> tuple[Constrained, ...]:
    """Lists the constraints in a sweep.

    Args:
      settings: of the sweep.
      settle_steps: at the end of training, which have no clip.
    """
    return tuple(
        Constrained(method, columns, settle_steps)
        for method in CONSTRAINTS
        if (columns := tuple(i for i, s in enumerate(settings) if s.method == method))
    )


def is_due(
    constraint: Constraint, step: Any, last_step: Any, settle_steps: int = 0
) -> Any:
    """Whether a constraint acts after a step.

    Args:
      constraint: which.
      step: how many steps are done, an array too.
      last_step: how many steps training has.
      settle_steps: at the end of training, which have no clip.
    """
    due = step % constraint.every == 0
    if settle_steps:
        due &= step <= last_step - settle_steps
    if constraint.at_end:
        due |= step == last_step
    return due


def is_ever_due(method: str, last_step: int, settle_steps: int = 0) -> bool:
    """Whether a constraint acts at all in a training of so many steps."""
    constraint = CONSTRAINTS[method]
    return constraint.at_end or constraint.every <= last_step - settle_steps


def constrain(
    params: Params,
    max_norm: jax.Array,
    uses: Uses,
    groups: Sequence[Constrained],
    step: jax.Array,
    last_step: jax.Array,
) -> Params:
    """Constrains the models that are due.

    Args:
      params: parameters with a leading axis of settings.
      max_norm: (settings,).
      uses: how the network uses its kernels.
      groups: the models that have a constraint.
      step: how many steps are done, one number for all models.
      last_step: how many steps training has.
    """
    for method, columns, settle_steps in groups:
        constraint = CONSTRAINTS[method]
        due = is_due(constraint, step, last_step, settle_steps)
        index = jnp.array(columns)

        def apply(
            params: Params, constraint: Constraint = constraint, index: Any = index
        ) -> Params:
            chosen = jax.tree.map(lambda leaf: leaf[index], params)
            moved = jax.vmap(lambda p, bound: constraint.apply(p, bound, uses))(
                chosen, max_norm[index]
            )
            return jax.tree.map(
                lambda leaf, new: leaf.at[index].set(new), params, moved
            )

        params = jax.lax.cond(due, apply, lambda params: params, params)
    return params
