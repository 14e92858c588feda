"""Singular values of the convolutions of trained models, summarized."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import absum_jax
from experiments.evaluation import evaluator
from experiments.evaluation.attack import Attack, Models, register
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.models import named_kernels
from experiments.training.runs import Run


@functools.partial(jax.jit, static_argnames="use")
def of_kernels(kernels: jax.Array, use: absum_jax.ConvUse) -> jax.Array:
    """Computes singular values (models, n_h, n_w, rank) of stacked kernels."""

    def of(kernel: jax.Array) -> jax.Array:
        values = absum_jax.conv_singular_values(
            kernel, use.input_shape, strides=use.strides,
            kernel_dilation=use.kernel_dilation, groups=use.groups,
        )  # fmt: skip
        return values.reshape(*values.shape[:2], -1)

    return jax.lax.map(of, kernels)


@register("singular-values")
def _attack(images: EvaluationSet) -> Attack:
    """Makes each convolution a point; its values do not depend on the images."""
    uses = images.classifier.conv_uses(images.split.image_shape)

    def measure(models: Models, name: str) -> jax.Array:
        [kernels] = named_kernels(models.variables.params, [name]).values()
        [use] = uses[name]
        return of_kernels(kernels, use)

    return Attack("layer", list(uses), measure, value=_summary)


def _summary(measured: Any) -> dict[str, Any]:
    values = np.array(measured, np.float32)  # as they were computed
    means = absum_jax.radial_mean(values.mean(axis=-1))
    return {
        "norm": float(values.max()),
        "norm_at_zero": float(values[0, 0].max()),
        "mean": float(values.mean()),
        "radial_mean": np.asarray(means).tolist(),
    }


def evaluate(images: EvaluationSet, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Summarizes the singular values of each convolution.

    Returns:
      For each run, by the names of kernels: `norm`, the largest value; `norm_at_zero`,
      the largest at frequency zero; `mean`; and `radial_mean`, the mean over
      frequencies at distance 0, 1, 2, ... from zero.
    """
    uses = images.classifier.conv_uses(images.split.image_shape)
    values = evaluator.run("singular-values", images, runs)
    return [dict(zip(uses, of_run, strict=True)) for of_run in values]
