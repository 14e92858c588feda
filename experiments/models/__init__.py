"""Networks of the paper, in flax nnx, used as pure functions."""

from experiments.models.architectures import ARCHITECTURES, networks_for
from experiments.models.classifier import Classifier, Variables, build, named_kernels

__all__ = [
    "ARCHITECTURES",
    "Classifier",
    "Variables",
    "build",
    "named_kernels",
    "networks_for",
]
