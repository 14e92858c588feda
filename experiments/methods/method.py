"""Describes regularization methods."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax
from jax.typing import ArrayLike

import absum_jax
from experiments.composed import flag

Params = Any
Uses = Mapping[str, Sequence[absum_jax.ConvUse]]
# Of the strength and the learning rate, which may be traced.
Transformation = Callable[[ArrayLike, ArrayLike], optax.GradientTransformation]


class Constraint(NamedTuple):
    """When parameters are constrained, and how."""

    apply: Callable[[Params, jax.Array, Uses], Params]
    every: int = 100  # as in the paper
    at_end: bool = False  # also after the last step of training


class Strength(NamedTuple):
    """A kind of strength: the option that gives it, and how figures denote it."""

    option: str  # the field of `SweepOptions`
    symbol: str  # in TeX
    label: str  # of an axis
    grid: tuple[float, ...]  # what the paper tries; a single value is the default

    @property
    def flag(self) -> str:
        """Returns the option on the command line."""
        return flag(self.option)


LAMBDA = Strength(
    "strengths", r"\lambda", r"regularization strength $\lambda$",
    (1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7),
)  # fmt: skip
SIGMA = Strength(
    "max_norms", r"\sigma", r"bound on the spectral norm $\sigma$",
    (0.01, 0.1, 0.5, 1.0, 10.0),
)  # fmt: skip
# Yin et al. (2019) draw their heat maps of images of 32 x 32 at this norm.
NORM = Strength("strengths", "v", "L2 norm of the noise $v$", (4.0,))


@dataclasses.dataclass(frozen=True)
class Method:
    """A regularization method.

    All that acts in training does nothing at strength 0, which models of other methods
    in the same program have. Figures distinguish methods by dash and marker, not by
    color alone, so no two methods should share both; a method without them gets a pair
    that no other has.
    """

    name: str  # on the command line and on disk
    label: str  # in tables and figures
    color: str  # the table has those of Okabe and Ito, safe for the color-blind
    # Of lines and points, as matplotlib takes them.
    dash: str | tuple[float, tuple[float, ...]] | None = None
    marker: str | None = None
    strength: Strength | None = LAMBDA  # None if it has none
    grid: tuple[float, ...] | None = None  # None is that of the kind of strength
    is_listed: bool = True  # on the command line; others belong to a single study
    is_default: bool = True  # whether commands compare it unless --methods are given
    # The method whose published numbers appear beside it. Such a variant of another
    # method is not among the defaults of commands.
    parent: str | None = None
    # Whether every program of small networks includes it. Other methods are compiled
    # only where a model uses them.
    is_always_compiled: bool = False
    before_sgd: Transformation | None = None
    after_sgd: Transformation | None = None
    # The gradient of a penalty, which times the strength is added to that of the loss.
    penalty_gradient: Callable[[Params], Params] | None = None
    constraint: Constraint | None = None  # bounded by the strength
    # Perturbs training images in [0, 1], given a key and the strength.
    perturb: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None
