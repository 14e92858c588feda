"""Optax transformations that bound the spectral norm of convolutions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from absum_jax import _validation as validation
from absum_jax.kernels import check_layout, is_conv_kernel, leaf_name
from absum_jax.prox import accumulation_dtype
from absum_jax.spectral import clip, decomposition
from absum_jax.spectral.circulant import CircularConv, circular_conv
from absum_jax.tracing import ConvUse
from absum_jax.transforms import Mask, check_updates, is_absent, selecting, value_at

InputShapes = Mapping[str, Sequence[ConvUse] | Sequence[int]]
# From stacked kernels (layers, ...), their geometry and a bound to such kernels.
Constrain = Callable[[chex.Array, CircularConv, chex.Array], chex.Array]

_USES_NEEDED = (
    "`input_shapes` must hold `ConvUse`s with `kernel_axes`, as conv_input_shapes "
    "returns them,"
)


class SpectralNormState(NamedTuple):
    """State of a spectral-norm transformation."""

    count: chex.Array  # updates so far


class _Layer(NamedTuple):
    """The geometry of one use of a leaf as a circular convolution."""

    conv: CircularConv
    axes: tuple[int, ...]  # the permutation to (spatial..., in, out)


def _layers(
    path: tuple[Any, ...], shape: tuple[int, ...], uses: Any
) -> tuple[_Layer, ...]:
    """Returns the geometry of each use of a leaf.

    Spatial sizes in place of uses stand for one use of an HWIO kernel with stride 1.
    """
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
        layers.append(_Layer(conv, tuple(use.kernel_axes)))
    return tuple(layers)


def _select_layers(
    params: Any, input_shapes: InputShapes, mask: Mask | None
) -> dict[int, tuple[_Layer, ...]]:
    """Returns the layers of each leaf to constrain, by its place in the flat tree."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_absent)
    if not isinstance(input_shapes, Mapping):
        raise ValueError(
            "`input_shapes` must map the names of leaves to their uses, "
            f"got {input_shapes!r}."
        )
    shapes = dict(input_shapes)
    chosen = [True] * len(leaves)
    if mask is not None:
        # The mask may be a prefix of the tree, as in optax.masked.
        repeated = jax.tree.map(
            lambda keep, subtree: (
                [bool(keep)] * len(jax.tree.leaves(subtree, is_leaf=is_absent))
            ),
            selecting(mask)(params),
            params,
            is_leaf=is_absent,
        )
        chosen = jax.tree.leaves(repeated)
    names = [leaf_name(path) for path, _ in leaves]
    # optax.partition may mask a whole module away, including its leaves.
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
            "`mask` selects no leaf of `input_shapes`, or a wrapper of the "
            "transformation, such as `optax.partition`, passes it none of them."
        )
    return selected


def _after(previous: chex.Array | None, array: chex.Array) -> chex.Array:
    """Returns an array unchanged, but makes XLA compute it after a previous one.

    On a CPU, two batched decompositions at the same time can deadlock: each holds a
    thread of the pool in which its parts are queued (seen with two cores and jax 0.10).
    The default method decomposes matrices one by one, without parts, but `"svd"`
    decomposes them in batches.
    """
    if previous is None:
        return array
    # XLA does not know that this is never true.
    never = jnp.max(previous) > jnp.inf
    return jnp.where(never, 0, array)


def _constrain_leaves(
    leaves: Sequence[chex.Array],
    layers: Sequence[tuple[_Layer, ...]],
    constrain: Constrain,
    max_norm: chex.Numeric,
) -> list[chex.Array]:
    """Constrains leaves, in one batch for each geometry and explicit sharding.

    A leaf with several uses is constrained for one use after the other.
    """
    leaves = list(leaves)
    previous = None
    for turn in range(max(map(len, layers))):
        groups: dict[Any, list[tuple[int, _Layer, chex.Array]]] = {}
        for place, uses in enumerate(layers):
            if turn < len(uses):
                layer, leaf = uses[turn], leaves[place]
                kernel = leaf.transpose(layer.axes).astype(accumulation_dtype(leaf))
                key = layer.conv, kernel.dtype, jax.typeof(kernel).sharding
                groups.setdefault(key, []).append((place, layer, kernel))
        for (conv, dtype, _), group in groups.items():
            kernels = jnp.stack([kernel for *_, kernel in group])
            kernels = _after(previous, kernels)
            kernels = constrain(kernels, conv, jnp.asarray(max_norm, dtype))
            previous = kernels
            for (place, layer, _), kernel in zip(group, kernels, strict=True):
                back = kernel.transpose(np.argsort(layer.axes))
                leaves[place] = back.astype(leaves[place].dtype)
    return leaves


def _apply(
    params: optax.Params,
    max_norm: chex.Numeric,
    input_shapes: InputShapes,
    mask: Mask | None,
    constrain: Constrain,
) -> optax.Params:
    max_norm = validation.check_positive("max_norm", max_norm)
    selected = _select_layers(params, input_shapes, mask)
    leaves, structure = jax.tree.flatten(params, is_leaf=is_absent)
    constrained = _constrain_leaves(
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
        # `optax.tree.map_params` requests the state of a tree without any leaf.
        if jax.tree.leaves(params, is_leaf=is_absent):
            _select_layers(params, input_shapes, mask)
        return SpectralNormState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: SpectralNormState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, SpectralNormState]:
        validation.check_params(params)
        check_updates(params, updates)
        selected = _select_layers(params, input_shapes, mask)
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
            nearest = _constrain_leaves(proposed, layers, constrain, bound)
            # A layer within the bound keeps its update to the bit.
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
    decomposition.check_method(method)
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
    r"""Applies the spectral-norm constraint (SNC), last in an optax chain.

    After every `every` updates, the singular values of each convolution are clipped:

    .. math::
      k \leftarrow \operatorname{cut}(U \min(\Sigma, c) V^H)
      \quad\text{with}\quad A(k + u) = U \Sigma V^H

    as by :func:`clip_conv_spectral_norm`. Between clips it costs nothing. Layers of one
    geometry are clipped as one batch. A layer within the bound keeps its update, to the
    bit.

    Under `jax.vmap` over models the count of updates must not be batched
    (`in_axes=None, out_axes=None` for the state). Otherwise `lax.cond` becomes a
    selection: each model is clipped at each update, and most results are discarded.
    Loops with a counter of their own can call :func:`apply_spectral_norm_constraint`.

    To freeze layers, put the whole chain inside `optax.partition`, because this
    transformation also moves kernels whose update is zero. There, `input_shapes` may
    name leaves that are masked away, which are skipped.

    With `optax.inject_hyperparams`, pass all arguments but `max_norm` as constants:
    `static_args=("input_shapes", "every", "method", "projections", "rescale", "mask")`.

    Args:
      max_norm: :math:`c > 0`, :math:`\sigma` in the paper: a scalar, traced value or
        schedule of the number of previous updates.
      input_shapes: the uses of each kernel, from :func:`conv_input_shapes`; or, for
        HWIO kernels with stride 1, the spatial sizes of the input, by the leaf's name:
        `{"conv1/kernel": (28, 28)}`.
      every: updates from one clip to the next; the first clip is at update `every`.
      method: as in :func:`clip_conv_spectral_norm`.
      projections: how often to clip and cut, as there.
      rescale: whether to scale the result down to the bound, as there.
      mask: a tree of bools or a function from a tree to one; None is every leaf of
        `input_shapes`, which must then contain all leaves that :func:`conv_kernels`
        marks.

    Returns:
      The transformation. Its state is the count of updates.

    Raises:
      ValueError: if the bound is not positive, `every` or `projections` is not a
        positive integer, or the method is unknown; at init and update, if
        `input_shapes` does not fit `params`; at update, if `params` is None.

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

    Use it for a final clip after training, or in loops that decide themselves when to
    clip; :func:`spectral_norm_constraint` is its counterpart in an optax chain.

    Args:
      params: the parameters.
      max_norm: a positive scalar, possibly traced.
      input_shapes: as in :func:`spectral_norm_constraint`.
      method: as there.
      projections: as there.
      rescale: as there.
      mask: as there.

    Returns:
      The parameters, of the same structure, shapes and dtypes.

    Raises:
      ValueError: for the reasons of :func:`spectral_norm_constraint` and its init.

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
    r"""Projects kernels onto a norm bound by rescaling, last in an optax chain.

    .. math:: k \leftarrow (k + u) \,/ \max(1, \|A(k + u)\|_2 / c)

    This is the projection of Gouk et al. (2021) after an update. It is not the
    reparameterization of Miyato et al. (2018), which divides the weights by a
    power-iteration estimate of the norm in each forward pass: here the parameters
    themselves satisfy the bound, and a kernel within it keeps its update, to the bit.

    A kernel is scaled as a whole, so that it meets the bound up to rounding, whereas
    :func:`spectral_norm_constraint` lowers only the singular values above the bound.
    Its notes on `jax.vmap`, freezing and `optax.inject_hyperparams` apply here, too.

    Args:
      max_norm: :math:`c > 0`, a scalar, traced value or schedule.
      input_shapes: as in :func:`spectral_norm_constraint`.
      every: updates from one scaling to the next.
      mask: as in :func:`spectral_norm_constraint`.

    Returns:
      The transformation. Its state is the count of updates.

    Raises:
      ValueError: for the reasons of :func:`spectral_norm_constraint`.

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
      <https://arxiv.org/abs/1804.04368>`_, 2021, eq. 9; in contrast to Miyato et al.,
      `Spectral Normalization for Generative Adversarial Networks
      <https://arxiv.org/abs/1802.05957>`_, 2018
    """
    return _transformation(max_norm, input_shapes, every, mask, clip.rescale_kernels)


def apply_spectral_normalization(
    params: optax.Params,
    max_norm: chex.Numeric,
    input_shapes: InputShapes,
    *,
    mask: Mask | None = None,
) -> optax.Params:
    """Projects all convolutions of a parameter tree onto a bound by rescaling, once.

    Use it in loops that decide themselves when to rescale;
    :func:`spectral_normalization` is its counterpart in an optax chain.

    Args:
      params: the parameters.
      max_norm: a positive scalar, possibly traced.
      input_shapes: as in :func:`spectral_norm_constraint`.
      mask: as in :func:`spectral_norm_constraint`.

    Returns:
      The parameters, of the same structure, shapes and dtypes.

    Raises:
      ValueError: for the reasons of :func:`spectral_norm_constraint` and its init.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.full((1, 1, 1, 1), 4.0)}}
      >>> scaled = absum_jax.apply_spectral_normalization(
      ...     params, 2.0, {"conv/kernel": (8, 8)}
      ... )
      >>> print(scaled["conv"]["kernel"].ravel())
      [2.]
    """
    return _apply(params, max_norm, input_shapes, mask, clip.rescale_kernels)
