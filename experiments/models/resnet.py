"""The paper's ResNet-18s.

11,173,962 parameters for 10 classes of small images, 11,689,512 for 1000 of ImageNet's.
With an eighth of the channels, 176,402 for 10 classes of small images.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from experiments.models.initializers import torch_kernel, torchvision_kernel
from experiments.models.layers import conv, dense, max_pool, norm
from experiments.models.standardize import standardize

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


def _blocks(
    dtype: Dtype, rngs: nnx.Rngs, kernel_init: nnx.Initializer = torch_kernel,
    divisor: int = 1,
) -> nnx.List:  # fmt: skip
    """The blocks of all stages, whose channels are divided by `divisor`."""
    blocks = []
    channels = _STAGES[0][0] // divisor
    for full, stride in _STAGES:
        width = full // divisor
        blocks.append(_Block(channels, width, stride, dtype, rngs, kernel_init))
        blocks.append(_Block(width, width, 1, dtype, rngs, kernel_init))
        channels = width
    return nnx.List(blocks)


class ResNet18(nnx.Module):
    """ResNet-18 for small images, as pytorch-cifar defines it.

    A 3x3 convolution with 64 channels and no max-pooling; four stages of two basic
    blocks with 64, 128, 256 and 512 channels, whose first blocks have strides 1, 2, 2
    and 2 and, where they change the shape, a 1x1 convolution as their shortcut; the
    global average and a dense layer. Convolutions have no biases; each is followed by
    batch normalization (running statistics move by a tenth of the way each step,
    epsilon 1e-5). Unlike in PyTorch, the running variance is of batch variances over N,
    not over N - 1.

    At 32 x 32 the stages have 32 x 32, 16 x 16, 8 x 8 and 4 x 4 positions. Larger
    images of any size work too.

    Args:
      classes: how many classes there are.
      mean: per-channel mean of the images, subtracted from them.
      std: per-channel standard deviation, which they are divided by.
      dtype: what convolutions compute in and activations are kept in, such as
        `jnp.bfloat16`. Parameters, statistics, normalization and the dense layer are
        float32 throughout.
      divisor: what all numbers of channels are divided by: beyond the paper, a narrower
        network with the same layers. It must divide 64.
      rngs: of the initial parameters, PyTorch's U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Raises:
      ValueError: if `divisor` does not divide 64.

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
        divisor: int = 1,
        rngs: nnx.Rngs,
    ):
        channels, last = _STAGES[0][0], _STAGES[-1][0]
        if divisor < 1 or channels % divisor:
            raise ValueError(f"divisor must divide {channels}, got {divisor}.")
        self.mean, self.std, self.dtype = mean, std, dtype
        channels //= divisor
        self.stem = conv(3, channels, 3, dtype=dtype, rngs=rngs)
        self.stem_norm = norm(channels, rngs)
        self.blocks = _blocks(dtype, rngs, divisor=divisor)
        self.dense = dense(last // divisor, classes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (batch, classes), float32, of images (batch, h, w, 3) in [0, 1].

        In training mode batches are normalized by themselves, and the running
        statistics are moved; in evaluation mode (`nnx.view(model,
        use_running_average=True)` or `model.eval()`) by the running statistics.
        """
        x = standardize(x, self.mean, self.std)
        x = nnx.relu(self.stem_norm(self.stem(x))).astype(self.dtype)
        for block in self.blocks:
            x = block(x)
        return self.dense(x.astype(jnp.float32).mean(axis=(1, 2)))


class ImageNetResNet18(nnx.Module):
    """ResNet-18 for images of 224 x 224, as torchvision defines it.

    A 7x7 convolution with 64 channels and stride 2, and max-pooling over 3 x 3 squares
    with stride 2; then the blocks, the average and the dense layer of `ResNet18`, with
    its batch normalization.

    At 224 x 224 the convolutions have 112 x 112, 56 x 56, 28 x 28, 14 x 14 and 7 x 7
    positions. Images of other sizes work too.

    Args:
      classes: how many classes there are.
      mean: per-channel mean of the images, subtracted from them.
      std: per-channel standard deviation, which they are divided by.
      dtype: as in `ResNet18`.
      rngs: of the initial parameters: kernels of convolutions N(0, 2/fan_out), the
        dense layer U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Source: P, "Experimental Conditions", and PyTorch's example of ImageNet training,
    which P, appendix, names; He et al., https://arxiv.org/abs/1512.03385, 2015.
    """

    def __init__(
        self,
        *,
        classes: int = 1000,
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
        dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.mean, self.std, self.dtype = mean, std, dtype
        channels = _STAGES[0][0]
        self.stem = conv(
            3, channels, 7, 2, dtype=dtype, kernel_init=torchvision_kernel, rngs=rngs
        )
        self.stem_norm = norm(channels, rngs)
        self.blocks = _blocks(dtype, rngs, torchvision_kernel)
        self.dense = dense(_STAGES[-1][0], classes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (batch, classes), as those of `ResNet18`."""
        x = standardize(x, self.mean, self.std)
        x = nnx.relu(self.stem_norm(self.stem(x))).astype(self.dtype)
        x = max_pool(x, 2)
        for block in self.blocks:
            x = block(x)
        return self.dense(x.astype(jnp.float32).mean(axis=(1, 2)))
