"""The paper's CNN for 28 x 28 images: 21,840 parameters."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.layers import conv, dense, standardize
from experiments.models.patches import patch_conv


def _patch_conv(layer: nnx.Conv, x: jax.Array) -> jax.Array:
    assert layer.bias is not None
    return patch_conv(layer.kernel[...], layer.bias[...], x)


def _larger(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the larger of two, the first if they are equal, NaN if either is."""
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def _max_pool(x: jax.Array) -> jax.Array:
    """Computes the maximum over 2 x 2 squares of axes 1 and 2.

    The gradient goes to the first of equal entries, row by row, as in PyTorch.
    `jnp.max` would divide it among them, and on a constant background all are equal.
    """
    a, height, width, b = x.shape
    x = x.reshape(a, height // 2, 2, width // 2, 2, b)
    # Columns before rows: otherwise (1, 0) would come before (0, 1).
    x = _larger(x[:, :, :, :, 0], x[:, :, :, :, 1])
    return _larger(x[:, :, 0], x[:, :, 1])


class SmallCNN(nnx.Module):
    """Two 5x5 convolutions, each with max-pooling and ReLU, and two dense layers.

    The form `"patches"` multiplies matrices of patches of the image, which is fast for
    many models; `"native"` is `lax.conv`, which tracing tools understand. Both have the
    same parameters and values. The other arguments are those of `network.Network`.

    Source: P, appendix, "MNIST and Fashion-MNIST".
    """

    def __init__(
        self, *, classes: int = 10, mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,), form: Literal["patches", "native"] = "patches",
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.mean, self.std, self.form = mean, std, form
        self.conv1 = conv(1, 10, 5, margin=0, use_bias=True, rngs=rngs)
        self.conv2 = conv(10, 20, 5, margin=0, use_bias=True, rngs=rngs)
        self.dense1 = dense(320, 50, rngs)
        self.dense2 = dense(50, classes, rngs)
        # Axes 1 and 2 are space in either form: whole channels are dropped.
        self.channel_dropout = nnx.Dropout(0.5, broadcast_dims=(1, 2))
        self.dropout = nnx.Dropout(0.5)

    def __call__(
        self, x: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Computes logits (batch, classes) of images (batch, 28, 28, 1) in [0, 1].

        In training mode dropout is applied, and needs the key.
        """
        channel_key = dense_key = None
        if dropout_key is not None:
            channel_key, dense_key = jax.random.split(dropout_key)
        x = standardize(x, self.mean, self.std)
        if self.form == "patches":
            x = x.transpose(3, 1, 2, 0)
            x = nnx.relu(_max_pool(_patch_conv(self.conv1, x)))
            x = self.channel_dropout(_patch_conv(self.conv2, x), rngs=channel_key)
            x = nnx.relu(_max_pool(x)).transpose(3, 1, 2, 0)
        else:
            x = nnx.relu(_max_pool(self.conv1(x)))
            x = self.channel_dropout(self.conv2(x), rngs=channel_key)
            x = nnx.relu(_max_pool(x))
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense2(self.dropout(x, rngs=dense_key))
