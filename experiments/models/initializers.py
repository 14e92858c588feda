"""Initial parameters as PyTorch draws them: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""

import jax
import jax.numpy as jnp
from flax import nnx

torch_kernel = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias(fan_in: int) -> nnx.Initializer:
    """The initializer of a bias, whose own shape does not tell its layer's fan-in.

    Args:
      fan_in: how many values each output of the layer is computed from.
    """
    limit = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
