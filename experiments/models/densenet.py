"""The paper's DenseNet-121: 6,956,298 parameters for 10 classes."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from experiments.models.layers import conv, norm
from experiments.models.network import Network

_GROWTH = 32  # channels that a layer adds
_BOTTLENECK = 4 * _GROWTH  # channels from which it computes them
_BLOCKS = (6, 12, 24, 16)  # layers of each block


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
    """A 1x1 and a 3x3 convolution, whose result is put before their input."""

    def __init__(self, inputs: int, dtype: Dtype, rngs: nnx.Rngs):
        self.reduce = _Unit(inputs, _BOTTLENECK, 1, dtype, rngs)
        self.grow = _Unit(_BOTTLENECK, _GROWTH, 3, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([self.grow(self.reduce(x)), x], axis=-1)


class DenseNet121(Network):
    """DenseNet-121 for small images, as pytorch-cifar defines it.

    A 3x3 convolution with 64 channels; four blocks of 6, 12, 24 and 16 layers, each of
    which computes 32 channels, by way of 128, from all those before it in the block;
    between blocks a 1x1 convolution that halves the channels, and 2x2 average-pooling.
    Convolutions have no biases; each but the first is preceded by batch normalization
    and ReLU, as is the global average. At 32 x 32 the blocks have 32 x 32, 16 x 16,
    8 x 8 and 4 x 4 positions; images must have at least 8 x 8.
    """

    def add_convolutions(self, rngs: nnx.Rngs) -> int:
        """Adds the stem, the blocks and what lies between them."""
        channels = 2 * _GROWTH
        self.stem = conv(3, channels, 3, dtype=self.dtype, rngs=rngs)
        blocks, transitions = [], []
        for i, layers in enumerate(_BLOCKS):
            if i > 0:
                transitions.append(_Unit(channels, channels // 2, 1, self.dtype, rngs))
                channels //= 2
            widths = range(channels, channels + layers * _GROWTH, _GROWTH)
            blocks.append(nnx.List([_Layer(n, self.dtype, rngs) for n in widths]))
            channels += layers * _GROWTH
        self.blocks = nnx.List(blocks)
        self.transitions = nnx.List(transitions)
        self.norm = norm(channels, rngs)
        return channels

    def features(self, x: jax.Array) -> jax.Array:
        """Applies the stem and the blocks."""
        x = self.stem(x)
        for i, layers in enumerate(self.blocks):
            if i > 0:
                x = nnx.avg_pool(self.transitions[i - 1](x), (2, 2), (2, 2))
            for layer in layers:
                x = layer(x)
        return nnx.relu(self.norm(x))
