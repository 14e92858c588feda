"""ResNet-18s, GoogLeNet and DenseNet-121 beside PyTorch's with the same weights."""

import jax
import numpy as np
import pytest
from flax import nnx
from networks import evaluated, filled, images

from experiments.models import variables_of
from experiments.models.densenet import DenseNet121
from experiments.models.googlenet import GoogLeNet
from experiments.models.resnet import ImageNetResNet18, ResNet18

pytestmark = pytest.mark.slow

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (the extra bench)"
)
from benchmarks import torch_networks  # noqa: E402


@pytest.mark.parametrize(
    ("create", "gain", "size"),
    [
        (ResNet18, 1.0, 32),
        (GoogLeNet, 2.0, 32),
        (DenseNet121, 2.0, 32),
        (ImageNetResNet18, 1.0, 96),
    ],
)
def test_logits(create, gain, size):
    model = filled(create, gain=gain)
    network = torch_networks.with_weights(
        getattr(torch_networks, create.__name__)(), variables_of(model)
    )
    x = images(4, size)
    channels_first = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
    with torch.inference_mode():
        expected = network.eval()(channels_first).numpy()
        trained = network.train()(channels_first).numpy()
    assert np.abs(expected[0] - expected[1]).max() > 0.05
    apply = jax.jit(lambda model, x: model(x))
    np.testing.assert_allclose(apply(evaluated(model), x), expected, atol=1e-4)
    np.testing.assert_allclose(apply(nnx.clone(model), x), trained, atol=1e-4)
