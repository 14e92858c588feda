"""Computes diagnostics of each convolution, logged while models train."""

import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from absum_jax.kernels import leaf_name
from experiments.models import Classifier, named_kernels

Params = Any
# For each layer, an array over the axes that models are stacked along.
ByLayer = dict[str, jax.Array]

# A sum is zero if it is at most this fraction of the sum of absolute values: what
# rounding to float32 leaves is below it.
ZERO = 1e-6
# The largest number of epochs at which spectral norms are computed.
SPECTRAL_NORMS = 20


def kernel_names(params: Params) -> tuple[str, ...]:
    """Lists the names of the convolution kernels of one model, in the tree's order."""
    mask = jax.tree_util.tree_leaves_with_path(absum_jax.conv_kernels(params))
    return tuple(leaf_name(path) for path, is_kernel in mask if is_kernel)


@functools.partial(jax.jit, static_argnames="names")
def filter_sums(params: Params, names: Iterable[str]) -> dict[str, ByLayer]:
    """Computes penalties and fractions of zero sums of filters, of stacked models.

    The named kernels are (models..., height, width, in, out), with any leading axes.

    Returns:
      For each layer, arrays (models...): `penalty`, the sum over its filters (pairs of
      an input and an output channel) of |sum over space|, and `zero_share`, the
      fraction of its filters whose sum is zero: |sum| <= `ZERO` * sum of |coefficient|.
    """
    penalties, shares = {}, {}
    for name, kernel in named_kernels(params, names).items():
        sums = jnp.abs(kernel.sum(axis=(-4, -3)))
        sizes = jnp.abs(kernel).sum(axis=(-4, -3))
        penalties[name] = sums.sum(axis=(-2, -1))
        shares[name] = (sums <= ZERO * sizes).mean(axis=(-2, -1))
    return {"penalty": penalties, "zero_share": shares}


# A program for each geometry, which many layers of a large network share.
@functools.partial(jax.jit, static_argnames="use")
def _spectral_norms(kernels: jax.Array, use: absum_jax.ConvUse) -> jax.Array:
    def norm(kernel: jax.Array) -> jax.Array:
        return absum_jax.conv_spectral_norm(
            kernel, use.input_shape, strides=use.strides,
            kernel_dilation=use.kernel_dilation, groups=use.groups,
        )  # fmt: skip

    flat = kernels.reshape(-1, *kernels.shape[-4:])
    return jax.lax.map(norm, flat).reshape(kernels.shape[:-4])


def spectral_norms(params: Params, uses: dict[str, Any]) -> ByLayer:
    """Computes spectral norms (models...) of each convolution, which is used once."""
    kernels = named_kernels(params, uses)
    return {
        name: _spectral_norms(kernel, use)
        for (name, kernel), [use] in zip(kernels.items(), uses.values(), strict=True)
    }


def epochs_with_spectral_norms(epochs: int) -> frozenset[int]:
    """Chooses after which epochs spectral norms are computed; the last is one."""
    at = np.linspace(1, epochs, min(epochs, SPECTRAL_NORMS))
    return frozenset(at.round().astype(int).tolist())


class Recorder:
    """Computes the diagnostics of a sweep's models, epoch by epoch."""

    def __init__(
        self, classifier: Classifier, image_shape: tuple[int, ...], epochs: int, *,
        with_spectral_norms: bool,
    ):  # fmt: skip
        shapes = jax.eval_shape(classifier.init, jax.random.key(0))
        self._names = kernel_names(shapes.params)
        self._uses = classifier.conv_uses(image_shape) if with_spectral_norms else {}
        self._at = epochs_with_spectral_norms(epochs) if with_spectral_norms else ()

    def lines(self, epoch: int, params: Params) -> list[dict[str, Any]]:
        """Makes a line of JSON for each model of (seeds, settings), row by row."""
        found = filter_sums(params, self._names)
        if epoch in self._at:
            found["spectral_norm"] = spectral_norms(params, self._uses)
        flat = jax.tree.map(lambda values: np.asarray(values).ravel(), found)
        models = jax.tree.leaves(flat)[0].size
        return [
            {"epoch": epoch, **jax.tree.map(lambda v, i=i: _plain(v[i]), flat)}
            for i in range(models)
        ]


def _plain(value: np.floating) -> float | None:
    """Rounds a number to the digits of float32, for JSON; None if it is not finite."""
    return float(f"{value:.8g}") if math.isfinite(value) else None
