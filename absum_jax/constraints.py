"""Optax transformations that bound the spectral norm of convolutions."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from absum_jax import _validation as validation
from absum_jax._layers import (
    Constrain,
    InputShapes,
    constrain_leaves,
    select_layers,
)
from absum_jax.prox import accumulation_dtype
from absum_jax.spectral import clip, norms
from absum_jax.spectral.circulant import CircularConv
from absum_jax.transforms import Mask, check_updates, is_absent, value_at


class SpectralNormState(NamedTuple):
    """State of a spectral-norm transformation."""

    count: chex.Array  # updates so far


def _apply(
    params: optax.Params,
    max_norm: chex.Numeric,
    input_shapes: InputShapes,
    mask: Mask | None,
    constrain: Constrain,
) -> optax.Params:
    max_norm = validation.check_positive("max_norm", max_norm)
    selected = select_layers(params, input_shapes, mask)
    leaves, structure = jax.tree.flatten(params, is_leaf=is_absent)
    constrained = constrain_leaves(
        [jnp.asarray(leaves[place]) for place in selected],
        list(selected.values()),
        constrain,
        max_norm,
    )
    for place, leaf in zip(selected, constrained, strict=True):
        leaves[place] = leaf
    return jax.tree.unflatten(structure, leaves)


def _transformation(
    max_norm: optax.ScalarOrSchedule,
    input_shapes: InputShapes,
    every: int,
    mask: Mask | None,
    constrain: Constrain,
) -> optax.GradientTransformation:
    if not callable(max_norm):
        max_norm = validation.check_positive("max_norm", max_norm)
    every = validation.check_positive_int("every", every)

    def init_fn(params: optax.Params) -> SpectralNormState:
        # `optax.tree.map_params` asks for the state of a tree without any leaf.
        if jax.tree.leaves(params, is_leaf=is_absent):
            select_layers(params, input_shapes, mask)
        return SpectralNormState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: SpectralNormState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, SpectralNormState]:
        validation.check_params(params)
        check_updates(params, updates)
        selected = select_layers(params, input_shapes, mask)
        flat, structure = jax.tree.flatten(updates, is_leaf=is_absent)
        kernels = jax.tree.leaves(params, is_leaf=is_absent)
        places = [place for place in selected if not is_absent(flat[place])]
        for place in places:
            flat[place] = validation.check_real("updates", flat[place])
        layers = [selected[place] for place in places]
        bound = value_at("max_norm", max_norm, state, validation.check_positive)

        def constrained(moves: list[chex.Array]) -> list[chex.Array]:
            dtypes = [
                accumulation_dtype(kernels[place], move)
                for place, move in zip(places, moves, strict=True)
            ]
            moves = [m.astype(d) for m, d in zip(moves, dtypes, strict=True)]
            proposed = [
                kernels[place].astype(dtype) + move
                for place, move, dtype in zip(places, moves, dtypes, strict=True)
            ]
            nearest = constrain_leaves(proposed, layers, constrain, bound)
            # What is within the bound adds an exact zero.
            return [
                jnp.where(to == at, move, move + (to - at)).astype(flat[place].dtype)
                for place, move, at, to in zip(
                    places, moves, proposed, nearest, strict=True
                )
            ]

        count = optax.safe_increment(state.count)
        if places:
            moves = [flat[place] for place in places]
            moves = jax.lax.cond(
                count % every == 0, constrained, lambda moves: moves, moves
            )
            for place, move in zip(places, moves, strict=True):
                flat[place] = move
        return jax.tree.unflatten(structure, flat), SpectralNormState(count=count)

    return optax.GradientTransformation(init_fn, update_fn)


def _clipping(method: str | None, projections: int, rescale: bool) -> Constrain:
    clip.check_method(method)
    projections = validation.check_positive_int("projections", projections)
    rescale = validation.check_bool("rescale", rescale)

    def constrain(
        kernels: chex.Array, conv: CircularConv, max_norm: chex.Array
    ) -> chex.Array:
        return clip.clip_kernels(
            kernels, max_norm, conv, method, projections, rescale=rescale
        )

    return constrain


def spectral_norm_constraint(
    max_norm: optax.ScalarOrSchedule,
    input_shapes: InputShapes,
    *,
    every: int = 100,
    method: str | None = None,
    projections: int = 1,
    rescale: bool = False,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    r"""The spectral-norm constraint (SNC), last in an optax chain.

    After every so many updates, the singular values of each convolution are clipped:

    .. math::
      k \leftarrow \operatorname{cut}(U \min(\Sigma, c) V^H)
      \quad\text{with}\quad A(k + u) = U \Sigma V^H

    as :func:`clip_conv_spectral_norm` does; in between it costs nothing. Layers of one
    geometry are clipped as one batch. A layer within the bound keeps its update, to the
    bit.

    Under `jax.vmap` over models the count of updates must not be batched
    (`in_axes=None, out_axes=None` for the state), or each model is clipped at each
    update and the result mostly thrown away: `lax.cond` becomes a selection there.
    :func:`apply_spectral_norm_constraint` serves loops that count for themselves.

    To freeze layers, put the whole chain inside `optax.partition`: this transformation
    moves kernels whose update is zero, too. Inside, `input_shapes` may name the leaves
    that are masked away, which are skipped.

    `optax.inject_hyperparams` takes everything but `max_norm` for constants if told so:
    `static_args=("input_shapes", "every", "method", "projections", "rescale", "mask")`.

    Args:
      max_norm: :math:`c > 0`, :math:`\sigma` in the paper: a scalar, traced value or
        schedule of the number of updates before.
      input_shapes: the uses of each kernel, from :func:`conv_input_shapes`; or, for
        HWIO kernels with stride 1, the spatial sizes of the input, by the leaf's name:
        `{"conv1/kernel": (28, 28)}`.
      every: updates from one clip to the next; the first is at update `every`.
      method: as in :func:`clip_conv_spectral_norm`.
      projections: likewise; how often to clip and cut.
      rescale: likewise; whether to meet the bound by scaling what is left.
      mask: a tree of bool or a function from a tree to one; None is every leaf of
        `input_shapes`, which must hold all that :func:`conv_kernels` marks.

    Returns:
      The transformation. Its state is the count of updates.

    Raises:
      ValueError: if the bound is not positive, `every` or `projections` no positive
        integer, or the method unknown; at init and update, if `input_shapes` and
        `params` do not fit; at update, if `params` is None.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp, optax
      >>> params = {"conv": {"kernel": jnp.full((3, 3, 1, 1), 1.0)}}
      >>> tx = optax.chain(
      ...     optax.sgd(0.1, momentum=0.9),
      ...     absum_jax.spectral_norm_constraint(
      ...         1.0, {"conv/kernel": (8, 8)}, every=1, rescale=True
      ...     ),
      ... )
      >>> grads = jax.tree.map(jnp.zeros_like, params)
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> params = optax.apply_updates(params, updates)
      >>> print(f"{absum_jax.conv_spectral_norm(params['conv']['kernel'], (8, 8)):.4f}")
      1.0000

    References:
      Sedghi et al., `The Singular Values of Convolutional Layers
      <https://arxiv.org/abs/1805.10408>`_, 2019; Kanai et al., `Absum
      <https://arxiv.org/abs/1909.08830>`_, 2020, "Spectral Norm Constraint"
    """
    constrain = _clipping(method, projections, rescale)
    return _transformation(max_norm, input_shapes, every, mask, constrain)


def apply_spectral_norm_constraint(
    params: optax.Params,
    max_norm: chex.Numeric,
    input_shapes: InputShapes,
    *,
    method: str | None = None,
    projections: int = 1,
    rescale: bool = False,
    mask: Mask | None = None,
) -> optax.Params:
    """Clips the singular values of all convolutions of a parameter tree, once.

    The counterpart of :func:`spectral_norm_constraint` for a last clip after training,
    or for loops that decide by themselves when to clip.

    Args:
      params: the parameters.
      max_norm: a positive scalar, possibly traced.
      input_shapes: as in :func:`spectral_norm_constraint`, as are the others.
      method: see there.
      projections: see there.
      rescale: see there.
      mask: see there.

    Returns:
      The parameters, of the same structure, shapes and dtypes.

    Raises:
      ValueError: as :func:`spectral_norm_constraint` and its init.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.full((1, 1, 1, 1), 3.0)}}
      >>> clipped = absum_jax.apply_spectral_norm_constraint(
      ...     params, 2.0, {"conv/kernel": (8, 8)}
      ... )
      >>> print(clipped["conv"]["kernel"].ravel())
      [2.]
    """
    constrain = _clipping(method, projections, rescale)
    return _apply(params, max_norm, input_shapes, mask, constrain)


def spectral_normalization(
    max_norm: optax.ScalarOrSchedule,
    input_shapes: InputShapes,
    *,
    every: int = 1,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    r"""Spectral normalization to a bound by rescaling, last in an optax chain.

    .. math:: k \leftarrow k \,/ \max(1, \|A(k + u)\|_2 / c)

    A kernel is scaled as a whole, where :func:`spectral_norm_constraint` lowers the
    singular values above the bound alone; the bound then holds to rounding. The notes
    there hold here too.

    Args:
      max_norm: :math:`c > 0`, a scalar, traced value or schedule.
      input_shapes: as in :func:`spectral_norm_constraint`.
      every: updates from one scaling to the next.
      mask: as in :func:`spectral_norm_constraint`.

    Returns:
      The transformation. Its state is the count of updates.

    Raises:
      ValueError: as :func:`spectral_norm_constraint`.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp, optax
      >>> tx = absum_jax.spectral_normalization(2.0, {"conv/kernel": (8, 8)})
      >>> params = {"conv": {"kernel": jnp.full((1, 1, 1, 1), 4.0)}}
      >>> zeros = jax.tree.map(jnp.zeros_like, params)
      >>> updates, _ = tx.update(zeros, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["conv"]["kernel"].ravel())
      [2.]

    References:
      Gouk et al., `Regularisation of Neural Networks by Enforcing Lipschitz Continuity
      <https://arxiv.org/abs/1804.04368>`_, 2018, eq. 9
    """
    return _transformation(max_norm, input_shapes, every, mask, norms.rescale_kernels)


def apply_spectral_normalization(
    params: optax.Params,
    max_norm: chex.Numeric,
    input_shapes: InputShapes,
    *,
    mask: Mask | None = None,
) -> optax.Params:
    """Rescales all convolutions of a parameter tree to a bound, once.

    The counterpart of :func:`spectral_normalization` for loops that decide by
    themselves when to rescale.

    Args:
      params: the parameters.
      max_norm: a positive scalar, possibly traced.
      input_shapes: as in :func:`spectral_norm_constraint`.
      mask: as in :func:`spectral_norm_constraint`.

    Returns:
      The parameters, of the same structure, shapes and dtypes.

    Raises:
      ValueError: as :func:`spectral_norm_constraint` and its init.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.full((1, 1, 1, 1), 4.0)}}
      >>> scaled = absum_jax.apply_spectral_normalization(
      ...     params, 2.0, {"conv/kernel": (8, 8)}
      ... )
      >>> print(scaled["conv"]["kernel"].ravel())
      [2.]
    """
    return _apply(params, max_norm, input_shapes, mask, norms.rescale_kernels)
