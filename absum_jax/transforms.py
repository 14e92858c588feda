"""Optax transformations built on proximal operators."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from absum_jax import _validation as validation
from absum_jax.kernels import check_layout, conv_kernels
from absum_jax.prox import (
    absum_shift,
    accumulation_dtype,
    prox_absum,
    resolve_spatial_axes,
)

Prox = Callable[[chex.Array, chex.Numeric], chex.Array]
Mask = Any | Callable[[Any], Any]


class ProximalState(NamedTuple):
    """State of a proximal transformation with a schedule."""

    count: chex.Array  # updates so far, the argument of the schedules


def value_at(
    name: str,
    value: optax.ScalarOrSchedule,
    state: Any,
    check: Callable[[str, Any], chex.Numeric],
) -> chex.Numeric:
    """Returns a scalar, or the value of a schedule at a state's count, checked."""
    return check(name, value(state.count)) if callable(value) else value


def _product(a: chex.Numeric, b: chex.Numeric) -> chex.Numeric:
    """Multiplies Python numbers unconverted, and arrays in at least float32."""
    arrays = [factor for factor in (a, b) if isinstance(factor, jax.Array)]
    if not arrays:
        return a * b
    dtype = accumulation_dtype(*arrays)
    return jnp.asarray(a, dtype) * jnp.asarray(b, dtype)


def selecting(mask: Mask) -> Callable[[Any], Any]:
    """Wraps a mask as a function that checks it.

    The function refuses all but a tree of bools, and a mask that selects nothing.
    """

    def select(tree: Any) -> Any:
        selected = mask(tree) if callable(mask) else mask
        for leaf in jax.tree.leaves(selected):
            dtype, shape = getattr(leaf, "dtype", None), getattr(leaf, "shape", None)
            is_scalar = dtype == np.bool_ and not shape and validation.is_concrete(leaf)
            if not isinstance(leaf, bool) and not is_scalar:
                raise ValueError(f"`mask` must be a tree of bools, got {leaf!r} in it.")
        try:
            jax.tree.map(lambda *_: None, selected, tree)
        except ValueError as error:
            raise ValueError(
                "`mask` must be a tree of the structure of the parameters, or of "
                f"branches of it: {error}"
            ) from None
        if not any(jax.tree.leaves(selected)):
            raise ValueError(
                "`mask` selects no leaf: the default takes convolution kernels, leaves "
                "named kernel, w or weight with 4 or 5 axes (3 within a module named "
                "conv); pass a mask that marks yours."
            )
        return selected

    return select


def is_absent(leaf: Any) -> bool:
    """Returns whether a leaf is None or masked away, for trees that keep its place."""
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def check_updates(params: Any, updates: Any) -> None:
    """Refuses updates that do not fit the parameters; None leaves a leaf unchanged."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_absent)
    moves, other = jax.tree.flatten(updates, is_leaf=is_absent)
    if structure != other:  # type: ignore[operator]
        raise ValueError(
            f"`updates` must have the structure of `params`, {structure}, got {other}."
        )
    for (path, leaf), move in zip(leaves, moves, strict=True):
        if not is_absent(move) and jnp.shape(move) != jnp.shape(leaf):
            raise ValueError(
                f"`updates` must have the shapes of `params`, {jnp.shape(leaf)} at "
                f"{jax.tree_util.keystr(path)}, got {jnp.shape(move)}."
            )


def _check_prox(prox: Prox) -> None:
    if not callable(prox):
        raise ValueError(
            f"`prox` must be a function of an array and a threshold, got {prox!r}."
        )


def _applied(prox: Prox, array: chex.Array, threshold: chex.Numeric) -> chex.Array:
    """Applies an operator; refuses a result that does not fit the array."""
    value = prox(array, threshold)
    shape = getattr(value, "shape", None)
    if shape != array.shape or jnp.issubdtype(value.dtype, jnp.complexfloating):
        seen = type(value).__name__ if shape is None else f"{value.dtype}{shape}"
        raise ValueError(
            f"`prox` must return a real array of the shape of its argument, "
            f"{array.shape}, got {seen}."
        )
    return value


@contextlib.contextmanager
def _located(path: tuple[Any, ...]) -> Iterator[None]:
    """Adds the path of a leaf to errors."""
    try:
        yield
    except ValueError as error:
        where = jax.tree_util.keystr(path)
        raise ValueError(f"{error} (at {where}, which `mask` selects)") from None


def _check_layout(prox: Prox) -> Callable[[tuple[Any, ...], Any], None]:
    """Returns a check of leaves by path, which matters for Absum without axes."""
    axes = None
    while isinstance(prox, functools.partial | jax.stages.Wrapped):
        if isinstance(prox, functools.partial):
            axes = prox.keywords.get("spatial_axes") if axes is None else axes
            prox = prox.func
        else:  # by `jax.jit`
            prox = prox.__wrapped__  # type: ignore[attr-defined]

    def check(path: tuple[Any, ...], leaf: Any) -> None:
        if prox is prox_absum and axes is None:
            check_layout(path, leaf.ndim, "`spatial_axes` must be given")

    return check


def _proximal(
    update_leaf: Callable[[chex.Array, chex.Array, chex.Numeric], chex.Array],
    strength: optax.ScalarOrSchedule,
    learning_rate: optax.ScalarOrSchedule,
    mask: Mask | None,
    check_leaf: Callable[[tuple[Any, ...], chex.Array], None],
) -> optax.GradientTransformation:
    """Returns a transformation that maps (p, u, threshold) to u on selected leaves."""
    check_rate = functools.partial(validation.check_nonnegative, finite=True)
    if not callable(strength):
        strength = check_rate("strength", strength)
    if not callable(learning_rate):
        learning_rate = check_rate("learning_rate", learning_rate)
    scheduled = callable(strength) or callable(learning_rate)

    def check(params: optax.Params) -> None:
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            with _located(path):
                check_leaf(path, leaf)

    def init_fn(params: optax.Params) -> optax.OptState:
        check(params)
        if scheduled:
            return ProximalState(count=jnp.zeros([], jnp.int32))
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, optax.OptState]:
        check(params)
        threshold = _product(
            value_at("learning_rate", learning_rate, state, check_rate),
            value_at("strength", strength, state, check_rate),
        )
        updates = jax.tree.map(
            lambda p, u: (
                u
                if is_absent(u)
                else update_leaf(p, validation.check_real("updates", u), threshold)
            ),
            params,
            updates,
            is_leaf=is_absent,
        )
        if isinstance(state, ProximalState):
            state = ProximalState(count=optax.safe_increment(state.count))
        return updates, state

    inner = optax.GradientTransformation(init_fn, update_fn)
    init = inner.init if mask is None else optax.masked(inner, selecting(mask)).init

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, optax.OptState]:
        validation.check_params(params)
        check_updates(params, updates)
        if mask is None:
            return inner.update(updates, state, params)
        # Apply the mask to parameters: an update may be None where the mask is True.
        return optax.masked(inner, selecting(mask)(params)).update(
            updates, state, params
        )

    return optax.GradientTransformation(init, update)


def proximal(
    prox: Prox,
    strength: optax.ScalarOrSchedule,
    *,
    learning_rate: optax.ScalarOrSchedule,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    r"""Takes a proximal step with any operator, last in an optax chain.

    The previous transformations of the chain propose an update :math:`u` of the
    parameters :math:`p`; this one changes it to

    .. math::
      u' = \operatorname{prox}(p + u,\ \eta_t \lambda_t) - p

    so that :func:`optax.apply_updates` gives the operator's value, up to the rounding
    of one addition; :func:`apply_proximal_updates` gives it to the bit.

    To accumulate gradients, wrap the whole chain,
    `optax.MultiSteps(optax.chain(sgd, proximal(...)), k)`: a proximal step outside of
    `MultiSteps` shrinks at each mini-step. With `optax.inject_hyperparams`, pass a
    callable mask as a static argument (`static_args=("prox", "mask")`). To freeze
    layers, put the whole chain inside `optax.partition`: a proximal step after it moves
    them.

    Args:
      prox: `prox(array, threshold) -> array`, jax-traceable.
      strength: :math:`\lambda`, a non-negative scalar, traced value or schedule.
      learning_rate: :math:`\eta` of the gradient step, a scalar, traced value or
        schedule.
      mask: a tree of bools or a function from a tree to one; None is every leaf.

    Returns:
      The transformation. Its state has a step count only for schedules.

    Raises:
      ValueError: if strength or learning rate is negative or infinite; at init, if the
        mask selects no leaf; at update, if `params` is None.

    Example:
      >>> import absum_jax, jax.numpy as jnp, optax
      >>> nonnegative = lambda x, threshold: jnp.maximum(x, 0.0)
      >>> tx = optax.chain(
      ...     optax.sgd(0.1), absum_jax.proximal(nonnegative, 1.0, learning_rate=0.1)
      ... )
      >>> params = jnp.array([1.0, 0.1])
      >>> updates, _ = tx.update(jnp.array([2.0, 2.0]), tx.init(params), params)
      >>> optax.apply_updates(params, updates)
      Array([0.8, 0. ], dtype=float32)

    References:
      Parikh and Boyd, `Proximal Algorithms
      <https://web.stanford.edu/~boyd/papers/prox_algs.html>`_, 2014, section 4.2
    """
    _check_prox(prox)

    def update_leaf(
        p: chex.Array, u: chex.Array, threshold: chex.Numeric
    ) -> chex.Array:
        return (_applied(prox, p + u, threshold) - p).astype(u.dtype)

    return _proximal(update_leaf, strength, learning_rate, mask, _check_layout(prox))


def absum(
    strength: optax.ScalarOrSchedule,
    *,
    learning_rate: optax.ScalarOrSchedule,
    mask: Mask | None = None,
    spatial_axes: Sequence[int] | None = None,
) -> optax.GradientTransformation:
    r"""Takes the proximal step of Absum regularization, last in an optax chain.

    .. math::
      k \leftarrow \operatorname{prox}_{\eta\lambda g}(k + u), \qquad
      g(K) = \sum_\text{channels} \Big|\sum_\text{space} k\Big|

    where :math:`u` is the update that the chain proposes (SGD with momentum in the
    paper). Strength 0 does not change it, to the bit but for the sign of zero.

    To accumulate gradients, use `optax.MultiSteps(optax.chain(sgd, absum(...)), k)`;
    a chain with `MultiSteps(sgd)` inside shrinks at each mini-step. The threshold
    uses the `learning_rate` passed here: with `optax.inject_hyperparams`, inject a
    factory of the whole chain, so that both use one rate (a callable `mask` is then a
    static argument). To freeze layers, put the whole chain inside `optax.partition`,
    because this step also shrinks kernels whose update is zero.
    `optax.contrib.mechanize` would scale this step, too, so that sums do not reach
    zero: put it around SGD alone. In bfloat16 a threshold of 1e-4 is lost to rounding
    of weights of 0.1: use float32 parameters. Under `jax.jit` a negative strength or
    rate, such as from a schedule, cannot raise an error: parameters become NaN.

    Args:
      strength: :math:`\lambda`, a non-negative scalar, traced value or schedule.
      learning_rate: :math:`\eta` of the gradient step, a scalar, traced value or
        schedule.
      mask: a tree of bools or a function from a tree to one; None is
        :func:`conv_kernels`.
      spatial_axes: as in :func:`prox_absum`; None means all but the last two axes.
        Leaves named `weight` may have either layout, so None is refused for them: pass
        (2, 3) with equinox or PyTorch, (0, 1) if they are HWIO.

    Returns:
      The transformation. Its state has a step count only for schedules.

    Raises:
      ValueError: if strength or learning rate is negative or infinite; at init, if the
        mask selects no leaf, a leaf without spatial axes, or one named `weight` while
        `spatial_axes` is None; at update, if `params` is None.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp, optax
      >>> tx = optax.chain(
      ...     optax.sgd(0.1, momentum=0.9), absum_jax.absum(1e-2, learning_rate=0.1)
      ... )
      >>> params = {"conv": {"kernel": jnp.ones((3, 3, 1, 8))}}
      >>> grads = jax.tree.map(jnp.zeros_like, params)
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["conv"]["kernel"][0, 0, 0, 0])
      0.999

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eq. 16
    """

    def check_leaf(path: tuple[Any, ...], leaf: chex.Array) -> None:
        kernel = validation.check_real("kernel", leaf, abstract=True)
        resolve_spatial_axes(kernel.shape, spatial_axes)
        if spatial_axes is None:
            check_layout(path, leaf.ndim, "`spatial_axes` must be given")

    def update_leaf(
        p: chex.Array, u: chex.Array, threshold: chex.Numeric
    ) -> chex.Array:
        dtype = accumulation_dtype(p, u)
        axes = resolve_spatial_axes(p.shape, spatial_axes)
        shift = absum_shift(p.astype(dtype) + u.astype(dtype), threshold, axes)
        return (u.astype(dtype) - shift).astype(u.dtype)

    mask = conv_kernels if mask is None else mask
    return _proximal(update_leaf, strength, learning_rate, mask, check_leaf)


def l1(
    strength: optax.ScalarOrSchedule,
    *,
    learning_rate: optax.ScalarOrSchedule,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    r"""Takes the proximal step of L1 regularization, last in an optax chain.

    .. math::
      k \leftarrow \operatorname{sign}(k + u) \max(|k + u| - \eta\lambda,\ 0)

    Coefficients below the threshold become exactly zero, unless the updates have fewer
    digits than the parameters; strength 0 does not change the update, to the bit but
    for the sign of zero. The notes of :func:`absum` apply here, too.

    Args:
      strength: :math:`\lambda`, a non-negative scalar, traced value or schedule.
      learning_rate: :math:`\eta` of the gradient step, a scalar, traced value or
        schedule.
      mask: a tree of bools or a function from a tree to one; None is
        :func:`conv_kernels`.

    Returns:
      The transformation. Its state has a step count only for schedules.

    Raises:
      ValueError: if strength or learning rate is negative or infinite; at init, if the
        mask selects no leaf; at update, if `params` is None.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp, optax
      >>> tx = absum_jax.l1(1.0, learning_rate=0.5)
      >>> params = {"conv": {"kernel": jnp.array([2.0, 0.25]).reshape(1, 1, 1, 2)}}
      >>> zeros = jax.tree.map(jnp.zeros_like, params)
      >>> updates, _ = tx.update(zeros, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["conv"]["kernel"].ravel()
      Array([1.5, 0. ], dtype=float32)

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, eq. 10
    """

    def update_leaf(
        p: chex.Array, u: chex.Array, threshold: chex.Numeric
    ) -> chex.Array:
        dtype = accumulation_dtype(p, u)
        limit = validation.nonnegative(threshold, dtype)
        proposed = p.astype(dtype) + u.astype(dtype)
        shrunk = u.astype(dtype) - jnp.clip(proposed, -limit, limit)
        # u - (p + u) differs from -p by rounding, so p would not become exactly zero.
        zeroed = jnp.where(jnp.abs(proposed) <= limit, -p.astype(dtype), shrunk)
        return zeroed.astype(u.dtype)

    def check_leaf(_: tuple[Any, ...], leaf: chex.Array) -> None:
        validation.check_real("kernel", leaf, abstract=True)

    mask = conv_kernels if mask is None else mask
    return _proximal(update_leaf, strength, learning_rate, mask, check_leaf)


def apply_proximal_updates(
    params: optax.Params,
    updates: optax.Updates,
    prox: Prox,
    threshold: chex.Numeric,
    mask: Mask | None = None,
) -> optax.Params:
    """Applies updates and then a proximal operator, exactly to the bit.

    Use it in place of :func:`optax.apply_updates` for chains without a proximal
    transformation. Parameters become `prox(p + u, threshold)` where the mask is True,
    and `p + u` elsewhere.

    Args:
      params: the parameters.
      updates: the updates, of the same structure; None leaves a parameter unchanged.
      prox: `prox(array, threshold) -> array`, such as :func:`prox_absum`.
      threshold: learning rate times strength, a non-negative scalar, possibly traced.
      mask: a tree of bools or a function from a tree to one; None is
        :func:`conv_kernels`.

    Returns:
      The new parameters, with the dtypes of the old ones.

    Raises:
      ValueError: if the threshold is negative, the mask selects no leaf, or `prox` is
        :func:`prox_absum` without `spatial_axes` and a leaf is named `weight`, as in
        :func:`absum`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.ones((2, 1, 1))}}
      >>> updates = {"conv": {"kernel": jnp.full((2, 1, 1), -0.5)}}
      >>> new = absum_jax.apply_proximal_updates(
      ...     params, updates, absum_jax.prox_absum, 0.125
      ... )
      >>> new["conv"]["kernel"].ravel()
      Array([0.375, 0.375], dtype=float32)
    """
    threshold = validation.check_nonnegative("threshold", threshold)
    _check_prox(prox)
    check_updates(params, updates)
    selected = selecting(conv_kernels if mask is None else mask)(params)
    check_leaf = _check_layout(prox)

    # The mask may be a prefix of the tree, as in optax.masked.
    def apply(path: tuple[Any, ...], chosen: bool, subtree: Any, moves: Any) -> Any:
        def apply_to_leaf(below: tuple[Any, ...], leaf: Any, move: Any) -> Any:
            if is_absent(move):
                return leaf
            leaf = optax.apply_updates(leaf, move)
            if not chosen:
                return leaf
            check_leaf((*path, *below), leaf)
            with _located((*path, *below)):
                return jnp.asarray(_applied(prox, leaf, threshold), leaf.dtype)

        return jax.tree_util.tree_map_with_path(
            apply_to_leaf, subtree, moves, is_leaf=is_absent
        )

    return jax.tree_util.tree_map_with_path(apply, selected, params, updates)
