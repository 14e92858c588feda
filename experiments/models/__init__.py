"""Networks of the paper, in flax nnx, used as pure functions."""

from experiments.models.architectures import (
    ARCHITECTURES,
    WIDTHS,
    networks_for,
    with_width,
)
from experiments.models.classifier import Classifier, Variables, build, named_kernels

__all__ = [
    "ARCHITECTURES",
    "WIDTHS",
    "Classifier",
    "Variables",
    "build",
    "named_kernels",
    "networks_for",
    "with_width",
]
