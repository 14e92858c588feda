"""AutoAttack: four attacks in turn, each on the images that are not yet broken."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax._sharding import with_automatic_axes
from absum_jax.attacks import _fab, auto_pgd, square
from absum_jax.attacks._descent import Aim, Budget, image_keys
from absum_jax.attacks._objective import are_probabilities, is_misclassified
from absum_jax.attacks.gradient import Method, check_attacked
from absum_jax.evaluation import counting
from absum_jax.evaluation.auto_attack_result import (
    FIRST,
    MISCLASSIFIED,
    QUERIES,
    STEPS,
    TITLES,
    UNBROKEN,
    AutoAttackResult,
    Problems,
)
from absum_jax.prox import accumulation_dtype


class _Component(NamedTuple):
    """One of the attacks; a constant of a compiled program."""

    column: int  # in results
    method: Method
    targeted: bool = False  # whether it attacks toward one class after another
    queries: bool = False  # whether its steps are queries, without a gradient


COMPONENTS = {
    "apgd-ce": _Component(0, auto_pgd.ascend),
    "apgd-t": _Component(1, auto_pgd.ascend, targeted=True),
    "fab-t": _Component(2, _fab.approach, targeted=True),
    "square": _Component(3, square.search, queries=True),
}
_AIM = Aim(loss=None, targeted=False, restarts=1, early_stop=True)
# The classes that follow the first in the ranking of the clean logits, at most.
_TARGETS = 9


class _Images(NamedTuple):
    """What the attacks need of each image, (N, ...)."""

    x: chex.Array  # clipped to the bounds
    y: chex.Array
    keys: chex.PRNGKey
    ranking: chex.Array  # (N, classes), from the largest clean logit to the smallest


class _State(NamedTuple):
    """What has happened to each image so far, (N, ...)."""

    images: chex.Array
    broken_by: chex.Array
    forward: chex.Array  # (N, 4)
    backward: chex.Array  # (N, 4)
    no_gradient: chex.Array  # no attack had one
    nan_logits: chex.Array  # of the attacked image

    def of_next_eps(self) -> "_State":
        """Returns the state before larger changes: broken images stay broken."""
        none = jnp.zeros_like(self.forward)
        failed = jnp.ones_like(self.no_gradient)
        return self._replace(forward=none, backward=none, no_gradient=failed)


class _Limits(NamedTuple):
    """The limits of the attacks: scalars, and a pair of bounds, that may be traced."""

    eps: chex.Array
    steps: chex.Array
    queries: chex.Array
    bounds: tuple[chex.Numeric, chex.Numeric]


@_logits.compiled_with(static_argnames=("batch_size",), like=0)
def _clean(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    bounds: tuple[chex.Numeric, chex.Numeric],
    *,
    batch_size: int,
) -> tuple[chex.Array, tuple[chex.Array, chex.Array, Problems]]:
    """Returns clipped images; which are misclassified, the rankings, and problems."""
    low, high = (jnp.asarray(bound, accumulation_dtype(x)) for bound in bounds)
    x = x.astype(low.dtype)
    images = jnp.clip(x, low, high)

    def of_batch(_: None, batch: counting.Batches) -> tuple[None, tuple[Any, ...]]:
        logits = logits_fn(batch.x)
        found = (
            is_misclassified(logits, batch.y),
            jnp.argsort(-logits, axis=-1),
            are_probabilities(logits),
            (logits == logits[:, :1]).all(axis=-1),
            jnp.isnan(logits).any(axis=-1),
        )
        return None, found

    batches = counting.in_batches(images, y, batch_size)
    each = jax.lax.scan(of_batch, None, batches)[1]
    wrong, ranking, probabilities, equal, undefined = (
        counting.joined(leaf, y.shape[0]) for leaf in each
    )
    problems = Problems(
        no_gradient=jnp.zeros(y.shape, bool),
        probabilities=probabilities,
        equal_logits=equal,
        out_of_range=(jnp.abs(images - x) > 1e-6).any(axis=(1, 2, 3)),
        nan_logits=undefined,
    )
    return images, (wrong, ranking, problems)


def _attack(
    logits_fn: _logits.LogitsFn,
    images: _Images,
    state: _State,
    valid: chex.Array,
    rank: chex.Numeric,
    limits: _Limits,
    *,
    component: _Component,
) -> _State:
    """Attacks one batch by a component; images that are not valid stay as they are.

    A targeted component attacks toward the class of a rank. Success is judged by a
    separate pass over the attacked images.
    """
    column, eps = component.column, limits.eps
    steps = limits.queries if component.queries else limits.steps
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(
        images.keys, 100 * column + rank
    )
    targets = {"target": images.ranking[:, rank]} if component.targeted else {}
    attacked, record = component.method(
        logits_fn, images.x, images.y, keys, Budget(eps, eps, steps, eps),
        limits.bounds, _AIM, valid, **targets,
    )  # fmt: skip
    logits = logits_fn(attacked)
    # A negative eps that is traced makes images of NaN, which break nothing.
    judged = valid & ~jnp.isnan(attacked).any(axis=(1, 2, 3))
    broken = is_misclassified(logits, images.y) & judged
    had_gradient = valid & ~record.motionless & (not component.queries)
    return _State(
        jnp.where(broken[:, None, None, None], attacked, state.images),
        jnp.where(broken, FIRST + column, state.broken_by),
        state.forward.at[:, column].add(record.forward),
        state.backward.at[:, column].add(record.backward),
        state.no_gradient & ~had_gradient,
        state.nan_logits | (jnp.isnan(logits).any(axis=-1) & judged),
    )


def _last_rank(component: _Component, classes: int) -> int:
    """Returns the last rank of targets; without targets there is only rank 1."""
    return min(_TARGETS, classes - 1) if component.targeted else 1


def _masked(
    logits_fn: _logits.LogitsFn, images: _Images, state: _State, eps: chex.Array,
    limits: _Limits, *, components: Sequence[_Component],
) -> _State:  # fmt: skip
    """Attacks all images in one batch, for each of the ascending eps; traceable."""

    def of_eps(state: _State, eps: chex.Array) -> tuple[_State, _State]:
        state = state.of_next_eps()
        for component in components:

            def toward(
                rank: chex.Array, state: _State, component: _Component = component
            ) -> _State:
                valid = state.broken_by == UNBROKEN
                own = limits._replace(eps=eps)
                return _attack(
                    logits_fn, images, state, valid, rank, own, component=component
                )

            last = _last_rank(component, images.ranking.shape[1])
            state = jax.lax.fori_loop(1, last + 1, toward, state)
        return state, state

    return jax.lax.scan(of_eps, state, eps)[1]


@_logits.compiled_with(static_argnames=("components",), like=0)
def _compiled_masked(
    logits_fn: _logits.LogitsFn, x: chex.Array, others: tuple[Any, ...], *args: Any,
    components: tuple[_Component, ...],
) -> tuple[chex.Array, _State]:  # fmt: skip
    """Compiles :func:`_masked`; the images come first, for their layout."""
    images = _Images(x, *others)
    states = _masked(logits_fn, images, *args, components=components)
    return jnp.moveaxis(states.images, 0, 1), states._replace(images=())


@_logits.compiled_with(static_argnames=("component",), like=0)
def _compiled_attack(
    logits_fn: _logits.LogitsFn, x: chex.Array, others: tuple[Any, ...], *args: Any,
    component: _Component,
) -> tuple[chex.Array, _State]:  # fmt: skip
    """Compiles :func:`_attack`; the images come first, for their layout."""
    images = _Images(x, *others)
    state = _attack(logits_fn, images, *args, component=component)
    return state.images, state._replace(images=())


def pieces(images: int, sizes: Sequence[int]) -> Iterator[int]:
    """Yields the sizes of batches that together hold a number of images.

    Args:
      images: the number of images.
      sizes: possible sizes, from the largest to the smallest.

    Yields:
      The size of each batch. Only the last may exceed the number of images left, and
      unless it is the smallest size, it is less than twice that number.

    Example:
      >>> from absum_jax.evaluation import auto_attack
      >>> list(auto_attack.pieces(270, [256, 64, 16])), list(
      ...     auto_attack.pieces(40, [256, 64, 16]))
      ([256, 16], [64])
    """
    while images > 0:
        size = next((s for s in sizes if s < 2 * images), sizes[-1])
        yield size
        images -= size


@jax.jit
def _taken(tree: Any, index: chex.Array) -> Any:
    def taken(leaves: Any, index: chex.Array) -> Any:
        return jax.tree.map(lambda a: jnp.take(a, index, 0, mode="clip"), leaves)

    return with_automatic_axes(taken, tree, index)


@jax.jit
def _put(tree: Any, index: chex.Array, part: Any) -> Any:
    def put(tree: Any, index: chex.Array, part: Any) -> Any:
        return jax.tree.map(lambda a, b: a.at[index].set(b, mode="drop"), tree, part)

    return with_automatic_axes(put, tree, index, part)


def _compacted(
    logits_fn: _logits.LogitsFn, images: _Images, state: _State, eps: chex.Array,
    limits: _Limits, components: Sequence[_Component], batch_size: int,
) -> _State:  # fmt: skip
    """Attacks concrete images in batches of those that are not yet broken."""
    attack = _compiled_attack.bind(logits_fn)  # type: ignore[attr-defined]
    count, devices = images.y.shape[0], images.x.sharding.num_devices
    largest = min(batch_size, count)
    sizes = sorted(
        {-(-largest // part // devices) * devices for part in (1, 4, 16)}, reverse=True
    )
    states = []
    for each in eps:
        state = state.of_next_eps()
        own = limits._replace(eps=each)
        for component in components:
            for rank in range(1, 1 + _last_rank(component, images.ranking.shape[1])):
                left = np.flatnonzero(np.asarray(state.broken_by) == UNBROKEN)
                for size in pieces(len(left), sizes):
                    index, left = left[:size], left[size:]
                    # Padding is beyond the last image.
                    index = np.pad(index, (0, size - len(index)), constant_values=count)
                    (x, *others), part = _taken((images, state), index)
                    if devices > 1:
                        x = jax.device_put(x, images.x.sharding)
                    attacked, new = attack(
                        x, others, part, index < count, rank, own, component=component
                    )
                    state = _put(state, index, new._replace(images=attacked))
        states.append(state)
    joined = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    layout = images.x.sharding
    if devices > 1 and isinstance(layout, NamedSharding):
        layout = NamedSharding(layout.mesh, PartitionSpec(None, *layout.spec))
        joined = joined._replace(images=jax.device_put(joined.images, layout))
    return joined


def auto_attack(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    key: chex.PRNGKey,
    eps: chex.Numeric,
    bounds: tuple[chex.Numeric, chex.Numeric] = (0.0, 1.0),
    components: Sequence[str] = tuple(COMPONENTS),
    steps: int = STEPS,
    queries: int = QUERIES,
    batch_size: int = 256,
) -> AutoAttackResult:
    """Attacks images by AutoAttack in the L-infinity ball.

    Four attacks run in turn, each on the images that are not yet broken: Auto-PGD with
    the cross-entropy (:func:`apgd`), Auto-PGD with :func:`targeted_dlr_loss`, the
    targeted FAB attack, and the Square attack (:func:`square`). The targeted attacks
    try one class after another: the nine with the largest clean logits after the first,
    or all if there are fewer.
    Each attack starts once, and a targeted one starts once for each class.

    An image that is broken with one eps counts as broken with every larger one, by the
    same change. The accuracy therefore never rises with eps, and the attacks with a
    larger eps only run on the images that are left; for these eps, the accuracy may be
    lower than if they were attacked alone. Results do not depend on the batch size or
    the number of devices, up to rounding: the random numbers of an image depend only on
    its key.

    On concrete arrays, the images that are not yet broken are gathered into batches of
    at most three sizes, with one compiled program for each attack and size. Under `jit`
    and `vmap`, and for arrays that are divided over several hosts, all images are in
    one batch, and broken ones are masked.

    Args:
      logits_fn: a callable from images to logits, as in :func:`pgd`, of at least four
        classes if "apgd-t" runs.
      x: images (N, height, width, channels), floating-point, within the bounds.
      y: integer labels (N,).
      key: random key, or a key for each image, as in :func:`pgd`.
      eps: radius of the ball, non-negative, in units of the pixels: a scalar or a list
        (E,), in any order.
      bounds: the range of pixel values, in which the result lies without tolerance.
      components: names of the attacks to run, always in the order given above. Without
        all four, the result is not AutoAttack's, and has another
        :attr:`AutoAttackResult.name`.
      steps: number of steps of Auto-PGD and FAB; 100 in the standard version.
      queries: number of queries of the Square attack; 5,000 in the standard version.
      batch_size: the maximum number of images in one pass, on concrete arrays; rounded
        up to a multiple of the number of devices.

    Returns:
      The :class:`AutoAttackResult`.

    Raises:
      ValueError: if "apgd-t" runs and the model has fewer than four classes, if a
        component is unknown or repeated or there is none, if the number of steps or
        queries is less than one, or for the reasons of :func:`pgd` except
        probabilities, which only cause a warning.

    Warns:
      UserWarning: for each of the `problems` of the result: images without a gradient,
        with probabilities in place of logits, with equal logits, out of range, or with
        NaN logits.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> x = jnp.linspace(0, 1, 100).reshape(100, 1, 1, 1) * jnp.ones((2, 2, 1))
      >>> y = (x[:, 0, 0, 0] > 0.5).astype(int)
      >>> mean = lambda x: x.mean(axis=(1, 2, 3))
      >>> brighter = lambda x: jnp.stack([0.5 - mean(x), mean(x) - 0.5], axis=-1)
      >>> result = absum_jax.auto_attack(
      ...     brighter, x, y, key=jax.random.key(0), eps=[0.1, 0.2],
      ...     components=("apgd-ce", "square"),
      ... )
      >>> result.name, result.accuracy
      ('APGD-CE + Square', Array([0.8, 0.6], dtype=float32))

    References:
      Croce and Hein, `Reliable Evaluation of Adversarial Robustness with an Ensemble of
      Diverse Parameter-Free Attacks <https://arxiv.org/abs/2003.01690>`_, 2020; Croce
      and Hein, `Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary
      Attack <https://arxiv.org/abs/1907.02044>`_, 2020; Andriushchenko et al., `Square
      Attack <https://arxiv.org/abs/1912.00049>`_, 2020
    """
    result = attacked(
        logits_fn, x, y, key=key, eps=eps, bounds=bounds, components=components,
        steps=steps, queries=queries, batch_size=batch_size,
    )  # fmt: skip
    if all(map(validation.is_concrete, result.problems)):
        for sentence in result.problems.sentences():
            warnings.warn(sentence, stacklevel=2)
    return result


def attacked(
    logits_fn: Any, x: Any, y: Any, *, key: Any, eps: Any, bounds: Any,
    components: Any, steps: Any, queries: Any, batch_size: Any,
) -> AutoAttackResult:  # fmt: skip
    """Runs :func:`auto_attack` without its warnings."""
    chosen = _check_components(components)
    eps = validation.check_nonnegative_list("eps", eps)
    validation.check_count("steps", steps)
    validation.check_count("queries", queries)
    validation.check_positive_int("batch_size", batch_size)
    x, y, bounds = check_attacked(logits_fn, x, y, bounds)
    if COMPONENTS["apgd-t"] in chosen:
        check_targets(logits_fn, x)
    keys = image_keys(key, x.shape[0])
    limits = _Limits(eps, jnp.asarray(steps), jnp.asarray(queries), bounds)

    clipped, (wrong, ranking, flags) = _clean(
        logits_fn, x, y, bounds, batch_size=batch_size
    )
    images = _Images(clipped, y, keys, ranking)
    passes = jnp.zeros((*y.shape, len(TITLES)), int)
    broken_by = jnp.where(wrong, MISCLASSIFIED, UNBROKEN)
    state = _State(
        clipped, broken_by, passes, passes, jnp.ones_like(wrong), flags.nan_logits
    )

    order = jnp.argsort(jnp.atleast_1d(eps))
    ascending = jnp.atleast_1d(eps)[order]
    if all(map(validation.is_concrete, jax.tree.leaves((images, state, limits)))):
        states = _compacted(
            logits_fn, images, state, ascending, limits, chosen, batch_size
        )
    else:
        first, rest = _compiled_masked(
            logits_fn, clipped, images[1:], state, ascending, limits, components=chosen
        )
        states = rest._replace(images=jnp.moveaxis(first, 1, 0))
    states = jax.tree.map(lambda leaf: leaf[jnp.argsort(order)], states)
    has_gradient = not all(component.queries for component in chosen)
    failed = states.no_gradient & (states.broken_by == UNBROKEN) & has_gradient
    flags = flags._replace(
        no_gradient=failed.any(axis=0), nan_logits=states.nan_logits.any(axis=0)
    )
    problems = jax.tree.map(lambda flag: flag.sum(dtype=jnp.int32), flags)
    if eps.ndim == 0:
        states = jax.tree.map(lambda leaf: leaf[0], states)
    ran = np.isin(np.arange(len(TITLES)), [component.column for component in chosen])
    return AutoAttackResult(
        eps, states.images, states.broken_by, states.forward, states.backward, problems,
        jnp.asarray(ran), limits.steps, limits.queries,
    )  # fmt: skip


def check_targets(logits_fn: _logits.LogitsFn, x: chex.Array) -> None:
    """Refuses models of fewer classes than the standard version needs."""
    classes = _logits.check_logits(logits_fn, x, x.shape[0])
    if classes < 4:
        raise ValueError(
            "`logits_fn` must return at least four logits for the targeted difference "
            f"of logits ratio, got {classes}; `auto_attack` runs without it if "
            '"apgd-t" is not among its `components`.'
        )


def _check_components(components: Any) -> tuple[_Component, ...]:
    """Returns the components in the order in which they run."""
    names = validation.as_tuple(components) or ()
    chosen = tuple(c for name, c in COMPONENTS.items() if name in names)
    if not names or len(chosen) < len(names):
        known = ", ".join(f'"{name}"' for name in COMPONENTS)
        raise ValueError(
            f"`components` must be different names out of {known}, got {components!r}."
        )
    return chosen
