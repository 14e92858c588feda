"""Singular values of the convolutions of trained runs, in few numbers."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import absum_jax
from experiments.evaluation.kept import EvaluationSet, kept
from experiments.models import named_kernels
from experiments.training.runs import Run


@functools.partial(jax.jit, static_argnames="use")
def _values(kernels: jax.Array, use: absum_jax.ConvUse) -> jax.Array:
    """Singular values (models, n_h, n_w, rank) of stacked kernels."""

    def of(kernel: jax.Array) -> jax.Array:
        values = absum_jax.conv_singular_values(
            kernel, use.input_shape, strides=use.strides,
            kernel_dilation=use.kernel_dilation, groups=use.groups,
        )  # fmt: skip
        return values.reshape(*values.shape[:2], -1)

    return jax.lax.map(of, kernels)


def evaluate(images: EvaluationSet, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Summarizes the singular values of each convolution.

    Returns:
      Of each run, for each kernel by name: `norm`, the largest value; `norm_at_zero`,
      the largest at frequency zero; `mean`; and `radial_mean`, the mean over
      frequencies at distance 0, 1, 2, ... from zero.
    """
    uses = images.classifier.conv_uses(images.split.image_shape)

    def compute(variables: Any, _x: Any, _y: Any, name: str) -> list[dict[str, Any]]:
        [kernels] = named_kernels(variables.params, [name]).values()
        [use] = uses[name]
        return [_summary(values) for values in np.asarray(_values(kernels, use))]

    evaluation = images.evaluation("singular-values")
    return kept(images, runs, evaluation, list(uses), compute, "layer")


def _summary(values: np.ndarray) -> dict[str, Any]:
    means = absum_jax.radial_mean(values.mean(axis=-1))
    return {
        "norm": float(values.max()),
        "norm_at_zero": float(values[0, 0].max()),
        "mean": float(values.mean()),
        "radial_mean": np.asarray(means).tolist(),
    }
