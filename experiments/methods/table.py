"""The regularization methods by name."""

from typing import Annotated

import optax

import absum_jax
from experiments.methods import noise, penalty, snc
from experiments.methods.method import NORM, SIGMA, Constraint, Method
from experiments.names import Name, Registry

ABSUM_AUTODIFF = "absum-autodiff"
# SNC as the paper defines it, and as NumPy's default axes compute it of PyTorch's
# kernels: a reading that fits the published rows.
SNC_METHODS = ("snc", "snc-numpy-axes")
_SNC, SNC_NUMPY_AXES = SNC_METHODS

METHODS = Registry[Method]()
register = METHODS.register


def listed() -> tuple[str, ...]:
    """Returns the methods that commands offer."""
    return tuple(name for name, method in METHODS.items() if method.is_listed)


def default() -> tuple[str, ...]:
    """Returns the methods that commands compare: the paper's, and registered ones."""
    return tuple(
        name
        for name in listed()
        if METHODS[name].is_default and METHODS[name].parent is None
    )


MethodName = Annotated[str, Name(listed)]


register(
    Method("none", "no regularization", "#000000", ":", "x", strength=None),
    # Transformations act in the order of this table.
    Method(
        "weight_decay", "weight decay", "#009E73", "--", "s", is_always_compiled=True,
        before_sgd=lambda strength, _: optax.add_decayed_weights(
            strength, mask=absum_jax.conv_kernels
        ),
    ),
    Method(
        "l1", "L1", "#D55E00", "-.", "^", is_always_compiled=True,
        after_sgd=lambda strength, rate: absum_jax.l1(strength, learning_rate=rate),
    ),
    Method(
        "absum", "Absum", "#0072B2", "-", "o", is_always_compiled=True,
        after_sgd=lambda strength, rate: absum_jax.absum(strength, learning_rate=rate),
    ),
    Method(
        _SNC, "SNC", "#CC79A7", (0, (8, 2)), "D", strength=SIGMA,
        constraint=Constraint(absum_jax.apply_spectral_norm_constraint),
    ),
    Method(
        SNC_NUMPY_AXES, "SNC, NumPy's axes", "#E69F00", (0, (3, 1, 1, 1, 1, 1)), "v",
        strength=SIGMA, parent=_SNC, constraint=Constraint(snc.clip_numpy_axes),
    ),
    Method(
        ABSUM_AUTODIFF, "Absum by automatic differentiation", "#56B4E9", (0, (4, 4)),
        "P", is_listed=False, penalty_gradient=penalty.gradient,
    ),
    Method(
        "fourier-noise", "Fourier noise", "#F0E442", (0, (1, 1)), "*", strength=NORM,
        is_default=False, perturb=noise.add_single_frequencies,
    ),
)  # fmt: skip
