"""Absum's penalty as a term of the loss, in place of its proximal step (Figure 8)."""

import jax
import jax.numpy as jnp

import absum_jax
from experiments.methods.method import Params


def gradient(params: Params) -> Params:
    """Returns the gradient of the penalty, the second sum of eq. 12 without lambda.

    At a filter whose sum is zero it is zero, as in the paper's PyTorch; `jax.grad`
    would take the derivative of |x| at 0 to be 1. It is zero but for the kernels, HWIO.

    Source: P, appendix, "Effectiveness of proximal operator".
    """

    def of_leaf(leaf: jax.Array, is_kernel: bool) -> jax.Array:
        if not is_kernel:
            return jnp.zeros_like(leaf)
        signs = jnp.sign(leaf.sum(axis=(0, 1), keepdims=True))
        return jnp.broadcast_to(signs, leaf.shape)

    return jax.tree.map(of_leaf, params, absum_jax.conv_kernels(params))
