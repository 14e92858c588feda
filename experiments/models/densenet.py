"""The paper's DenseNet-121: 6,956,298 parameters for 10 classes."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from experiments.models.layers import conv, dense, norm
from experiments.models.standardize import standardize

# How many channels each layer adds, how many it computes them from, and the layers of
# the four blocks.
_GROWTH = 32
_BOTTLENECK = 4 * _GROWTH
_BLOCKS = (6, 12, 24, 16)


class _Unit(nnx.Module):
    """Batch normalization, ReLU, and a convolution without bias."""

    def __init__(
        self, inputs: int, outputs: int, size: int, dtype: Dtype, rngs: nnx.Rngs
    ):
        self.dtype = dtype
        self.norm = norm(inputs, rngs)
        self.conv = conv(inputs, outputs, size, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(nnx.relu(self.norm(x)).astype(self.dtype))


class _Layer(nnx.Module):
    """A 1x1 and a 3x3 convolution, whose result goes before what they see."""

    def __init__(self, inputs: int, dtype: Dtype, rngs: nnx.Rngs):
        self.reduce = _Unit(inputs, _BOTTLENECK, 1, dtype, rngs)
        self.grow = _Unit(_BOTTLENECK, _GROWTH, 3, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([self.grow(self.reduce(x)), x], axis=-1)


class DenseNet121(nnx.Module):
    """DenseNet-121 for small images, as pytorch-cifar defines it.

    A 3x3 convolution with 64 channels; four blocks of 6, 12, 24 and 16 layers, each of
    which computes 32 channels, by way of 128, from all those before it in the block;
    between blocks a 1x1 convolution that halves the channels, and 2x2 average-pooling;
    the global average and a dense layer. Convolutions have no biases; each but the
    first is preceded by batch normalization (`layers.norm`) and ReLU, as is the global
    average. Unlike in PyTorch, the running variance is of batch variances over N, not
    over N - 1.

    At 32 x 32 the blocks have 32 x 32, 16 x 16, 8 x 8 and 4 x 4 positions. Images of
    other sizes from 8 x 8 on work too; pytorch-cifar averages over 4 x 4 positions,
    which is the global average at 32 x 32 alone.

    Args:
      classes: how many classes there are.
      mean: per-channel mean of the images, subtracted from them.
      std: per-channel standard deviation, which they are divided by.
      dtype: what convolutions compute in and activations are kept in, such as
        `jnp.bfloat16`. Parameters, statistics, normalization and the dense layer are
        float32 throughout.
      rngs: of the initial parameters, PyTorch's U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Source: P, appendix, "CIFAR10, CIFAR100, SVHN, and ImageNet", and
    https://github.com/kuangliu/pytorch-cifar, which it names.
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
        dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.mean, self.std = mean, std
        channels = 2 * _GROWTH
        self.stem = conv(3, channels, 3, dtype=dtype, rngs=rngs)
        blocks, transitions = [], []
        for i, layers in enumerate(_BLOCKS):
            if i > 0:
                transitions.append(_Unit(channels, channels // 2, 1, dtype, rngs))
                channels //= 2
            widths = range(channels, channels + layers * _GROWTH, _GROWTH)
            blocks.append(nnx.List([_Layer(width, dtype, rngs) for width in widths]))
            channels += layers * _GROWTH
        self.blocks = nnx.List(blocks)
        self.transitions = nnx.List(transitions)
        self.norm = norm(channels, rngs)
        self.dense = dense(channels, classes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (batch, classes), float32, of images (batch, h, w, 3) in [0, 1].

        In training mode batches are normalized by themselves, and the running
        statistics are moved; in evaluation mode (`nnx.view(model,
        use_running_average=True)` or `model.eval()`) by the running statistics.
        """
        x = self.stem(standardize(x, self.mean, self.std))
        for i, layers in enumerate(self.blocks):
            if i > 0:
                x = nnx.avg_pool(self.transitions[i - 1](x), (2, 2), (2, 2))
            for layer in layers:
                x = layer(x)
        return self.dense(nnx.relu(self.norm(x)).mean(axis=(1, 2)))
