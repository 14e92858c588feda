"""Regularization methods: each is one entry of a table, and `register` adds another."""

from experiments.methods.method import (
    LAMBDA,
    NORM,
    SIGMA,
    Constraint,
    Method,
    Strength,
)
from experiments.methods.table import (
    ABSUM_AUTODIFF,
    METHODS,
    SNC_METHODS,
    SNC_NUMPY_AXES,
    MethodName,
    default,
    listed,
    register,
)

__all__ = [
    "ABSUM_AUTODIFF",
    "LAMBDA",
    "METHODS",
    "NORM",
    "SIGMA",
    "SNC_METHODS",
    "SNC_NUMPY_AXES",
    "Constraint",
    "Method",
    "MethodName",
    "Strength",
    "default",
    "listed",
    "register",
]
