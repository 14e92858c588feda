"""The networks in PyTorch, as pytorch-cifar defines them, with our names of layers.

ResNet-18 for images of 224 x 224 as torchvision defines it.
"""

import itertools
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from torch import nn
from torch.nn import functional

from absum_jax.kernels import leaf_name

_NAMES = {"mean": "running_mean", "var": "running_var", "scale": "weight"}


def with_weights(network: nn.Module, model: nnx.Module) -> nn.Module:
    """Returns one of these networks with the weights of the flax network it mirrors."""
    weights = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(model)):
        *modules, name = leaf_name(path).split("/")
        values = np.asarray(leaf)
        if name == "kernel":
            name = "weight"
            values = values.transpose((3, 2, 0, 1) if values.ndim == 4 else (1, 0))
        weights[".".join([*modules, _NAMES.get(name, name)])] = torch.tensor(values)
    missing, unexpected = network.load_state_dict(weights, strict=False)
    if unexpected or not all(name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"`network` lacks {unexpected}, `model` lacks {missing}.")
    return network


class _ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        if stride != 1:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Any) -> Any:
        out = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        if hasattr(self, "shortcut"):
            x = self.shortcut_norm(self.shortcut(x))
        return (out + x).relu()


def _residual_blocks() -> nn.ModuleList:
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    return nn.ModuleList(
        _ResidualBlock(a, b, 2 if a != b else 1) for a, b in itertools.pairwise(widths)
    )


class ResNet18(nn.Module):
    """11,173,962 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(64)
        self.blocks = _residual_blocks()
        self.dense = nn.Linear(512, 10)

    def forward(self, x: Any) -> Any:
        x = self.stem_norm(self.stem(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((2, 3)))


class ImageNetResNet18(nn.Module):
    """11,689,512 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.stem_norm = nn.BatchNorm2d(64)
        self.blocks = _residual_blocks()
        self.dense = nn.Linear(512, 1000)

    def forward(self, x: Any) -> Any:
        x = self.stem_norm(self.stem(x)).relu()
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((2, 3)))


class _ConvNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Any) -> Any:
        return self.norm(self.conv(x)).relu()


class _Inception(nn.Module):
    def __init__(
        self,
        inputs: int,
        one: int,
        reduce3: int,
        three: int,
        reduce5: int,
        five: int,
        pooled: int,
    ) -> None:
        super().__init__()
        self.one = _ConvNorm(inputs, one, 1)
        self.reduce3 = _ConvNorm(inputs, reduce3, 1)
        self.three = _ConvNorm(reduce3, three, 3)
        self.reduce5 = _ConvNorm(inputs, reduce5, 1)
        self.five1 = _ConvNorm(reduce5, five, 3)
        self.five2 = _ConvNorm(five, five, 3)
        self.pooled = _ConvNorm(inputs, pooled, 1)

    def forward(self, x: Any) -> Any:
        branches = [
            self.one(x),
            self.three(self.reduce3(x)),
            self.five2(self.five1(self.reduce5(x))),
            self.pooled(functional.max_pool2d(x, 3, stride=1, padding=1)),
        ]
        return torch.cat(branches, 1)


class GoogLeNet(nn.Module):
    """6,166,250 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _ConvNorm(3, 192, 3)
        stages = [
            [
                _Inception(192, 64, 96, 128, 16, 32, 32),
                _Inception(256, 128, 128, 192, 32, 96, 64),
            ],
            [
                _Inception(480, 192, 96, 208, 16, 48, 64),
                _Inception(512, 160, 112, 224, 24, 64, 64),
                _Inception(512, 128, 128, 256, 24, 64, 64),
                _Inception(512, 112, 144, 288, 32, 64, 64),
                _Inception(528, 256, 160, 320, 32, 128, 128),
            ],
            [
                _Inception(832, 256, 160, 320, 32, 128, 128),
                _Inception(832, 384, 192, 384, 48, 128, 128),
            ],
        ]
        self.stages = nn.ModuleList(nn.ModuleList(stage) for stage in stages)
        self.dense = nn.Linear(1024, 10)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            if i > 0:
                x = functional.max_pool2d(x, 3, stride=2, padding=1)
            for inception in stage:
                x = inception(x)
        return self.dense(functional.avg_pool2d(x, 8, stride=1).flatten(1))


class _NormConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)

    def forward(self, x: Any) -> Any:
        return self.conv(self.norm(x).relu())


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.reduce = _NormConv(inputs, 128, 1)
        self.grow = _NormConv(128, 32, 3)

    def forward(self, x: Any) -> Any:
        return torch.cat([self.grow(self.reduce(x)), x], 1)


class DenseNet121(nn.Module):
    """6,956,298 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        # Each block begins with half of what the one before it ends with.
        blocks = [(64, 6), (128, 12), (256, 24), (512, 16)]
        self.blocks = nn.ModuleList(
            nn.ModuleList(_DenseLayer(inputs + 32 * i) for i in range(layers))
            for inputs, layers in blocks
        )
        self.transitions = nn.ModuleList(
            _NormConv(2 * outputs, outputs, 1) for outputs in (128, 256, 512)
        )
        self.norm = nn.BatchNorm2d(1024)
        self.dense = nn.Linear(1024, 10)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            if i > 0:
                x = functional.avg_pool2d(self.transitions[i - 1](x), 2)
            for layer in block:
                x = layer(x)
        x = functional.avg_pool2d(self.norm(x).relu(), 4)
        return self.dense(x.flatten(1))
