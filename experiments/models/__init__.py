"""Networks of the paper, in flax nnx, used as pure functions."""

from experiments.models.classifier import Classifier, build

__all__ = ["Classifier", "build"]
