"""Trains and attacks models on Fashion-MNIST in PyTorch, independently of this project.

It imports none of the project's code: no regularization, weight decay and Absum, at the
paper's strengths, three seeds each. Each model is appended to `fashion_mnist.jsonl`
when it is attacked; those that are there are not trained again.

    pip install torch tensorflow-datasets array-record importlib-resources pillow
    python results/independent/fashion_mnist.py --data-dir ~/tensorflow_datasets
"""

import argparse
import json
import pathlib
import platform
import time

import numpy as np
import tensorflow_datasets as tfds
import torch
from torch import nn
from torch.nn.functional import cross_entropy

ROWS = pathlib.Path(__file__).with_suffix(".jsonl")
STRENGTHS = {"none": 0.0, "weight_decay": 1e-2, "absum": 1e-3}
EPOCHS, BATCH, LEARNING_RATE, MOMENTUM = 100, 64, 0.01, 0.5
FOURIER_EPS = 80 / 255
PGD_EPS, PGD_STEP, PGD_STEPS, PGD_START = 0.1, 0.01, 40, 2 / 255


def load(split: str, data_dir: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Reads images (N, 1, 28, 28) in [0, 1] and their labels (N,)."""
    source = tfds.data_source("fashion_mnist", split=split, data_dir=data_dir)
    images, labels = zip(*((row["image"], row["label"]) for row in source), strict=True)
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return x.contiguous(), torch.tensor(np.array(labels))


def network() -> nn.Sequential:
    """Makes the CNN of two convolutions, with PyTorch's initialization."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10),
    )  # fmt: skip


@torch.no_grad()
def shrink(kernel: torch.Tensor, threshold: float) -> None:
    """Applies the proximal operator of threshold * |sum of a filter| (Lemma 2).

    If |sum| exceeds threshold * taps, each tap moves by the threshold toward a smaller
    sum; otherwise the sum becomes zero. Both move each tap by its clipped mean.
    """
    kernel -= kernel.mean(dim=(2, 3), keepdim=True).clamp(-threshold, threshold)


def train(method: str, seed: int, x: torch.Tensor, y: torch.Tensor) -> nn.Sequential:
    """Trains a model by SGD with momentum."""
    torch.manual_seed(seed)
    model, strength = network(), STRENGTHS[method]
    decay = strength if method == "weight_decay" else 0.0
    groups = [
        {"params": [p], "weight_decay": decay if p.ndim == 4 else 0.0}
        for p in model.parameters()
    ]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
            if method == "absum":
                for kernel in (p for p in model.parameters() if p.ndim == 4):
                    shrink(kernel, LEARNING_RATE * strength)
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Returns the percentage of images that are classified correctly."""
    correct = sum(
        (model(images).argmax(dim=1) == labels).sum().item()
        for images, labels in zip(x.split(1000), y.split(1000), strict=True)
    )
    return 100 * correct / len(y)


def pattern(l: int, m: int, size: int = 28) -> torch.Tensor:
    """Makes the perturbation of equation 6, whose largest value is eps."""
    k = np.arange(size)
    column, row = (np.exp(-2j * np.pi * index * k / size) for index in (l, m))
    wave = (1 + 1j) * np.outer(column, row)
    real = 2 * wave.real  # it and its conjugate
    return torch.from_numpy(
        (FOURIER_EPS / np.abs(real).max() * real).astype(np.float32)
    )


def pgd(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Attacks images by projected gradient descent from a random start."""
    adversarial = x + torch.empty_like(x).uniform_(-PGD_START, PGD_START)
    for _ in range(PGD_STEPS):
        adversarial = adversarial.clamp(0, 1).requires_grad_()
        loss = cross_entropy(model(adversarial), y, reduction="sum")
        [gradient] = torch.autograd.grad(loss, adversarial)
        moved = adversarial.detach() + PGD_STEP * gradient.sign()
        adversarial = x + (moved - x).clamp(-PGD_EPS, PGD_EPS)
    return adversarial.clamp(0, 1).detach()


def attacked(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Measures accuracy on clean images, under all frequencies, and under PGD."""
    under_fourier = [
        accuracy(model, (x + pattern(l, m)).clamp(0, 1), y)
        for l in range(28)
        for m in range(28)
    ]
    parts = zip(x.split(1000), y.split(1000), strict=True)
    under_pgd = torch.cat([pgd(model, *part) for part in parts])
    return {
        "avg": float(np.mean(under_fourier)), "min": min(under_fourier),
        "clean": accuracy(model, x, y), "pgd": accuracy(model, under_pgd, y),
    }  # fmt: skip


def main() -> None:
    """Trains and attacks the models that are missing, a seed of each method in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="folder of data sets that TFDS prepared")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    known = {(row["method"], row["seed"]) for row in map(json.loads, lines)}
    data = [load(split, options.data_dir) for split in ("train", "test")]
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    for method, seed in [(m, s) for s in options.seeds for m in STRENGTHS]:
        if (method, seed) in known:
            continue
        began = time.perf_counter()
        result = attacked(train(method, seed, *data[0]), *data[1])
        row = {"method": method, "strength": STRENGTHS[method], "seed": seed} | result
        row |= {"seconds": round(time.perf_counter() - began)} | versions
        with ROWS.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
