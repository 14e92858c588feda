"""The paper's ResNet-18s.

11,173,962 parameters for 10 classes of small images, 11,689,512 for 1000 of ImageNet's.
With an eighth of the channels, 176,402 for 10 classes of small images.
"""

from typing import Any

import jax
from flax import nnx
from flax.typing import Dtype

from experiments.models.layers import (
    conv,
    max_pool,
    norm,
    torch_kernel,
    torchvision_kernel,
)
from experiments.models.network import Network

# (channels, stride of the first block) of the four stages, two blocks each.
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


class _Block(nnx.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, dtype: Dtype,
        rngs: nnx.Rngs, kernel_init: nnx.Initializer = torch_kernel,
    ):  # fmt: skip
        how: dict[str, Any] = {"dtype": dtype, "kernel_init": kernel_init, "rngs": rngs}
        self.dtype = dtype
        self.conv1 = conv(in_channels, channels, 3, stride, **how)
        self.norm1 = norm(channels, rngs)
        self.conv2 = conv(channels, channels, 3, **how)
        self.norm2 = norm(channels, rngs)
        self.has_projection = in_channels != channels or stride != 1
        if self.has_projection:
            self.shortcut = conv(in_channels, channels, 1, stride, **how)
            self.shortcut_norm = norm(channels, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        inside = nnx.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(inside))
        shortcut = self.shortcut_norm(self.shortcut(x)) if self.has_projection else x
        return nnx.relu(out + shortcut).astype(self.dtype)


class ResNet18(Network):
    """ResNet-18 for small images, as pytorch-cifar defines it.

    A 3x3 convolution with 64 channels and no max-pooling; four stages of two basic
    blocks with 64, 128, 256 and 512 channels, whose first blocks have strides 1, 2, 2
    and 2 and, where they change the shape, a 1x1 convolution as their shortcut.
    Convolutions have no biases; each is followed by batch normalization. At 32 x 32 the
    stages have 32 x 32, 16 x 16, 8 x 8 and 4 x 4 positions.

    Beyond the paper, a `divisor` of 64 divides all numbers of channels.
    """

    _kernel_init = staticmethod(torch_kernel)
    _stem_size, _stem_stride = 3, 1
    _pools = False  # after the stem

    def __init__(self, *, divisor: int = 1, **options: Any):
        channels, _ = _STAGES[0]
        if divisor < 1 or channels % divisor:
            raise ValueError(f"divisor must divide {channels}, got {divisor}.")
        self.divisor = divisor
        super().__init__(**options)

    def add_convolutions(self, rngs: nnx.Rngs) -> int:
        """Adds the stem and the blocks."""
        init = self._kernel_init
        channels = _STAGES[0][0] // self.divisor
        self.stem = conv(
            3, channels, self._stem_size, self._stem_stride,
            dtype=self.dtype, kernel_init=init, rngs=rngs,
        )  # fmt: skip
        self.stem_norm = norm(channels, rngs)
        blocks = []
        for full, stride in _STAGES:
            width = full // self.divisor
            blocks.append(_Block(channels, width, stride, self.dtype, rngs, init))
            blocks.append(_Block(width, width, 1, self.dtype, rngs, init))
            channels = width
        self.blocks = nnx.List(blocks)
        return channels

    def features(self, x: jax.Array) -> jax.Array:
        """Applies the stem and the blocks."""
        x = nnx.relu(self.stem_norm(self.stem(x))).astype(self.dtype)
        if self._pools:
            x = max_pool(x, 2)
        for block in self.blocks:
            x = block(x)
        return x


class ImageNetResNet18(ResNet18):
    """ResNet-18 for images of 224 x 224, as torchvision defines it.

    A 7x7 convolution with 64 channels and stride 2, and max-pooling over 3 x 3 squares
    with stride 2; then the blocks of `ResNet18`. At 224 x 224 the convolutions have
    112 x 112, 56 x 56, 28 x 28, 14 x 14 and 7 x 7 positions. Kernels of convolutions
    begin as N(0, 2/fan_out).

    Source: P, "Experimental Conditions", and PyTorch's example of ImageNet training,
    which P, appendix, names; He et al., https://arxiv.org/abs/1512.03385, 2015.
    """

    _kernel_init = staticmethod(torchvision_kernel)
    _stem_size, _stem_stride = 7, 2
    _pools = True

    def __init__(self, *, classes: int = 1000, **options: Any):
        super().__init__(classes=classes, **options)
