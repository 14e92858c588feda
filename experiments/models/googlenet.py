"""The paper's GoogLeNet: 6,166,250 parameters for 10 classes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from experiments.models.layers import conv, max_pool, norm
from experiments.models.network import Network

_STEM = 192


class _Widths(NamedTuple):
    """Channels inside an inception."""

    one: int  # of the branch of one 1x1 convolution
    reduce3: int  # of the 1x1 convolution before the 3x3 one
    three: int
    reduce5: int  # of the 1x1 convolution before the two 3x3 ones
    five: int
    pooled: int  # of the 1x1 convolution after max-pooling

    @property
    def out(self) -> int:
        """Returns the channels of the four branches together."""
        return self.one + self.three + self.five + self.pooled


# Inceptions 3a and 3b, 4a to 4e, 5a and 5b.
_STAGES = (
    (_Widths(64, 96, 128, 16, 32, 32), _Widths(128, 128, 192, 32, 96, 64)),
    (
        _Widths(192, 96, 208, 16, 48, 64),
        _Widths(160, 112, 224, 24, 64, 64),
        _Widths(128, 128, 256, 24, 64, 64),
        _Widths(112, 144, 288, 32, 64, 64),
        _Widths(256, 160, 320, 32, 128, 128),
    ),
    (_Widths(256, 160, 320, 32, 128, 128), _Widths(384, 192, 384, 48, 128, 128)),
)


class _Unit(nnx.Module):
    """A convolution with a bias, batch normalization, and ReLU."""

    def __init__(
        self, inputs: int, outputs: int, size: int, dtype: Dtype, rngs: nnx.Rngs
    ):
        self.dtype = dtype
        self.conv = conv(inputs, outputs, size, use_bias=True, dtype=dtype, rngs=rngs)
        self.norm = norm(outputs, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.norm(self.conv(x))).astype(self.dtype)


class _Inception(nnx.Module):
    """Four branches side by side."""

    def __init__(self, inputs: int, widths: _Widths, dtype: Dtype, rngs: nnx.Rngs):
        self.one = _Unit(inputs, widths.one, 1, dtype, rngs)
        self.reduce3 = _Unit(inputs, widths.reduce3, 1, dtype, rngs)
        self.three = _Unit(widths.reduce3, widths.three, 3, dtype, rngs)
        self.reduce5 = _Unit(inputs, widths.reduce5, 1, dtype, rngs)
        self.five1 = _Unit(widths.reduce5, widths.five, 3, dtype, rngs)
        self.five2 = _Unit(widths.five, widths.five, 3, dtype, rngs)
        self.pooled = _Unit(inputs, widths.pooled, 1, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        branches = (
            self.one(x),
            self.three(self.reduce3(x)),
            self.five2(self.five1(self.reduce5(x))),
            self.pooled(max_pool(x, 1)),
        )
        return jnp.concatenate(branches, axis=-1)


class GoogLeNet(Network):
    """GoogLeNet for small images, as pytorch-cifar defines it.

    A 3x3 convolution with 192 channels; two, five and two inceptions, with 3x3
    max-pooling of stride 2 between them. The branches of an inception are a 1x1
    convolution; one before a 3x3; one before two 3x3, in place of a 5x5; and 3x3
    max-pooling before a 1x1. Every convolution has a bias and is followed by batch
    normalization and ReLU; there are no auxiliary classifiers and no dropout. At
    32 x 32 the inceptions have 32 x 32, 16 x 16 and 8 x 8 positions.
    """

    def add_convolutions(self, rngs: nnx.Rngs) -> int:
        """Adds the stem and the inceptions."""
        self.stem = _Unit(3, _STEM, 3, self.dtype, rngs)
        channels = _STEM
        stages = []
        for stage in _STAGES:
            inceptions = []
            for widths in stage:
                inceptions.append(_Inception(channels, widths, self.dtype, rngs))
                channels = widths.out
            stages.append(nnx.List(inceptions))
        self.stages = nnx.List(stages)
        return channels

    def features(self, x: jax.Array) -> jax.Array:
        """Applies the stem and the inceptions."""
        x = self.stem(x)
        for i, inceptions in enumerate(self.stages):
            if i > 0:
                x = max_pool(x, 2)
            for inception in inceptions:
                x = inception(x)
        return x
