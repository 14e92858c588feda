"""The excess of matrices over a bound: U (S - c)_+ V^H for A = U S V^H.

`"polar"` computes it from the polar factor and a matrix sign, by products alone. The
other methods compute singular values and right singular vectors V, and subtract from A
the fraction g(s) = max(1 - c / s, 0) of each singular value: the excess is A V g V^H.
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from absum_jax import _validation as validation
from absum_jax.spectral import hermitian
from absum_jax.spectral.hermitian import GramPower, Split, matmul

METHODS = ("polar", "eigh", "svd")
# `"eigh"` on CPUs: only matrices that may exceed the bound are decomposed, one by one.
EACH = "eigh each"
# How far a computed norm may be above a bound by rounding alone, in units of eps.
_ROUNDING = 16
# Squarings for bounds that matrices are scaled by: at most 3.4 % too large for rank 64.
_BOUND_SQUARINGS = 5
# Squarings that may show that a matrix is within the bound: each costs a tenth of a
# decomposition, and two bound the norm of a random matrix to 2 % at rank 64.
_SQUARINGS = 2


def check_method(method: str | None) -> None:
    """Refuses a method that is neither None nor one of `METHODS`."""
    if method is not None:
        validation.check_choice("method", method, METHODS)


def tall(matrix: chex.Array) -> chex.Array:
    """Transposes matrices that have fewer rows than columns."""
    if matrix.shape[-2] < matrix.shape[-1]:
        return jnp.swapaxes(matrix, -1, -2)
    return matrix


def norms_beyond(matrix: chex.Array, max_norms: chex.Array) -> chex.Array:
    """Computes upper bounds on spectral norms, as tight as the clip needs them.

    Whether a norm in a layer exceeds its maximum is decided up to rounding. If one
    does, the results of the layer are at most 3.4 % above the norms for rank 64;
    otherwise they are at most the maximum.

    Args:
      matrix: (layers, ..., rows, columns), with rows >= columns.
      max_norms: (layers, ...), or broadcast to it.

    Returns:
      (layers, ...).
    """

    def of_layer(blocks: chex.Array) -> chex.Array:
        return jnp.any(blocks.reshape(len(blocks), -1), axis=1)

    def undecided(state: GramPower) -> chex.Array:
        above = of_layer(state.lower > max_norms)
        between = of_layer((state.upper > max_norms) & (state.lower <= max_norms))
        loose = state.squarings < _BOUND_SQUARINGS
        return jnp.any(jnp.where(above, loose, between))

    a = Split.of(matrix)
    limit = hermitian.max_squarings(matrix.shape[-1], a.re.dtype)
    return hermitian.gram_power(a, undecided, limit).upper


def excess(matrix: chex.Array, max_norms: chex.Array, method: str) -> chex.Array:
    """Computes what complex matrices lose by the clip: U (S - c)_+ V^H.

    Args:
      matrix: (layers, ..., rows, columns).
      max_norms: c, which broadcasts to (layers, ...).
      method: one of `METHODS`, or `EACH`.
    """
    if matrix.shape[-2] < matrix.shape[-1]:
        lost = excess(jnp.swapaxes(matrix, -1, -2), max_norms, method)
        return jnp.swapaxes(lost, -1, -2)
    max_norms = jnp.broadcast_to(max_norms, matrix.shape[:-2])
    if method == EACH:
        return _excess_by_vectors(matrix, max_norms, method)
    norms = norms_beyond(*jax.lax.stop_gradient((matrix, max_norms)))
    above = norms > max_norms

    def lost_above(matrix: chex.Array, max_norms: chex.Array) -> chex.Array:
        if method == "polar" and matrix.shape[-1] > 1:
            lost = _excess_by_polar_factor(matrix, max_norms, norms)
        else:
            lost = _excess_by_vectors(matrix, max_norms, method)
        # The rounding errors of c U are not small relative to a matrix far below c.
        return jnp.where(above[..., None, None], lost, 0)

    def nothing(matrix: chex.Array, _: chex.Array) -> chex.Array:
        return jnp.zeros_like(matrix)

    return jax.lax.cond(jnp.any(above), lost_above, nothing, matrix, max_norms)


def _excess_by_polar_factor(
    matrix: chex.Array, max_norms: chex.Array, norms: chex.Array
) -> chex.Array:
    """Computes (A - c U) P: U is the polar factor, P projects onto values above c."""
    a = Split.of(matrix)
    max_norms, norms = max_norms[..., None, None], norms[..., None, None]
    # A margin for rounding: beyond 1 the iterations diverge.
    scale = jnp.maximum(1.01 * norms, jnp.finfo(norms.dtype).tiny)
    u = hermitian.polar_factor(a.scaled(1 / scale))
    h = hermitian.hermitian_part(hermitian.adjoint_product(u, a))
    above = h.plus_identity(-max_norms).scaled(1 / jnp.maximum(scale, 1.01 * max_norms))
    projector = hermitian.sign(above).plus_identity(1).scaled(0.5)
    return jax.lax.complex(*hermitian.product(a.plus(u.scaled(-max_norms)), projector))


def _eigh_one(gram: Split, branch: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Decomposes a matrix: not at all (0), as a real (1) or a complex matrix (2)."""

    def nothing(gram: Split) -> tuple[chex.Array, chex.Array]:
        zeros = jnp.zeros_like(gram.re)
        return zeros[0], jax.lax.complex(zeros, zeros)

    def real(gram: Split) -> tuple[chex.Array, chex.Array]:
        vectors, values = jnp.linalg.eigh(gram.re)[::-1]
        return values, jax.lax.complex(vectors, jnp.zeros_like(vectors))

    def full(gram: Split) -> tuple[chex.Array, chex.Array]:
        values, vectors = jnp.linalg.eigh(jax.lax.complex(*gram))
        return values, vectors

    return jax.lax.switch(branch, (nothing, real, full), gram)


@custom_vmap
def _eigh_each(gram: Split, branches: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Decomposes matrices (N, n, n) one after the other, each by its own branch.

    In a loop, only LAPACK's threads run. For a batch, jaxlib 0.10 starts threads of its
    own as well, which contend with LAPACK's.
    """
    return jax.lax.map(lambda each: _eigh_one(*each), (gram, branches))


@_eigh_each.def_vmap
def _eigh_each_batched(
    size: int, batched: Any, gram: Split, branches: chex.Array
) -> tuple[Any, Any]:
    """Merges a batch of loops into one loop, which keeps a condition per matrix."""

    def merged(array: chex.Array, is_batched: bool) -> chex.Array:
        array = array if is_batched else jnp.stack([array] * size)
        return array.reshape(-1, *array.shape[2:])

    def divided(array: chex.Array) -> chex.Array:
        return array.reshape(size, -1, *array.shape[1:])

    together = jax.tree.map(merged, (gram, branches), tuple(batched))
    return jax.tree.map(divided, _eigh_each(*together)), (True, True)


def eigh_above(
    matrix: chex.Array, max_norm: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Decomposes the matrices whose norm is not certain to be within a bound.

    Args:
      matrix: complex (..., rows, columns), with rows >= columns.
      max_norm: (...,).

    Returns:
      Right singular vectors (..., columns, columns) and singular values (..., columns)
      in ascending order; zeros for matrices that are not decomposed.
    """
    gram = hermitian.gram(Split.of(matrix))
    one = jnp.ones((*matrix.shape[:-2], 1, 1), gram.re.dtype)

    def undecided(state: GramPower) -> chex.Array:
        return jnp.any((state.upper > max_norm) & (state.lower <= max_norm))

    above = hermitian.power_of_gram(gram, one, undecided, _SQUARINGS).upper > max_norm
    # Blocks are real, up to rounding, at frequencies that are their own opposites.
    eps = jnp.finfo(gram.re.dtype).eps
    largest = [jnp.abs(part).max((-2, -1)) for part in gram]
    branches = jnp.where(above, jnp.where(largest[1] <= eps * largest[0], 1, 2), 0)
    size = gram.re.shape[-1]
    flat = Split(*(part.reshape(-1, size, size) for part in gram))

    def none(flat: Split, _: chex.Array) -> tuple[chex.Array, chex.Array]:
        return jnp.zeros(flat.re.shape[:2], eps.dtype), jnp.zeros_like(
            matrix, shape=flat.re.shape
        )

    squares, vectors = jax.lax.cond(
        jnp.any(above), _eigh_each, none, flat, branches.ravel()
    )
    values = jnp.sqrt(jnp.maximum(squares, 0)).reshape(*branches.shape, size)
    return vectors.reshape(gram.re.shape), values


def _right_singular(
    matrix: chex.Array, max_norm: chex.Array, method: str
) -> tuple[chex.Array, chex.Array]:
    """Returns right singular vectors (..., columns, r) and values (..., r).

    With the method `EACH`, the values of matrices within the bound are 0.
    """
    if matrix.shape[-1] == 1:
        squares = jnp.square(matrix.real) + jnp.square(matrix.imag)
        values = jnp.sqrt(squares.sum(-2))
        vectors = jnp.ones((*values.shape, 1), matrix.dtype)
    elif method == EACH and not jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        vectors, values = eigh_above(matrix, max_norm)
    elif method == "svd":
        _, values, adjoint = jnp.linalg.svd(matrix, full_matrices=False)
        vectors = jnp.conj(jnp.swapaxes(adjoint, -1, -2))
    else:  # also for `EACH` without jit, where its loops would run in Python
        gram = jax.lax.complex(*hermitian.gram(Split.of(matrix)))
        squares, vectors = jnp.linalg.eigh(gram)
        values = jnp.sqrt(jnp.maximum(squares, 0))
    if method == EACH:
        margin = 1 + _ROUNDING * jnp.finfo(values.dtype).eps
        exceeds = values.max(-1, keepdims=True) > (max_norm * margin)[..., None]
        values = jnp.where(exceeds, values, 0)
    return vectors, values


def _fractions(values: chex.Array, max_norm: chex.Array) -> chex.Array:
    """Returns g(s) = max(1 - c / s, 0), the fraction of a singular value to remove."""
    max_norm = max_norm[..., None]
    above = values > max_norm
    return jnp.where(above, 1 - max_norm / jnp.where(above, values, 1), 0)


def _scaled_columns(matrix: chex.Array, factors: chex.Array) -> chex.Array:
    """Multiplies each column of complex matrices by a real factor (..., columns)."""
    return matrix * factors[..., None, :].astype(matrix.dtype)


def _excess_of_each(
    matrix: chex.Array, vectors: chex.Array, fractions: chex.Array
) -> chex.Array:
    """Computes A V g V^H by real products, with exact zeros where g is zero."""
    exceeds = jnp.any(fractions > 0, axis=-1)[..., None, None]

    def products(_: None) -> chex.Array:
        half = _scaled_columns(vectors, jnp.sqrt(fractions))
        adjoint = jnp.conj(jnp.swapaxes(half, -1, -2))
        projector = hermitian.gram(Split.of(adjoint))
        lost = hermitian.product(Split.of(matrix), projector)
        return jnp.where(exceeds, jax.lax.complex(*lost), 0)

    return jax.lax.cond(
        jnp.any(exceeds), products, lambda _: jnp.zeros_like(matrix), None
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _excess_by_vectors(
    matrix: chex.Array, max_norm: chex.Array, method: str
) -> chex.Array:
    """Computes A V g V^H from the right singular vectors V."""
    vectors, values = _right_singular(matrix, max_norm, method)
    if method == EACH:
        return _excess_of_each(matrix, vectors, _fractions(values, max_norm))
    kept = _scaled_columns(vectors, _fractions(values, max_norm))
    adjoint = jnp.conj(jnp.swapaxes(vectors, -1, -2))
    return matmul(matrix, matmul(kept, adjoint))


@_excess_by_vectors.defjvp
def _excess_by_vectors_jvp(
    method: str,
    primals: tuple[chex.Array, chex.Array],
    tangents: tuple[chex.Array, chex.Array],
) -> tuple[chex.Array, chex.Array]:
    """Differentiates A V g V^H by divided differences that are never 0 / 0."""
    (matrix, max_norm), (tangent, max_norm_tangent) = primals, tangents
    vectors, values = _right_singular(matrix, max_norm, method)
    fractions = _fractions(values, max_norm)
    above = values > max_norm[..., None]
    safe = jnp.where(above, values, 1)
    i, j = values[..., :, None], values[..., None, :]
    safe_i, safe_j = safe[..., :, None], safe[..., None, :]
    above_i, above_j = above[..., :, None], above[..., None, :]
    # (g(i) - g(j)) / (i^2 - j^2): in closed form where both values are above c. Where
    # only one is, the other is at most c, so that the denominator is not 0.
    both = max_norm[..., None, None] / (safe_i * safe_j * (safe_i + safe_j))
    difference = fractions[..., :, None] - fractions[..., None, :]
    apart = above_i ^ above_j
    one = difference / jnp.where(apart, (i - j) * (i + j), 1)
    divided = jnp.where(above_i & above_j, both, jnp.where(apart, one, 0))

    adjoint = jnp.conj(jnp.swapaxes(vectors, -1, -2))
    av, dav = matmul(matrix, vectors), matmul(tangent, vectors)
    cross = matmul(jnp.conj(jnp.swapaxes(av, -1, -2)), dav)
    gram_tangent = cross + jnp.conj(jnp.swapaxes(cross, -1, -2))
    per_norm = jnp.where(above, -1 / safe, 0) * max_norm_tangent[..., None]
    out = _scaled_columns(av, fractions)
    moved = (
        _scaled_columns(dav, fractions)
        + matmul(av, divided.astype(gram_tangent.dtype) * gram_tangent)
        + _scaled_columns(av, per_norm)
    )
    return matmul(out, adjoint), matmul(moved, adjoint)
