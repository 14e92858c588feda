"""A tiny network in place of the small CNN, for tests to which networks are alike."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

from flax import nnx

from experiments import models
from experiments.models.layers import conv, dense, standardize
from experiments.models.patches import patch_conv


class Tiny(nnx.Module):
    """A 4 x 4 convolution of every fourth pixel, and a dense layer.

    Its forms and arguments are those of `SmallCNN`.
    """

    def __init__(
        self, *, classes=10, mean=(0.0,), std=(1.0,), form="patches", rngs: nnx.Rngs
    ):
        self.mean, self.std, self.form = mean, std, form
        self.conv1 = conv(1, 2, 4, margin=0, use_bias=True, rngs=rngs)
        self.dense2 = dense(4 * 4 * 2, classes, rngs)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, *, dropout_key=None):
        x = standardize(x[:, ::4, ::4], self.mean, self.std)
        if self.form == "native":
            x = self.conv1(x)
        else:
            kernel, bias = self.conv1.kernel[...], self.conv1.bias[...]
            x = patch_conv(kernel, bias, x.transpose(3, 1, 2, 0)).transpose(3, 1, 2, 0)
        # Four times as large, so that models that are hardly trained differ.
        x = nnx.relu(4 * x).reshape(len(x), -1)
        return self.dense2(self.dropout(x, rngs=dropout_key))


@contextlib.contextmanager
def changed_architecture(name: str, **fields: Any) -> Iterator[None]:
    """Changes the architecture with a name."""
    architecture = dataclasses.replace(models.ARCHITECTURES[name], **fields)
    with mock.patch.dict(models.ARCHITECTURES, {name: architecture}):
        # What was built before is of the other one.
        models.build.cache_clear()
        try:
            yield
        finally:
            models.build.cache_clear()


def in_place_of_small_cnn() -> Any:
    """Replaces the small CNN by the tiny network, under its name.

    It is a context, and decorates tests.
    """
    native = functools.partial(Tiny, form="native")
    return changed_architecture("small_cnn", create=Tiny, create_native=native)
