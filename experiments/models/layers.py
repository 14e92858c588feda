"""Layers of the networks, initialised as PyTorch initialises them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from experiments.models.batch_norm import normalized
from experiments.models.initializers import torch_bias, torch_kernel


def conv(
    inputs: int,
    outputs: int,
    size: int,
    stride: int = 1,
    *,
    margin: int | None = None,
    use_bias: bool = False,
    dtype: Dtype = jnp.float32,
    kernel_init: nnx.Initializer = torch_kernel,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution with PyTorch's padding, the same on all sides.

    Args:
      inputs: how many channels come in.
      outputs: how many channels go out.
      size: height and width of the kernel.
      stride: between positions, both ways.
      margin: zeros on each side; None is size // 2, which at stride 1 keeps the size of
        the image. At stride 2, flax's "SAME" would pad one side alone.
      use_bias: whether there is one.
      dtype: what it computes in; its parameters are float32.
      kernel_init: of its kernel.
      rngs: of the initial parameters.
    """
    margin = size // 2 if margin is None else margin
    return nnx.Conv(
        inputs, outputs, (size, size), strides=(stride, stride),
        padding=((margin, margin), (margin, margin)), use_bias=use_bias, dtype=dtype,
        kernel_init=kernel_init, bias_init=torch_bias(size * size * inputs), rngs=rngs,
    )  # fmt: skip


def max_pool(x: jax.Array, stride: int) -> jax.Array:
    """Maximum over 3 x 3 squares around each position, or around every other one."""
    return nnx.max_pool(x, (3, 3), (stride, stride), ((1, 1), (1, 1)))


class _Statistic(nnx.BatchStat):
    """A running statistic that is replaced without a question.

    flax asks what replaces a whole value for its sharding. A traced array answers with
    an error, for whose message jax 0.10 searches the program from its beginning: in
    DenseNet-121, 7 of the 10 seconds that tracing a training step took.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is ...:
            self.set_value(value)
        else:
            super().__setitem__(key, value)


class _BatchNorm(nnx.BatchNorm):
    """Batch normalization that in training mode may divide its batch.

    Of several groups, which are equal and contiguous parts of the batch, each is
    normalized by its own mean and variance, and the running statistics move towards the
    means of theirs. Where no group lies on two devices, none waits for another.

    Source: Hoffer et al., https://arxiv.org/abs/1705.08741, 2017, "ghost" batches.
    """

    batch_groups = 1  # set as `use_running_average` is, by `nnx.Module.train`
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
    """Batch normalization, in float32 whatever comes in.

    Running statistics move by a tenth of the way each step; epsilon is 1e-5. After
    `network.train(batch_groups=g)` a batch is normalized in g groups.

    Args:
      channels: how many there are.
      rngs: of the parameters, which draw nothing: scales are one, biases zero.
    """
    # No dtype: in bfloat16 flax would round the running statistics too.
    layer = _BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)
    layer.mean, layer.var = _Statistic(layer.mean[...]), _Statistic(layer.var[...])
    return layer


def dense(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer, in float32.

    Args:
      inputs: how many values come in.
      outputs: how many values go out.
      rngs: of the initial parameters.
    """
    return nnx.Linear(
        inputs, outputs,
        kernel_init=torch_kernel, bias_init=torch_bias(inputs), rngs=rngs,
    )  # fmt: skip
