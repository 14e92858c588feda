"""Networks of the paper, in flax nnx, used as pure functions."""

from experiments.models.architectures import (
    ARCHITECTURES,
    WIDTHS,
    Architecture,
    NetworkName,
    networks_for,
    register,
    with_width,
)
from experiments.models.classifier import (
    Classifier,
    Variables,
    build,
    named_kernels,
    variables_of,
)

__all__ = [
    "ARCHITECTURES",
    "WIDTHS",
    "Architecture",
    "Classifier",
    "NetworkName",
    "Variables",
    "build",
    "named_kernels",
    "networks_for",
    "register",
    "variables_of",
    "with_width",
]
