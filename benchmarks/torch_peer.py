"""The same networks in PyTorch, as its users would write training and attack."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.models import Variables


def is_installed() -> bool:
    """Whether PyTorch is there (the extra `bench`)."""
    return importlib.util.find_spec("torch") is not None


def has_foolbox() -> bool:
    """Whether foolbox is there too."""
    return is_installed() and importlib.util.find_spec("foolbox") is not None


def has_pyautoattack() -> bool:
    """Whether pyautoattack is there too."""
    return is_installed() and importlib.util.find_spec("pyautoattack") is not None


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _model() -> Any:
    from benchmarks.torch_networks import SmallCNN

    return SmallCNN().to(_device())


def _synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _channels_first(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.moveaxis(images, -1, 1).copy()).to(_device())


def _epoch(
    model: Any, optimizer: Any, x: Any, y: Any, batch: int, mixed: bool = False
) -> Callable[[], None]:
    """An epoch of training with the images on the device."""
    import torch

    def run() -> None:
        order = torch.randperm(len(y), device=y.device)
        for part in order.split(batch):
            optimizer.zero_grad()
            with torch.autocast(_device(), torch.bfloat16, enabled=mixed):
                loss = torch.nn.functional.cross_entropy(model(x[part]), y[part])
            loss.backward()
            optimizer.step()
        _synchronize()

    return run


def training_epoch(
    images: np.ndarray, labels: np.ndarray, batch: int, learning_rate: float,
    momentum: float,
) -> Callable[[], None]:  # fmt: skip
    """An epoch of SGD on the small CNN."""
    import torch

    model = _model().train()
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum)
    x = (_channels_first(images).float() / 255 - 0.13) / 0.31
    return _epoch(model, optimizer, x, _labels(labels), batch)


def _labels(labels: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(labels.astype(np.int64)).to(_device())


def _resnet(*, training: bool) -> Any:
    """ResNet-18, channels last, compiled on an accelerator."""
    import torch

    from benchmarks.torch_networks import ResNet18

    model = ResNet18().to(_device(), memory_format=torch.channels_last).train(training)
    return model if _device() == "cpu" else torch.compile(model)


def resnet_epoch(
    images: np.ndarray, labels: np.ndarray, batch: int, learning_rate: float,
    momentum: float,
) -> Callable[[], None]:  # fmt: skip
    """An epoch of SGD on ResNet-18, without augmentation; mixed on an accelerator."""
    import torch

    model = _resnet(training=True)
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum)
    x = ((_channels_first(images).float() / 255) - 0.47) / 0.25
    x = x.contiguous(memory_format=torch.channels_last)
    mixed = _device() != "cpu"
    return _epoch(model, optimizer, x, _labels(labels), batch, mixed)


def resnet_passes(
    images: np.ndarray, labels: np.ndarray
) -> dict[str, Callable[[], Any]]:
    """Forward pass and gradient of the input of ResNet-18, in evaluation mode."""
    import torch

    model = _resnet(training=False).requires_grad_(False)
    x, y = _channels_first(images), _labels(labels)
    x = x.contiguous(memory_format=torch.channels_last)

    def mixed() -> Any:
        return torch.autocast(_device(), torch.bfloat16, enabled=_device() != "cpu")

    @torch.inference_mode()
    def forward() -> None:
        with mixed():
            model(x)
        _synchronize()

    def gradient() -> None:
        attacked = x.clone().requires_grad_()
        with mixed():
            logits = model(attacked)
            loss = torch.nn.functional.cross_entropy(logits, y, reduction="sum")
        torch.autograd.grad(loss, attacked)
        _synchronize()

    return {"forward": forward, "input gradient": gradient}


def _under_attack(
    model: Callable[[Any], Any], x: np.ndarray, y: np.ndarray, patterns: np.ndarray,
    batch: int, mixed: bool = False,
) -> Callable[[], list[int]]:  # fmt: skip
    """Accuracy under each pattern (h, w), in loops over patterns and batches."""
    import torch

    images, labels = _channels_first(x), _labels(y)
    noise = torch.from_numpy(np.asarray(patterns, np.float32)).to(_device())

    @torch.inference_mode()
    def run() -> list[int]:
        counts = []
        for pattern in noise:
            correct = torch.zeros((), dtype=torch.int64, device=labels.device)
            for start in range(0, len(labels), batch):
                part = slice(start, start + batch)
                attacked = (images[part] + pattern).clamp(0, 1)
                with torch.autocast(_device(), torch.bfloat16, enabled=mixed):
                    answers = model(attacked).argmax(1)
                correct += (answers == labels[part]).sum()
            counts.append(correct)
        _synchronize()
        return [int(correct) for correct in counts]

    return run


def attack(
    x: np.ndarray, y: np.ndarray, patterns: np.ndarray, batch: int
) -> Callable[[], list[int]]:
    """The Single Fourier Attack on the small CNN."""
    model = _model().eval()
    return _under_attack(lambda x: model((x - 0.13) / 0.31), x, y, patterns, batch)


def resnet_attack(
    x: np.ndarray, y: np.ndarray, patterns: np.ndarray, batch: int
) -> Callable[[], list[int]]:
    """The Single Fourier Attack on ResNet-18; mixed on an accelerator."""
    model = _resnet(training=False)
    mixed = _device() != "cpu"
    return _under_attack(
        lambda x: model((x - 0.47) / 0.25), x, y, patterns, batch, mixed
    )


def resnet_pgd(
    variables: Variables, x: np.ndarray, y: np.ndarray, eps: float, step_size: float,
    steps: int, batch: int,
) -> Callable[[], float]:  # fmt: skip
    """Accuracy under foolbox's PGD of our ResNet-18's weights, channels last."""
    import torch

    from benchmarks.torch_networks import ResNet18, with_weights

    network = with_weights(ResNet18(), variables).eval().to(_device())
    network = network.to(memory_format=torch.channels_last)
    return _under_pgd(network, None, x, y, eps, step_size, steps, batch)


def pgd(
    variables: Variables, mean: tuple[float, ...], std: tuple[float, ...],
    x: np.ndarray, y: np.ndarray, eps: float, step_size: float, steps: int, batch: int,
) -> Callable[[], float]:  # fmt: skip
    """Accuracy of the small CNN under foolbox's PGD."""
    from benchmarks.torch_networks import with_weights

    normalised = {"mean": list(mean), "std": list(std), "axis": -3}
    model = with_weights(_model(), variables).eval()
    return _under_pgd(model, normalised, x, y, eps, step_size, steps, batch)


def _under_pgd(
    model: Any, normalised: dict[str, Any] | None, x: np.ndarray, y: np.ndarray,
    eps: float, step_size: float, steps: int, batch: int,
) -> Callable[[], float]:  # fmt: skip
    """Accuracy under foolbox's PGD, in a loop over batches."""
    import foolbox
    import torch

    fmodel = foolbox.PyTorchModel(
        model, bounds=(0, 1), device=_device(), preprocessing=normalised
    )
    attack = foolbox.attacks.LinfPGD(
        abs_stepsize=step_size, steps=steps, random_start=True
    )
    images, labels = _channels_first(x), _labels(y)

    def run() -> float:
        correct = 0
        for part in torch.arange(len(labels), device=labels.device).split(batch):
            _, attacked, _ = attack(fmodel, images[part], labels[part], epsilons=eps)
            answers = fmodel(attacked).argmax(1)
            correct += int((answers == labels[part]).sum())
        _synchronize()
        return correct / len(labels)

    return run


class Robust(NamedTuple):
    """What an attack left: images still classified correctly, and what it cost."""

    images: int
    forward: int  # passes of an image
    backward: int


def auto_attack(
    variables: Variables, mean: Sequence[float], std: Sequence[float], x: np.ndarray,
    y: np.ndarray, eps: float, components: Sequence[str], queries: int, batch: int,
    seed: int = 0,
) -> Callable[[], Robust]:  # fmt: skip
    """The small CNN under pyautoattack's components of the standard version.

    A component attacks only the images that those before it have left.
    """
    import pyautoattack
    import torch

    from benchmarks.torch_networks import Counted, with_weights

    network = with_weights(_model(), variables).eval().requires_grad_(False)
    model = Counted(network, mean, std).to(_device())
    images, labels = _channels_first(x), _labels(y)

    def run() -> Robust:
        attack = pyautoattack.AutoAttack(model, eps=eps, seed=seed, device=_device())
        attack.attacks_to_run = list(components)
        attack.square.n_queries = queries
        model.forward_passes = model.backward_passes = 0
        attacked, _ = attack.run_standard_evaluation(images, labels, batch_size=batch)
        passes = model.forward_passes, model.backward_passes
        with torch.inference_mode():
            correct = sum(
                int((model(part).argmax(1) == truth).sum())
                for part, truth in zip(
                    attacked.split(batch), labels.split(batch), strict=True
                )
            )
        return Robust(correct, *passes)

    return run


def resnet_apgd(
    variables: Variables, x: np.ndarray, y: np.ndarray, eps: float, steps: int
) -> Callable[[], Any]:
    """APGD-CE of pyautoattack on our ResNet-18's weights, channels last."""
    import torch
    from pyautoattack.autopgd_base import APGDAttack

    from benchmarks.torch_networks import ResNet18, with_weights

    network = with_weights(ResNet18(), variables).eval().requires_grad_(False)
    network = network.to(_device()).to(memory_format=torch.channels_last)
    images, labels = _channels_first(x), _labels(y)
    attack = APGDAttack(network, n_iter=steps, eps=eps, seed=0, device=_device())
    return lambda: attack.perturb(images, labels)
