"""Initial parameters as PyTorch and torchvision draw them."""

import jax
import jax.numpy as jnp
from flax import nnx

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
torch_kernel = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# N(0, 2/fan_out), whose tails are not cut off; of convolutions alone.
torchvision_kernel = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def torch_bias(fan_in: int) -> nnx.Initializer:
    """The initializer of a bias, whose own shape does not tell its layer's fan-in.

    Args:
      fan_in: how many values each output of the layer is computed from.
    """
    limit = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
