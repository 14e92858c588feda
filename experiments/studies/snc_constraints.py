"""Readings of the paper's SNC that are compared with the plain one, as methods."""

import functools

import jax

import absum_jax
from experiments.config import NONE
from experiments.methods import METHODS, SIGMA, SNC_NUMPY_AXES, register
from experiments.methods.method import Constraint, Method, Params, Uses
from experiments.methods.snc import check_fits, on_kernels

_clip = absum_jax.apply_spectral_norm_constraint


def _clip_dense_too(params: Params, max_norm: jax.Array, uses: Uses) -> Params:
    """Clips dense layers as convolutions of one pixel."""

    def clip_dense(leaf: jax.Array) -> jax.Array:
        if leaf.ndim != 2:
            return leaf
        return absum_jax.clip_conv_spectral_norm(leaf[None], (1,), max_norm)[0]

    return _clip(jax.tree.map(clip_dense, params), max_norm, uses)


def _clip_filters(params: Params, max_norm: jax.Array, uses: Uses) -> Params:
    """Clips each filter as an operator of its own, one input and one output channel."""

    def clip_each(kernel: jax.Array, use: absum_jax.ConvUse) -> jax.Array:
        filters = kernel.reshape(*kernel.shape[:2], 1, -1)
        clipped = absum_jax.clip_conv_spectral_norm(
            filters, use.input_shape, max_norm, strides=use.strides,
            kernel_dilation=use.kernel_dilation, groups=filters.shape[-1],
        )  # fmt: skip
        return clipped.reshape(kernel.shape)

    return on_kernels(params, uses, clip_each)


def _clip_oihw(params: Params, max_norm: jax.Array, uses: Uses) -> Params:
    """Clips PyTorch's kernels (out, in, height, width) as (height, width, in, out).

    On the size of the image, as the channels do not fit into that of the second layer;
    those of large networks do not fit into that of the image either. Strides are not
    taken into account, as in NumPy.
    """
    size = max(use.input_shape for [use] in uses.values())

    def clip_transposed(kernel: jax.Array, _: absum_jax.ConvUse) -> jax.Array:
        check_fits(kernel.shape[:1:-1], size)
        clipped = absum_jax.clip_conv_spectral_norm(
            kernel.transpose(3, 2, 0, 1), size, max_norm
        )
        return clipped.transpose(2, 3, 1, 0)

    return on_kernels(params, uses, clip_transposed)


_OTHERS = {
    "snc-last": ("and once more after the last step", Constraint(_clip, at_end=True)),
    "snc-every-step": ("at every step", Constraint(_clip, every=1)),
    "snc-projected": (
        "ten alternating projections in place of one",
        Constraint(functools.partial(_clip, projections=10)),
    ),
    "snc-dense": ("dense layers too", Constraint(_clip_dense_too)),
    "snc-rescaled": (
        "kernels rescaled (Gouk et al.), not clipped",
        Constraint(absum_jax.apply_spectral_normalization),
    ),
    "snc-filters": (
        "each filter by itself, not multi-channel matrices", Constraint(_clip_filters)
    ),
    "snc-oihw": (
        "kernels (out, in, h, w) taken for (h, w, in, out)", Constraint(_clip_oihw)
    ),
}  # fmt: skip
register(
    *(
        Method(
            name, f"SNC, {description}", METHODS["snc"].color, strength=SIGMA,
            is_listed=False, constraint=constraint,
        )
        for name, (description, constraint) in _OTHERS.items()
    )
)  # fmt: skip

# What each of the methods is a reading of.
READINGS = {
    NONE.method: "no constraint",
    "snc": "plain: singular values of each convolution, every 100 steps",
    **{name: description for name, (description, _) in _OTHERS.items()},
    SNC_NUMPY_AXES: "NumPy's default axes on kernels (out, in, h, w)",
}
# Those that only this study trains.
OTHER_READINGS = tuple(_OTHERS)
