"""Decompositions for the clip: what is above the bound in matrices."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from absum_jax.spectral import hermitian
from absum_jax.spectral.hermitian import GramPower, Split

# How `"eigh"` is computed on CPUs: the matrices that need it alone, one by one.
EACH = "eigh each"
# How far a computed norm may be above a bound by rounding alone, in units of eps.
_ROUNDING = 16
# Squarings that may show that a matrix is within the bound: each costs a tenth of a
# decomposition, and two bound the norm of a random matrix to 2 % at rank 64.
_SQUARINGS = 2


def _eigh_one(gram: Split, branch: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Decomposes one matrix: not at all (0), as a real one (1) or a complex one (2)."""

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
    """Decomposes matrices (N, n, n) one after the other, each as its branch says.

    One at a time, LAPACK's own threads are the only ones. jaxlib 0.10 divides a batch
    among threads of its own as well, which contend with those.
    """
    return jax.lax.map(lambda each: _eigh_one(*each), (gram, branches))


@_eigh_each.def_vmap
def _eigh_each_batched(
    size: int, batched: Any, gram: Split, branches: chex.Array
) -> tuple[Any, Any]:
    """Makes one loop of a batch of loops: a condition stays one for each matrix."""

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
    """Decomposes the matrices whose norm is not surely within a bound.

    Args:
      matrix: complex (..., rows, columns), with rows >= columns.
      max_norm: a scalar.

    Returns:
      Right singular vectors (..., columns, columns) and singular values (..., columns)
      in ascending order; zeros for those that need none.
    """
    gram = hermitian.gram(Split.of(matrix))
    one = jnp.ones((*matrix.shape[:-2], 1, 1), gram.re.dtype)

    def undecided(state: GramPower) -> chex.Array:
        return jnp.any((state.upper > max_norm) & (state.lower <= max_norm))

    above = hermitian.power_of_gram(gram, one, undecided, _SQUARINGS).upper > max_norm
    # At frequencies that are their own opposites, up to rounding.
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

    If each matrix is decomposed by itself, the values of one within the bound are 0.
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
    else:  # without jit too, as loops then run in Python, operation by operation
        gram = jax.lax.complex(*hermitian.gram(Split.of(matrix)))
        squares, vectors = jnp.linalg.eigh(gram)
        values = jnp.sqrt(jnp.maximum(squares, 0))
    if method == EACH:
        margin = 1 + _ROUNDING * jnp.finfo(values.dtype).eps
        exceeds = values.max(-1, keepdims=True) > max_norm * margin
        values = jnp.where(exceeds, values, 0)
    return vectors, values


_product = functools.partial(jnp.matmul, precision="highest")


def _shares(values: chex.Array, max_norm: chex.Array) -> chex.Array:
    """Returns g(s) = max(1 - c / s, 0), the part of a singular value to take off."""
    above = values > max_norm
    return jnp.where(above, 1 - max_norm / jnp.where(above, values, 1), 0)


def _scaled_columns(matrix: chex.Array, factors: chex.Array) -> chex.Array:
    """Returns complex matrices, each column times a real factor (..., columns)."""
    return matrix * factors[..., None, :].astype(matrix.dtype)


def _excess_of_each(
    matrix: chex.Array, vectors: chex.Array, shares: chex.Array
) -> chex.Array:
    """Computes A V g V^H in real products, and exact zeros for matrices without g."""
    exceeds = jnp.any(shares > 0, axis=-1)[..., None, None]

    def products(_: None) -> chex.Array:
        half = _scaled_columns(vectors, jnp.sqrt(shares))
        adjoint = jnp.conj(jnp.swapaxes(half, -1, -2))
        projector = hermitian.gram(Split.of(adjoint))
        excess = hermitian.product(Split.of(matrix), projector)
        return jnp.where(exceeds, jax.lax.complex(*excess), 0)

    return jax.lax.cond(
        jnp.any(exceeds), products, lambda _: jnp.zeros_like(matrix), None
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def excess(matrix: chex.Array, max_norm: chex.Array, method: str) -> chex.Array:
    """Computes A V g V^H with A = U S V^H and the share g of each singular value."""
    vectors, values = _right_singular(matrix, max_norm, method)
    if method == EACH:
        return _excess_of_each(matrix, vectors, _shares(values, max_norm))
    kept = _scaled_columns(vectors, _shares(values, max_norm))
    adjoint = jnp.conj(jnp.swapaxes(vectors, -1, -2))
    return _product(matrix, _product(kept, adjoint))


@excess.defjvp
def _excess_jvp(
    method: str,
    primals: tuple[chex.Array, chex.Array],
    tangents: tuple[chex.Array, chex.Array],
) -> tuple[chex.Array, chex.Array]:
    """Differentiates A g(A^H A), by divided differences that are never 0 / 0."""
    (matrix, max_norm), (tangent, max_norm_tangent) = primals, tangents
    vectors, values = _right_singular(matrix, max_norm, method)
    shares = _shares(values, max_norm)
    above = values > max_norm
    safe = jnp.where(above, values, 1)
    i, j = values[..., :, None], values[..., None, :]
    safe_i, safe_j = safe[..., :, None], safe[..., None, :]
    above_i, above_j = above[..., :, None], above[..., None, :]
    # (g(i) - g(j)) / (i^2 - j^2): in closed form where both are above c, and with a
    # denominator that c^2 - c^2 alone would make 0 where one is.
    both = max_norm / (safe_i * safe_j * (safe_i + safe_j))
    difference = shares[..., :, None] - shares[..., None, :]
    apart = above_i ^ above_j
    one = difference / jnp.where(apart, (i - j) * (i + j), 1)
    divided = jnp.where(above_i & above_j, both, jnp.where(apart, one, 0))

    adjoint = jnp.conj(jnp.swapaxes(vectors, -1, -2))
    av, dav = _product(matrix, vectors), _product(tangent, vectors)
    cross = _product(jnp.conj(jnp.swapaxes(av, -1, -2)), dav)
    gram_tangent = cross + jnp.conj(jnp.swapaxes(cross, -1, -2))
    per_norm = jnp.where(above, -1 / safe, 0) * max_norm_tangent
    out = _scaled_columns(av, shares)
    moved = (
        _scaled_columns(dav, shares)
        + _product(av, divided.astype(gram_tangent.dtype) * gram_tangent)
        + _scaled_columns(av, per_norm)
    )
    return _product(out, adjoint), _product(moved, adjoint)
