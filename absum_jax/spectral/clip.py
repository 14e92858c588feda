"""Projections of kernels onto a bound of the spectral norm: clipped or rescaled."""

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from absum_jax import _validation as validation
from absum_jax._sharding import with_automatic_axes
from absum_jax.spectral import circulant, decomposition
from absum_jax.spectral.circulant import CircularConv
from absum_jax.spectral.spectrum import spectral_norm


def _nearest(
    conv: CircularConv, kernels: chex.Array, max_norms: chex.Array, method: str
) -> chex.Array:
    """Clips a stack of normalized kernels and cuts them to their support."""

    def nearest(layers: tuple[chex.Array, chex.Array]) -> chex.Array:
        kernels, max_norms = layers
        bounds = max_norms[:, None, None]
        return kernels - circulant.map_kernels(
            lambda blocks: decomposition.excess(blocks, bounds, method), conv, kernels
        )

    layers = kernels, max_norms
    if method == decomposition.EACH:
        # Each layer has a condition of its own.
        return circulant.one_by_one(nearest, layers)
    return circulant.map_layers(nearest, conv, layers)


def _project(
    conv: CircularConv, kernels: chex.Array, max_norms: chex.Array, method: str | None
) -> chex.Array:
    """Clips and cuts, for None by the method that suits the platform lowered for."""
    general = functools.partial(_nearest, conv, method=method or "polar")
    if method not in (None, "eigh"):
        return general(kernels, max_norms)
    return jax.lax.platform_dependent(
        kernels,
        max_norms,
        cpu=functools.partial(_nearest, conv, method=decomposition.EACH),
        default=general,
    )


@functools.partial(jax.jit, static_argnames="conv")
def rescale_kernels(
    kernels: chex.Array, conv: CircularConv, max_norm: chex.Array
) -> chex.Array:
    """Scales each kernel of a stack (layers, ...) down to a bound on its norm.

    A negative bound, which cannot be refused if it is traced, gives NaN.
    """
    max_norm = validation.nonnegative(max_norm, kernels.dtype)

    def layers(kernels: chex.Array, max_norm: chex.Array) -> chex.Array:
        def rescale(kernel: chex.Array) -> chex.Array:
            norm = spectral_norm(conv, kernel)
            within = norm <= max_norm
            return kernel * jnp.where(within, 1, max_norm / jnp.where(within, 1, norm))

        return circulant.map_layers(jax.vmap(rescale), conv, kernels)

    return with_automatic_axes(layers, kernels, max_norm, like=kernels)


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

    A negative bound, which cannot be refused if it is traced, gives NaN.
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

    The result, the nearest convolution of norm at most :math:`c`, is cut to the support
    of the kernel. The cut raises the norm a little above the bound again: repeated
    projections lower it, and a final rescaling meets the bound.

    A kernel whose norm is within the bound is returned unchanged, to the bit. The clip
    can be differentiated once, with finite gradients everywhere.

    Args:
      kernel: real, (spatial..., in / groups, out), such as HWIO. bfloat16 and float16
        are computed in float32.
      input_shape: the spatial sizes of the input.
      max_norm: :math:`c > 0`, a scalar, possibly traced.
      strides: one for all spatial axes, or one each; they divide `input_shape`.
      kernel_dilation: likewise.
      groups: groups of channels.
      method: None is `"eigh"` on CPUs and `"polar"` elsewhere, chosen when the program
        is lowered. `"polar"` iterates matrix products to the polar factor and the
        matrix sign. It suits any accelerator and is accurate to about 2e-6 of the
        largest singular value; where singular values are zero, the error of its
        gradient is up to a tenth. `"eigh"` decomposes the smaller Gram matrix, on CPUs
        only at frequencies that may exceed the bound; in float32 the error is about
        1e-6 of the largest singular value times its ratio to `max_norm`. `"svd"` is the
        reference, and slow.
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
    decomposition.check_method(method)
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
