"""The same CNN in PyTorch, as a user of it would write training and attack."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np


def is_installed() -> bool:
    """Whether PyTorch is there (the extra `bench`)."""
    return importlib.util.find_spec("torch") is not None


def has_foolbox() -> bool:
    """Whether foolbox is there too."""
    return is_installed() and importlib.util.find_spec("foolbox") is not None


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _model() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10),
    ).to(_device())  # fmt: skip


def _synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _channels_first(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.moveaxis(images, -1, 1).copy()).to(_device())


def training_epoch(
    images: np.ndarray, labels: np.ndarray, batch: int, learning_rate: float,
    momentum: float,
) -> Callable[[], None]:  # fmt: skip
    """An epoch of SGD with the images on the device."""
    import torch

    model = _model().train()
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum)
    x = (_channels_first(images).float() / 255 - 0.13) / 0.31
    y = torch.from_numpy(labels.astype(np.int64)).to(_device())

    def run() -> None:
        order = torch.randperm(len(y), device=y.device)
        for part in order.split(batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
        _synchronize()

    return run


def attack(
    x: np.ndarray, y: np.ndarray, patterns: np.ndarray, batch: int
) -> Callable[[], list[Any]]:
    """Accuracy under each pattern, in loops over patterns and batches."""
    import torch

    model = _model().eval()
    images = _channels_first(x)
    labels = torch.from_numpy(y.astype(np.int64)).to(_device())
    noise = torch.from_numpy(patterns).to(_device())

    @torch.inference_mode()
    def run() -> list[Any]:
        accuracies = []
        for pattern in noise:
            correct = torch.zeros((), dtype=torch.int64, device=labels.device)
            for start in range(0, len(labels), batch):
                part = slice(start, start + batch)
                attacked = ((images[part] + pattern).clamp(0, 1) - 0.13) / 0.31
                correct += (model(attacked).argmax(1) == labels[part]).sum()
            accuracies.append(correct)
        _synchronize()
        return [int(correct) for correct in accuracies]

    return run


def _with_params(params: Any) -> Any:
    """The model with the parameters of ours, in evaluation mode."""
    import torch

    model = _model().eval()
    # Ours flattens (4, 4, 20), channels last; PyTorch's (20, 4, 4).
    dense1 = np.asarray(params["dense1"]["kernel"]).reshape(4, 4, 20, -1)
    weights = {
        0: np.asarray(params["conv1"]["kernel"]).transpose(3, 2, 0, 1),
        3: np.asarray(params["conv2"]["kernel"]).transpose(3, 2, 0, 1),
        8: dense1.transpose(3, 2, 0, 1).reshape(dense1.shape[-1], -1),
        11: np.asarray(params["dense2"]["kernel"]).T,
    }
    names = {0: "conv1", 3: "conv2", 8: "dense1", 11: "dense2"}
    state = {}
    for index, weight in weights.items():
        bias = np.asarray(params[names[index]]["bias"])
        state[f"{index}.weight"] = torch.from_numpy(weight.copy())
        state[f"{index}.bias"] = torch.from_numpy(bias.copy())
    model.load_state_dict(state)
    return model


def pgd(
    params: Any, mean: tuple[float, ...], std: tuple[float, ...], x: np.ndarray,
    y: np.ndarray, eps: float, step_size: float, steps: int, batch: int,
) -> Callable[[], float]:  # fmt: skip
    """Accuracy under foolbox's PGD, in a loop over batches."""
    import foolbox
    import torch

    model = _with_params(params)
    normalised = {"mean": list(mean), "std": list(std), "axis": -3}
    fmodel = foolbox.PyTorchModel(
        model, bounds=(0, 1), device=_device(), preprocessing=normalised
    )
    attack = foolbox.attacks.LinfPGD(
        abs_stepsize=step_size, steps=steps, random_start=True
    )
    images = _channels_first(x)
    labels = torch.from_numpy(y.astype(np.int64)).to(_device())

    def run() -> float:
        correct = 0
        for part in torch.arange(len(labels), device=labels.device).split(batch):
            _, attacked, _ = attack(fmodel, images[part], labels[part], epsilons=eps)
            answers = fmodel(attacked).argmax(1)
            correct += int((answers == labels[part]).sum())
        _synchronize()
        return correct / len(labels)

    return run
