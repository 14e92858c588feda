"""Decompositions of Gram matrices on CPUs, of those alone that need one."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from absum_jax.spectral import hermitian
from absum_jax.spectral.hermitian import GramPower, Split

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
    one = jnp.ones((1, 1), gram.re.dtype)

    def undecided(state: GramPower) -> chex.Array:
        return jnp.any((state.upper > max_norm) & (state.lower <= max_norm))

    above = hermitian.power_of_gram(gram, one, undecided, _SQUARINGS).upper > max_norm
    # At frequencies that are their own opposites, up to rounding.
    eps = jnp.finfo(gram.re.dtype).eps
    largest = [jnp.abs(part).max((-2, -1)) for part in gram]
    branches = jnp.where(above, jnp.where(largest[1] <= eps * largest[0], 1, 2), 0)
    size = gram.re.shape[-1]
    flat = Split(*(part.reshape(-1, size, size) for part in gram))
    squares, vectors = _eigh_each(flat, branches.ravel())
    values = jnp.sqrt(jnp.maximum(squares, 0)).reshape(*branches.shape, size)
    return vectors.reshape(gram.re.shape), values
