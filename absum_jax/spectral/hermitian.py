"""Functions of Hermitian matrices by real matrix products alone.

A complex matrix is represented by its real and its imaginary part. For a Hermitian
matrix these are symmetric and antisymmetric, which saves up to half of the products.
Every accelerator is fast at products, but not every one has a complex `eigh`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

# A step of the sign iteration is the best one for the upper part of an interval, from
# this fraction of its end on: such values do not fall below 0.6 of the largest.
_SERVED = 0.2
# How far values may exceed an interval, as long as the interval is wide.
_MARGIN = 0.01


class Split(NamedTuple):
    """Complex matrices (..., rows, columns) as two real arrays."""

    re: chex.Array
    im: chex.Array

    @classmethod
    def of(cls, matrix: chex.Array) -> "Split":
        """Splits complex matrices into real and imaginary parts."""
        return cls(matrix.real, matrix.imag)

    def scaled(self, factor: chex.Numeric) -> "Split":
        """Multiplies each matrix by its own number."""
        return Split(self.re * factor, self.im * factor)

    def plus(self, other: "Split") -> "Split":
        """Adds other matrices."""
        return Split(self.re + other.re, self.im + other.im)

    def plus_identity(self, factor: chex.Numeric) -> "Split":
        """Adds a multiple of the identity, or its own multiple to each matrix."""
        identity = jnp.eye(self.re.shape[-1], dtype=self.re.dtype)
        identity = jax.lax.broadcast_to_rank(identity, self.re.ndim)
        return Split(self.re + factor * identity, self.im)

    @property
    def frobenius(self) -> chex.Array:
        """Computes Frobenius norms, (..., 1, 1)."""
        squares = self.re * self.re + self.im * self.im
        return jnp.sqrt(squares.sum((-2, -1), keepdims=True))

    @property
    def trace(self) -> chex.Array:
        """Computes traces of Hermitian matrices, (..., 1, 1)."""
        return jnp.trace(self.re, axis1=-2, axis2=-1)[..., None, None]


def _transposed(matrix: chex.Array) -> chex.Array:
    return jnp.swapaxes(matrix, -1, -2)


matmul = functools.partial(jnp.matmul, precision="highest")


def _products(subscripts: str, *pairs: tuple[chex.Array, chex.Array]) -> chex.Array:
    """Multiplies pairs of real matrices, as one batch except on CPUs.

    The compiler for TPUs takes seconds for each product of full precision; on CPUs the
    copies into a batch take up to a quarter of the time of a norm.
    """
    multiply = functools.partial(jnp.einsum, subscripts, precision="highest")

    def together(*pairs: tuple[chex.Array, chex.Array]) -> chex.Array:
        return multiply(*map(jnp.stack, zip(*pairs, strict=True)))

    def separately(*pairs: tuple[chex.Array, chex.Array]) -> chex.Array:
        return jnp.stack([multiply(*pair) for pair in pairs])

    return jax.lax.platform_dependent(*pairs, cpu=separately, default=together)


_PLAIN, _TRANSPOSED = "...ik,...kj->...ij", "...ki,...kj->...ij"


def _product(subscripts: str, a: Split, b: Split) -> Split:
    real, imaginary, mixed = _products(
        subscripts, (a.re, b.re), (a.im, b.im), (a.re + a.im, b.re + b.im)
    )
    return Split(real - imaginary, mixed - real - imaginary)


def product(a: Split, b: Split) -> Split:
    """Multiplies complex matrices by three real products."""
    return _product(_PLAIN, a, b)


def adjoint_product(a: Split, b: Split) -> Split:
    """Computes A^H B by three real products."""
    return _product(_TRANSPOSED, Split(a.re, -a.im), b)


def gram(a: Split) -> Split:
    """Computes A^H A by three real products."""
    real, imaginary, mixed = _products(
        _TRANSPOSED, (a.re, a.re), (a.im, a.im), (a.re, a.im)
    )
    return Split(real + imaginary, mixed - _transposed(mixed))


def square(s: Split) -> Split:
    """Computes S^2 for Hermitian S by two real products."""
    mixed, outer = _products(_PLAIN, (s.re, s.im), (s.re - s.im, s.re + s.im))
    crossed = _transposed(mixed)
    real = outer - mixed - crossed
    # Symmetric and antisymmetric to the bit: further squarings rely on it.
    return Split((real + _transposed(real)) / 2, mixed - crossed)


class GramPower(NamedTuple):
    """A power of a Gram matrix, scaled to the Frobenius norm 1, and its bounds."""

    power: Split  # G^(2^t) / its norm; 0 for zero matrices
    upper: chex.Array  # (...,) the spectral norm of A is at most this
    lower: chex.Array  # (...,) and at least this
    squarings: chex.Array  # t


def gram_power(
    a: Split, undecided: Callable[[GramPower], chex.Array], squarings: int
) -> GramPower:
    """Squares Gram matrices until their bounds on the norm of A decide a question.

    Args:
      a: matrices (..., rows, columns) of moderate scale.
      undecided: whether to continue.
      squarings: the maximum number of squarings.

    References:
      Delattre et al., Efficient Bound of Lipschitz Constant for Convolutional Layers by
      Gram Iteration, 2023
    """
    tiny = jnp.finfo(a.re.dtype).tiny
    # Divide by the largest entry first, or squares of small entries would underflow.
    parts = (jnp.abs(part).max((-2, -1), keepdims=True) for part in a)
    peak = jnp.maximum(*parts)
    peak = jnp.where(peak >= tiny, peak, 0)
    unit = a.scaled(jnp.where(peak > 0, 1 / jnp.where(peak > 0, peak, 1), 0))
    norm = unit.frobenius
    unit = unit.scaled(1 / jnp.maximum(norm, tiny))
    return power_of_gram(gram(unit), peak * norm, undecided, squarings)


def power_of_gram(
    gram: Split,
    scale: chex.Array,
    undecided: Callable[[GramPower], chex.Array],
    squarings: int,
) -> GramPower:
    """Squares the Gram matrices of matrices that were divided by scales (..., 1, 1)."""
    tiny = jnp.finfo(gram.re.dtype).tiny

    def bounded(power: Split, scale: chex.Array, t: chex.Array) -> GramPower:
        norm = power.frobenius
        power = power.scaled(1 / jnp.maximum(norm, tiny))
        root = 0.5 ** (t + 1).astype(scale.dtype)
        upper = scale * norm**root
        # The mean of the eigenvalues, weighted by themselves.
        mean = 1 / jnp.maximum(power.trace, tiny)
        lower = jnp.where(norm > 0, upper * jnp.minimum(mean, 1) ** root, 0)
        return GramPower(power, upper[..., 0, 0], lower[..., 0, 0], t)

    def once_more(state: GramPower) -> GramPower:
        t = state.squarings + 1
        return bounded(square(state.power), state.upper[..., None, None], t)

    def unfinished(state: GramPower) -> chex.Array:
        return (state.squarings < squarings) & undecided(state)

    first = bounded(gram, scale, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, once_more, first)


def max_squarings(rank: int, dtype: jnp.dtype) -> int:
    """Returns how many squarings make the bound equal to the norm up to rounding."""
    if rank == 1:
        return 0
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    return math.ceil(math.log2(math.log(rank) / tolerance)) - 2


def _best_quintic(lower: float, upper: float) -> tuple[np.ndarray, float]:
    """Finds the odd quintic nearest to 1 on [lower, upper], and its error (Remez)."""
    if upper - lower < 1e-3:
        return np.array([15, -10, 3]) / 8, 2.5 * (upper - lower) ** 3
    inner = np.array([3 * lower + upper, lower + 3 * upper]) / 4
    for _ in range(100):
        x = np.array([lower, *inner, upper])
        system = np.stack([x, x**3, x**5, [1, -1, 1, -1]], axis=1)
        *coefficients, error = np.linalg.solve(system, np.ones(4))
        # The error is largest where the derivative vanishes.
        a, b, c = coefficients
        root = np.sqrt(9 * b * b - 20 * a * c)
        moved = np.sqrt(np.array([-3 * b - root, -3 * b + root]) / (10 * c))
        if np.max(np.abs(moved - inner)) < 1e-14:
            break
        inner = moved
    return np.array(coefficients), float(error)


@functools.lru_cache
def sign_polynomials(resolution: float, accuracy: float) -> np.ndarray:
    """Computes odd quintics (steps, 3) whose composition maps [resolution, 1] to 1.

    Each is the best one for the interval that the previous ones leave, or for its upper
    part: the best one for a long interval maps large values down to a hundredth, and
    rounding errors grow when later steps raise them again. Beyond the interval the
    polynomials rise steeply, so a margin is needed for values that rounding lifts over
    its end.

    References:
      Amsel et al., The Polar Express, 2025; Nakatsukasa and Higham, Backward Stability
      of Iterations for Computing the Polar Decomposition, 2012
    """
    lower, upper = resolution, 1.0
    steps: list[list[float]] = []
    while max(1 - lower, upper - 1) > accuracy or not steps:
        if upper - lower > _MARGIN:
            upper *= 1 + _MARGIN
        served = max(lower, _SERVED * upper)
        (a, b, c), error = _best_quintic(served, upper)
        steps.append([float(a), float(b), float(c)])
        below = a * lower + b * lower**3 + c * lower**5
        lower, upper = min(below, 1 - error) if served > lower else 1 - error, 1 + error
    return np.array(steps)


def _polynomials(dtype: Any) -> chex.Array:
    """Returns quintics that map 1e-5 of the norm (float32) to 1 up to rounding."""
    eps = float(jnp.finfo(dtype).eps)
    return jnp.asarray(sign_polynomials(100 * eps, eps), dtype)


def _polynomial(g: Split, coefficients: chex.Array) -> Split:
    """Computes a + b G + c G^2 for Hermitian G."""
    a, b, c = coefficients
    return g.scaled(b).plus(square(g).scaled(c)).plus_identity(a)


def polar_factor(a: Split) -> Split:
    """Computes U of A = U H, for matrices of norm at most 1 with rows >= columns.

    Singular values below the resolution stay between 0 and 1.
    """

    def step(x: Split, coefficients: chex.Array) -> tuple[Split, None]:
        return product(x, _polynomial(gram(x), coefficients)), None

    return jax.lax.scan(step, a, _polynomials(a.re.dtype))[0]


def sign(s: Split) -> Split:
    """Computes the sign of Hermitian matrices of norm at most 1."""

    def step(s: Split, coefficients: chex.Array) -> tuple[Split, None]:
        moved = product(s, _polynomial(square(s), coefficients))
        return hermitian_part(moved), None

    return jax.lax.scan(step, s, _polynomials(s.re.dtype))[0]


def hermitian_part(a: Split) -> Split:
    """Averages matrices and their adjoints."""
    return Split((a.re + _transposed(a.re)) / 2, (a.im - _transposed(a.im)) / 2)
