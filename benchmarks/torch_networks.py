"""The networks in PyTorch: pytorch-cifar's and torchvision's, and PyTorch's small CNN.

GoogLeNet and DenseNet-121 have our names of layers.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from experiments.models import Variables, pytorch


def with_weights(network: nn.Module, variables: Variables) -> nn.Module:
    """Returns one of these networks with the weights of ours."""
    tensors = pytorch.to_pytorch(variables, getattr(network, "layout", None))
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    if unexpected or not all(name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"`network` lacks {unexpected}, `variables` lack {missing}.")
    return network


class Counted(nn.Module):
    """A network with its standardization, which counts the images that pass it."""

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.forward_passes = self.backward_passes = 0

    def forward(self, x: Any) -> Any:
        self.forward_passes += len(x)
        logits = self.network((x - self.mean) / self.std)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Any) -> None:
        self.backward_passes += len(gradient)


class SmallCNN(nn.Module):
    """The CNN of an earlier PyTorch example for MNIST, without its `log_softmax`.

    21,840 parameters.
    """

    layout = "pytorch-examples"

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.channel_dropout = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.dropout = nn.Dropout()
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x: Any) -> Any:
        x = functional.max_pool2d(self.conv1(x), 2).relu()
        x = functional.max_pool2d(self.channel_dropout(self.conv2(x)), 2).relu()
        return self.fc2(self.dropout(self.fc1(x.flatten(1)).relu()))


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which has a name of its own."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        projection = nn.Sequential()
        if stride != 1:
            projection.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            projection.append(nn.BatchNorm2d(outputs))
        self.add_module(shortcut, projection)
        self.name_of_shortcut = shortcut

    def forward(self, x: Any) -> Any:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (out + getattr(self, self.name_of_shortcut)(x)).relu()


def _add_stages(network: nn.Module, shortcut: str) -> None:
    """Adds the four stages of two blocks each."""
    widths = (64, 64, 128, 256, 512)
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
        stride = 2 if inputs != outputs else 1
        first = _ResidualBlock(inputs, outputs, stride, shortcut)
        second = _ResidualBlock(outputs, outputs, 1, shortcut)
        network.add_module(f"layer{i}", nn.Sequential(first, second))


class ResNet18(nn.Module):
    """11,173,962 parameters."""

    layout = "pytorch-cifar"

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        _add_stages(self, "shortcut")
        self.linear = nn.Linear(512, 10)

    def forward(self, x: Any) -> Any:
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(x.mean((2, 3)))


class ImageNetResNet18(nn.Module):
    """11,689,512 parameters."""

    layout = "torchvision"

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        _add_stages(self, "downsample")
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Any) -> Any:
        x = self.bn1(self.conv1(x)).relu()
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


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
