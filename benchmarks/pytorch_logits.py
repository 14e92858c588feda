"""PyTorch's logits, for weights and images by formulas, that tests compare with ours.

`python -m benchmarks.pytorch_logits` computes them and writes
`tests/experiments/pytorch_logits.json`. It needs the extra `bench`; the tests do not.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PATH = pathlib.Path(__file__).parents[1] / "tests" / "experiments/pytorch_logits.json"
# Of the images, (height, width, channels).
SHAPES = {
    "pytorch-examples": (28, 28, 1),
    "pytorch-cifar": (32, 32, 3),
    "torchvision": (40, 40, 3),  # 20, 10, 5 and 3 behind strides
}


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Computes weights by their names and shapes, at which activations keep scale."""
    tensors = {}
    for start, (name, shape) in enumerate(sorted(shapes.items())):
        # Uncorrelated along any axis, and the same on any machine.
        values = np.sin(np.arange(math.prod(shape), dtype=float) ** 2 + start)
        if len(shape) > 1:
            values *= 2 / math.prod(shape[1:]) ** 0.5
        elif name.endswith(("running_var", "weight")):
            values = 1 + 0.4 * values
        else:
            values *= 0.2
        tensors[name] = values.reshape(shape).astype(np.float32)
    return tensors


def images(shape: tuple[int, int, int]) -> np.ndarray:
    """Computes four images (4, height, width, channels) in [0, 1] of waves."""
    i, row, column, channel = np.indices((4, *shape))
    waves = np.sin(0.7 * (i + 1) * row + 0.3 * (4 - i) * column + channel * i)
    return (0.5 + 0.5 * waves).astype(np.float32)


def computed() -> dict[str, Any]:
    """Computes logits in float64, and the shapes of weights by their names."""
    import torch

    from benchmarks import torch_networks

    content: dict[str, Any] = {"torch": torch.__version__}
    for network in (
        torch_networks.SmallCNN(),
        torch_networks.ResNet18(),
        torch_networks.ImageNetResNet18(classes=7),
    ):
        state = network.state_dict()
        shapes = {
            name: list(tensor.shape)
            for name, tensor in state.items()
            if tensor.is_floating_point()
        }
        tensors = {k: torch.from_numpy(v) for k, v in weights(shapes).items()}
        network.load_state_dict(state | tensors)
        x = images(SHAPES[network.layout]).transpose(0, 3, 1, 2)
        with torch.inference_mode():
            logits = network.eval().double()(torch.from_numpy(x.astype(float)))
        rounded = logits.numpy().round(9).tolist()
        content[network.layout] = {"shapes": shapes, "logits": rounded}
    return content


if __name__ == "__main__":
    PATH.write_text(json.dumps(computed()) + "\n")
