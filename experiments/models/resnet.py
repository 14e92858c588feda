"""The paper's ResNet-18: 11,173,962 parameters for 10 classes."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from experiments.models.layers import conv, dense, norm
from experiments.models.standardize import standardize

# (channels, stride of the first block) of the four stages, two blocks each.
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


class _Block(nnx.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, dtype: Dtype,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype = dtype
        self.conv1 = conv(in_channels, channels, 3, stride, dtype=dtype, rngs=rngs)
        self.norm1 = norm(channels, rngs)
        self.conv2 = conv(channels, channels, 3, dtype=dtype, rngs=rngs)
        self.norm2 = norm(channels, rngs)
        self.has_projection = in_channels != channels or stride != 1
        if self.has_projection:
            self.shortcut = conv(
                in_channels, channels, 1, stride, dtype=dtype, rngs=rngs
            )
            self.shortcut_norm = norm(channels, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        inside = nnx.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(inside))
        shortcut = self.shortcut_norm(self.shortcut(x)) if self.has_projection else x
        return nnx.relu(out + shortcut).astype(self.dtype)


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
        self.mean, self.std, self.dtype = mean, std, dtype
        channels = _STAGES[0][0]
        self.stem = conv(3, channels, 3, dtype=dtype, rngs=rngs)
        self.stem_norm = norm(channels, rngs)
        blocks = []
        for width, stride in _STAGES:
            blocks.append(_Block(channels, width, stride, dtype, rngs))
            blocks.append(_Block(width, width, 1, dtype, rngs))
            channels = width
        self.blocks = nnx.List(blocks)
        self.dense = dense(channels, classes, rngs)

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
