"""The registry of networks, and the command that lists it."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from experiments import cli
from experiments.models.architectures import ARCHITECTURES, without_values


def test_the_command_lists_every_network(capsys):
    assert cli.main(["models"]) == 0
    # Of the small CNN, the paper's 21,840; of the others, those of pytorch-cifar's
    # models, and 90 times 513, 1,025 and 1,025 more where there are 100 classes; of
    # ImageNet's, those of torchvision's model. Narrower ones: `test_width.py`.
    assert capsys.readouterr().out.splitlines() == [
        "| model            |      data set | classes | parameters "
        "| convolution kernels | parameters in them (%) |",
        "| ---------------- | ------------: | ------: | ---------: "
        "| ------------------: | ---------------------: |",
        *(
            f"| {model:16} | {dataset:>13} | {classes:>7} | {count:>10,} "
            f"| {kernels:>19} | {share:>22} |"
            for model, dataset, classes, count, kernels, share in (
                ("small_cnn", "mnist5k", 10, 21_840, 2, "24.04"),
                ("small_cnn", "mnist", 10, 21_840, 2, "24.04"),
                ("small_cnn", "fashion_mnist", 10, 21_840, 2, "24.04"),
                ("resnet18", "cifar10", 10, 11_173_962, 20, "99.87"),
                ("resnet18", "cifar100", 100, 11_220_132, 20, "99.46"),
                ("resnet18", "svhn_cropped", 10, 11_173_962, 20, "99.87"),
                ("googlenet", "cifar10", 10, 6_166_250, 64, "99.45"),
                ("googlenet", "cifar100", 100, 6_258_500, 64, "97.98"),
                ("googlenet", "svhn_cropped", 10, 6_166_250, 64, "99.45"),
                ("densenet121", "cifar10", 10, 6_956_298, 120, "98.65"),
                ("densenet121", "cifar100", 100, 7_048_548, 120, "97.36"),
                ("densenet121", "svhn_cropped", 10, 6_956_298, 120, "98.65"),
                ("resnet18_224", "imagenet2012", 1000, 11_689_512, 20, "95.53"),
                ("resnet18_half", "cifar10", 10, 2_797_610, 20, "99.74"),
                ("resnet18_half", "cifar100", 100, 2_820_740, 20, "98.92"),
                ("resnet18_half", "svhn_cropped", 10, 2_797_610, 20, "99.74"),
                ("resnet18_quarter", "cifar10", 10, 701_466, 20, "99.47"),
                ("resnet18_quarter", "cifar100", 100, 713_076, 20, "97.85"),
                ("resnet18_quarter", "svhn_cropped", 10, 701_466, 20, "99.47"),
                ("resnet18_eighth", "cifar10", 10, 176_402, 20, "98.95"),
                ("resnet18_eighth", "cifar100", 100, 182_252, 20, "95.78"),
                ("resnet18_eighth", "svhn_cropped", 10, 176_402, 20, "98.95"),
            )
        ),
    ]


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_both_forms_have_the_same_parameters_and_logits(model):
    architecture = ARCHITECTURES[model]
    shape = (2, 28, 28, 1) if architecture.is_small else (2, 32, 32, 3)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    forms = {architecture.create, architecture.create_native} - {None}
    seen = set()
    for create in forms:
        network = without_values(create, classes=7)
        network.eval()
        logits = jax.eval_shape(lambda network, x: network(x), network, x)
        assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
        params = jax.tree_util.tree_leaves_with_path(nnx.state(network, nnx.Param))
        seen.add(str([(path, leaf.shape, leaf.dtype) for path, leaf in params]))
    assert len(seen) == 1


@pytest.mark.parametrize("model", ["small_cnn", "resnet18"])
def test_without_values_it_is_the_same_network(model):
    create = ARCHITECTURES[model].create
    network = without_values(create)
    expected = nnx.eval_shape(lambda: create(rngs=nnx.Rngs(0)))
    assert nnx.graphdef(network) == nnx.graphdef(expected)
    assert str(nnx.state(network)) == str(nnx.state(expected))
