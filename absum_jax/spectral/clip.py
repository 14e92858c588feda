"""The clip of a convolution's singular values."""

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from absum_jax import _validation as validation
from absum_jax._sharding import with_automatic_axes
from absum_jax.spectral import circulant, decomposition, hermitian
from absum_jax.spectral.circulant import CircularConv
from absum_jax.spectral.hermitian import GramPower, Split
from absum_jax.spectral.norms import max_squarings, rescale_kernels, tall

METHODS = ("polar", "eigh", "svd")


def _excess_polar(matrix: chex.Array, max_norm: chex.Array) -> chex.Array:
    """(A - c U) P: the polar factor U, and P onto singular values above c."""
    a = Split.of(matrix)
    bound = jax.lax.stop_gradient(hermitian.norm_bound(a))[..., None, None]
    # A margin for rounding: beyond 1 the iterations diverge.
    scale = jnp.maximum(1.01 * bound, jnp.finfo(bound.dtype).tiny)
    u = hermitian.polar_factor(a.scaled(1 / scale))
    adjoint = Split(jnp.swapaxes(u.re, -1, -2), -jnp.swapaxes(u.im, -1, -2))
    h = hermitian.hermitian_part(hermitian.product(adjoint, a))
    above = h.plus_identity(-max_norm).scaled(1 / jnp.maximum(scale, 1.01 * max_norm))
    projector = hermitian.sign(above).plus_identity(1).scaled(0.5)
    excess = hermitian.product(a.plus(u.scaled(-max_norm)), projector)
    # Rounding errors of c U are no small part of a matrix far below c.
    return jnp.where(bound > max_norm, jax.lax.complex(*excess), 0)


def check_method(method: str | None) -> None:
    """Refuses a method that is neither None nor one of `METHODS`."""
    if method is not None:
        validation.check_choice("method", method, METHODS)


def excess(matrix: chex.Array, max_norm: chex.Array, method: str) -> chex.Array:
    """What complex matrices lose when singular values are clipped: U (S - c)_+ V^H."""
    wide = matrix.shape[-2] < matrix.shape[-1]
    matrix = tall(matrix)
    if method == "polar" and matrix.shape[-1] > 1:
        lost = _excess_polar(matrix, max_norm)
    else:
        lost = decomposition.excess(matrix, max_norm, method)
    return jnp.swapaxes(lost, -1, -2) if wide else lost


def _exceeds(
    conv: CircularConv, kernel: chex.Array, max_norm: chex.Array
) -> chex.Array:
    """Whether the spectral norm is above a bound, at the cost of deciding that."""

    def decide(blocks: chex.Array) -> chex.Array:
        def undecided(state: GramPower) -> chex.Array:
            between = (state.upper > max_norm) & (state.lower <= max_norm)
            return jnp.any(between) & jnp.all(state.lower <= max_norm)

        a = Split.of(tall(blocks))
        limit = max_squarings(conv.rank, a.re.dtype)
        return jnp.any(hermitian.gram_power(a, undecided, limit).upper > max_norm)

    return jnp.any(circulant.map_chunks(decide, conv, kernel))


def _nearest(
    conv: CircularConv, kernels: chex.Array, max_norms: chex.Array, method: str
) -> chex.Array:
    """Clips a stack of normalized kernels, and cuts."""

    def nearest(layer: tuple[chex.Array, chex.Array]) -> chex.Array:
        kernel, max_norm = layer
        return kernel - circulant.map_kernel(
            lambda blocks: excess(blocks, max_norm, method), conv, kernel
        )

    if method == decomposition.EACH:
        # As one batch, its conditions would become selections.
        return jax.lax.map(nearest, (kernels, max_norms))
    return circulant.map_layers(nearest, conv, (kernels, max_norms))


def _nearest_if_above(
    conv: CircularConv, kernels: chex.Array, max_norms: chex.Array, method: str
) -> chex.Array:
    """Does so with those of a stack that are above their bound."""

    def exceeds(layer: tuple[chex.Array, chex.Array]) -> chex.Array:
        return _exceeds(conv, *layer)

    above = circulant.map_layers(
        exceeds, conv, (jax.lax.stop_gradient(kernels), max_norms)
    )

    def project(kernels: chex.Array) -> chex.Array:
        projected = _nearest(conv, kernels, max_norms, method)
        return jax.vmap(jnp.where)(above, projected, kernels)

    return jax.lax.cond(jnp.any(above), project, lambda kernels: kernels, kernels)


def _project(
    conv: CircularConv, kernels: chex.Array, max_norms: chex.Array, method: str | None
) -> chex.Array:
    """Clips and cuts by what suits the platform that the program is lowered for."""
    general = functools.partial(_nearest_if_above, conv, method=method or "polar")
    if method not in (None, "eigh"):
        return general(kernels, max_norms)
    return jax.lax.platform_dependent(
        kernels,
        max_norms,
        cpu=functools.partial(_nearest, conv, method=decomposition.EACH),
        default=general,
    )


@functools.partial(
    jax.jit, static_argnames=("conv", "method", "projections", "rescale")
)
def clip_kernels(
    kernels: chex.Array,
    max_norm: chex.Array,
    conv: CircularConv,
    method: str | None,
    projections: int,
    *,
    rescale: bool,
) -> chex.Array:
    """Clips each kernel of a stack (layers, ...) of one geometry.

    A negative bound, which traced values cannot be refused for, gives NaN.
    """

    def clip(kernels: chex.Array, max_norm: chex.Array) -> chex.Array:
        units, scales = jax.vmap(circulant.normalized)(kernels)
        bounds = max_norm / scales
        units = jax.lax.fori_loop(
            0, projections, lambda _, u: _project(conv, u, bounds, method), units
        )
        kernels = jax.vmap(jnp.multiply)(scales, units)
        kernels = validation.nan_if_negative(max_norm, kernels)
        return rescale_kernels(kernels, conv, max_norm) if rescale else kernels

    return with_automatic_axes(clip, kernels, max_norm, like=kernels)


def clip_conv_spectral_norm(
    kernel: chex.Array,
    input_shape: Sequence[int],
    max_norm: chex.Numeric,
    *,
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    groups: int = 1,
    method: str | None = None,
    projections: int = 1,
    rescale: bool = False,
) -> chex.Array:
    r"""Clips the singular values of a circular convolution at a bound.

    .. math::
      A = U \Sigma V^H \mapsto U \min(\Sigma, c) V^H

    and back to a kernel of the same support: the nearest convolution of norm at most
    :math:`c`, cut. The cut raises the norm a little above the bound again: repeated
    projections lower it, a last rescaling meets it.

    A kernel whose norm is within the bound comes back to the bit, at the cost of
    finding that out. Differentiable, once, with finite gradients everywhere.

    Args:
      kernel: real, (spatial..., in / groups, out), such as HWIO. bfloat16 and float16
        are computed in float32.
      input_shape: the spatial sizes of the input.
      max_norm: :math:`c > 0`, a scalar, possibly traced.
      strides: one for all spatial axes, or one each; they divide `input_shape`.
      kernel_dilation: likewise.
      groups: groups of channels.
      method: None is `"eigh"` on CPUs and `"polar"` elsewhere, chosen when the program
        is lowered. `"polar"` takes matrix products alone, by iterations for the polar
        factor and the matrix sign: for any accelerator, accurate to about 2e-6 of the
        largest singular value; its gradient loses accuracy, up to a tenth, where
        singular values are zero. `"eigh"` decomposes the smaller Gram matrix, on CPUs
        at those frequencies alone that are not surely within the bound; in float32 the
        error is about 1e-6 of the largest singular value times its ratio to `max_norm`.
        `"svd"` is the reference, and slow.
      projections: how often to clip and cut; alternating projections approach the
        kernels of this support that satisfy the bound.
      rescale: whether to scale the result down to the bound, up to rounding.

    Returns:
      The kernel, of the same shape and dtype.

    Raises:
      ValueError: if the kernel is not real or has no spatial axes, an argument does not
        fit it, a stride does not divide the input, the bound is not positive, the
        method is unknown or `projections` is no positive integer.

    Example:
      >>> import absum_jax, jax
      >>> kernel = jax.random.normal(jax.random.key(0), (3, 3, 8, 8))
      >>> clipped = absum_jax.clip_conv_spectral_norm(kernel, (16, 16), 1.0)
      >>> print(absum_jax.conv_spectral_norm(clipped, (16, 16)) < 2)
      True
      >>> clipped = absum_jax.clip_conv_spectral_norm(
      ...     kernel, (16, 16), 1.0, projections=10, rescale=True
      ... )
      >>> print(round(float(absum_jax.conv_spectral_norm(clipped, (16, 16))), 5))
      1.0

    References:
      Sedghi et al., `The Singular Values of Convolutional Layers
      <https://arxiv.org/abs/1805.10408>`_, 2019, algorithm 1; Kanai et al., `Absum
      <https://arxiv.org/abs/1909.08830>`_, 2020, "Spectral Norm Constraint"
    """
    check_method(method)
    max_norm = validation.check_positive("max_norm", max_norm)
    projections = validation.check_positive_int("projections", projections)
    rescale = validation.check_bool("rescale", rescale)
    kernel = validation.check_real("kernel", kernel)
    wide, conv = circulant.checked(
        kernel, input_shape, strides, kernel_dilation, groups
    )
    bound = jnp.asarray(max_norm, wide.dtype)
    clipped = clip_kernels(
        wide[None], bound, conv, method, projections, rescale=rescale
    )
    return clipped[0].astype(kernel.dtype)
