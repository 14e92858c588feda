"""ResNet-18 for 224 x 224: its size, its geometry, its arithmetic, and SNC on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import evaluated, filled, images, norms
from numpy_networks import ByBatch, by_statistics, imagenet_resnet18

import absum_jax
from experiments.config import Setting
from experiments.methods import METHODS
from experiments.models import build, named_kernels
from experiments.models.architectures import without_values
from experiments.models.resnet import ImageNetResNet18, _Block
from experiments.training import constraints

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    """A filled model; tests that move its statistics take a copy."""
    return filled(ImageNetResNet18, classes=7)


def test_parameter_count():
    # torchvision's model has 11,689,512 for 1000 classes: 513 a class, and a stem of
    # 9,408 in place of 1,728.
    params = nnx.state(without_values(ImageNetResNet18), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 11_689_512
    assert 11_173_962 + 990 * 513 + 9_408 - 1_728 == 11_689_512


def test_where_it_convolves():
    classifier = build("resnet18_224", (0.5,) * 3, (0.2,) * 3, 1000)
    uses = classifier.conv_uses((224, 224, 3))
    # (input size, output size, stride) at 224 x 224, from the definition.
    expected = {"stem/kernel": (224, 112, 2)}
    size = 56
    for block in range(8):
        stride = 2 if block in (2, 4, 6) else 1
        name, out = f"blocks/{block}", size // stride
        expected[f"{name}/conv1/kernel"] = (size, out, stride)
        expected[f"{name}/conv2/kernel"] = (out, out, 1)
        if stride == 2:
            expected[f"{name}/shortcut/kernel"] = (size, out, 2)
        size = out
    assert size == 7
    assert {
        name: (use.input_shape[0], use.output_shape[0], use.strides[0])
        for name, (use,) in uses.items()
    } == expected
    [stem] = uses["stem/kernel"]
    assert stem.padding == ((3, 3), (3, 3))


@pytest.mark.parametrize("size", [64, 50])
def test_evaluation_matches_numpy(size):
    scales = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}
    model = filled(ImageNetResNet18, seed=1, classes=7, **scales)
    x = images(2, size)
    inside = (np.asarray(x, np.float64) - scales["mean"]) / scales["std"]
    expected = imagenet_resnet18(model, inside, by_statistics)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(evaluated(model)(x), expected, atol=1e-4)


def test_training_matches_numpy_and_moves_the_statistics(model):
    trained = nnx.clone(model)
    by_batch = ByBatch()
    x = images(3, 64)
    expected = imagenet_resnet18(model, np.asarray(x, np.float64), by_batch)
    np.testing.assert_allclose(trained(x), expected, atol=1e-4)
    assert len(norms(model)) == 20
    by_batch.assert_moved(norms(model), norms(trained))


def test_bfloat16_is_of_convolutions_alone():
    half = without_values(ImageNetResNet18, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    jaxpr = str(jax.make_jaxpr(lambda model, x: model(x))(evaluated(half), x))
    of = {
        kind: [line.split("=")[0] for line in jaxpr.splitlines() if kind in line]
        for kind in ("conv_general", "reduce_window_max")
    }
    assert [len(lines) for lines in of.values()] == [20, 1]
    assert all("bf16" in line for lines in of.values() for line in lines)
    logits = jax.eval_shape(lambda model, x: model(x), evaluated(half), x)
    assert (logits.shape, logits.dtype) == ((2, 1000), jnp.float32)


def test_initial_kernels_are_normal_by_fan_out():
    init = jax.jit(lambda: ImageNetResNet18(rngs=nnx.Rngs(0)))
    network = init()
    # Kernels (height * width * out) of torchvision's kaiming_normal_, fan_out.
    for layer, fan_out in (
        (network.stem, 49 * 64),
        (network.blocks[0].conv1, 9 * 64),
        (network.blocks[2].conv1, 9 * 128),
        (network.blocks[2].shortcut, 128),
        (network.blocks[7].conv2, 9 * 512),
    ):
        kernel = np.asarray(layer.kernel[...])
        std = (2 / fan_out) ** 0.5
        assert layer.bias is None
        assert kernel.std() == pytest.approx(std, rel=0.03)
        assert np.abs(kernel).max() > 3 * std
        # A normal variable is within one deviation in 68.27 % of cases.
        assert np.mean(np.abs(kernel) < std) == pytest.approx(0.6827, abs=0.02)
    # As the same blocks at 32 x 32 are not.
    limit = jnp.abs(_Block(16, 32, 2, jnp.float32, nnx.Rngs(0)).conv1.kernel[...]).max()
    assert limit <= 144**-0.5
    for values in (network.dense.kernel[...], network.dense.bias[...]):
        assert 0.95 * 512**-0.5 < jnp.abs(values).max() <= 512**-0.5


def test_snc_holds_with_every_stride():
    """A clip of layers of each kind, of a quarter of their channels, on 32 x 32."""
    classifier = build("resnet18_224", (0.5,) * 3, (0.2,) * 3, 7)
    uses = classifier.conv_uses((32, 32, 3))
    layers = (
        "stem/kernel", "blocks/0/conv1/kernel", "blocks/2/conv1/kernel",
        "blocks/2/shortcut/kernel",
    )  # fmt: skip
    shapes = jax.eval_shape(classifier.init, jax.random.key(0)).params
    rng = np.random.default_rng(0)
    kernels = {}
    for name, leaf in named_kernels(shapes, layers).items():
        *size, inputs, outputs = leaf.shape
        values = 0.2 * rng.normal(size=(*size, -(-inputs // 4), outputs // 4))
        kernels[name] = jnp.asarray(values, jnp.float32)
    bound = 0.5
    of_layers = {name: uses[name] for name in layers}
    apply = METHODS["snc"].constraint.apply
    assert constraints.constrained([Setting("snc", bound)])[0].method == "snc"
    clip = jax.jit(lambda kernels: apply(kernels, jnp.float32(bound), of_layers))
    once = clip(kernels)
    often = once
    for _ in range(12):
        often = clip(often)

    def norm(kernels, name):
        [use] = uses[name]
        return float(
            absum_jax.conv_spectral_norm(
                kernels[name], use.input_shape, strides=use.strides
            )
        )

    for name in layers:
        before, after, at_last = (norm(k, name) for k in (kernels, once, often))
        assert before > 2 * bound
        # The cut to the support undoes a part of a clip, less each time.
        assert after < 0.8 * before
        assert at_last <= after + 1e-5
        assert at_last < 1.05 * bound
