"""Layers of the networks, initialized as PyTorch and torchvision initialize them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from experiments.models.batch_norm import normalized

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
torch_kernel = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# N(0, 2/fan_out), not truncated; for convolutions only.
torchvision_kernel = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def _torch_bias(fan_in: int) -> nnx.Initializer:
    """Returns the initializer of a bias, whose shape does not determine the fan-in."""
    limit = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def standardize(
    x: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Subtracts the mean of each channel and divides by its standard deviation.

    It is part of the model, so that attacks work on pixels in [0, 1] (P, appendix).
    """
    return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype)


def conv(
    inputs: int, outputs: int, size: int, stride: int = 1, *,
    margin: int | None = None, use_bias: bool = False, dtype: Dtype = jnp.float32,
    kernel_init: nnx.Initializer = torch_kernel, rngs: nnx.Rngs,
) -> nnx.Conv:  # fmt: skip
    """Makes a square convolution that computes in `dtype`, with float32 parameters.

    As in PyTorch, it pads all sides with `margin` zeros, by default size // 2, which at
    stride 1 preserves the size of the image. At stride 2, flax's "SAME" would pad one
    side only.
    """
    margin = size // 2 if margin is None else margin
    return nnx.Conv(
        inputs, outputs, (size, size), strides=(stride, stride),
        padding=((margin, margin), (margin, margin)), use_bias=use_bias, dtype=dtype,
        kernel_init=kernel_init, bias_init=_torch_bias(size * size * inputs), rngs=rngs,
    )  # fmt: skip


def max_pool(x: jax.Array, stride: int) -> jax.Array:
    """Computes the maximum over the 3 x 3 square around every `stride`-th position."""
    return nnx.max_pool(x, (3, 3), (stride, stride), ((1, 1), (1, 1)))


class _Statistic(nnx.BatchStat):
    """A BatchStat whose `[...] =` skips flax's sharding check.

    The check asks the new value for its sharding. A traced array raises an error, for
    whose message jax 0.10 searches the program from its beginning: in DenseNet-121, 7
    of the 10 seconds that tracing a training step took.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is ...:
            self.set_value(value)
        else:
            super().__setitem__(key, value)


class _BatchNorm(nnx.BatchNorm):
    """Batch normalization that in training mode may divide its batch into groups.

    Each of the groups, which are equal and contiguous, is normalized by its own mean
    and variance, and the running statistics move towards their averages. Devices that
    hold whole groups need not exchange anything.

    Source: Hoffer et al., https://arxiv.org/abs/1705.08741, 2017, "ghost" batches.
    """

    batch_groups = 1  # set like `use_running_average`, by `nnx.Module.train`
    scale: nnx.Param[jax.Array]
    bias: nnx.Param[jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        if self.use_running_average:
            return super().__call__(x)
        out, *statistics = normalized(
            x, self.scale[...], self.bias[...],
            epsilon=self.epsilon, groups=self.batch_groups,
        )  # fmt: skip
        for running, now in zip((self.mean, self.var), statistics, strict=True):
            running[...] = self.momentum * running[...] + (1 - self.momentum) * now
        return out


def norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Makes a batch normalization that computes in float32 whatever its input.

    Running statistics move by a tenth of the way each step; epsilon is 1e-5. After
    `network.train(batch_groups=g)` a batch is normalized in g groups. The initial
    parameters are constant: scales are one, biases zero.
    """
    # No dtype: in bfloat16 flax would round the running statistics too.
    layer = _BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)
    layer.mean, layer.var = _Statistic(layer.mean[...]), _Statistic(layer.var[...])
    return layer


def dense(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Makes a dense layer, in float32, with so many inputs and outputs."""
    return nnx.Linear(
        inputs, outputs,
        kernel_init=torch_kernel, bias_init=_torch_bias(inputs), rngs=rngs,
    )  # fmt: skip
