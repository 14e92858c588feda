"""The form that the paper's networks for RGB images have in common."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from experiments.models.layers import dense, standardize


class Network(nnx.Module):
    """Convolutions, the global average and a dense layer, on images in [0, 1].

    Subclasses define the convolutions. Images of other sizes than a subclass names work
    too: pytorch-cifar averages over a fixed square, which is the global average at
    32 x 32 alone. Batch normalization is `layers.norm`; unlike in PyTorch, the running
    variance is of batch variances over N, not over N - 1.

    `mean` and `std` of each channel standardize the images. `dtype` is that of
    convolutions and activations; parameters, statistics, normalization and the dense
    layer are float32 throughout. Initial parameters are PyTorch's
    U(-1/sqrt(fan_in), 1/sqrt(fan_in)) unless a subclass names another distribution.

    Source: P, appendix, "CIFAR10, CIFAR100, SVHN, and ImageNet", and
    https://github.com/kuangliu/pytorch-cifar, which it names.
    """

    def __init__(
        self, *, classes: int = 10, mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0), dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.mean, self.std, self.dtype = mean, std, dtype
        self.dense = dense(self.add_convolutions(rngs), classes, rngs)

    def add_convolutions(self, rngs: nnx.Rngs) -> int:
        """Adds the layers that `features` applies, and returns its channels."""
        raise NotImplementedError

    def features(self, x: jax.Array) -> jax.Array:
        """Computes features (batch, h', w', channels) of standardized images."""
        raise NotImplementedError

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes logits (batch, classes), float32, of images (batch, h, w, 3).

        In training mode batches are normalized by their own statistics, and the running
        statistics are updated; in evaluation mode (`nnx.view(model,
        use_running_average=True)` or `model.eval()`) by the running statistics.
        """
        x = self.features(standardize(x, self.mean, self.std))
        return self.dense(x.astype(jnp.float32).mean(axis=(1, 2)))
