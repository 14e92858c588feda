"""ResNet-18: its size, its geometry, its arithmetic, its two modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import evaluated, filled, images, norms
from numpy_networks import ByBatch, by_statistics, resnet18

import absum_jax
from absum_jax.kernels import leaf_name
from experiments.models.resnet import ResNet18, _Block

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    """A filled model; tests that move its statistics take a copy."""
    return filled(ResNet18)


@pytest.mark.parametrize(("classes", "expected"), [(10, 11_173_962), (100, 11_220_132)])
def test_parameter_count(classes, expected):
    # pytorch-cifar's model has 11,173,962 for 10 classes; 513 a class, 90 more.
    model = nnx.eval_shape(lambda: ResNet18(classes=classes, rngs=nnx.Rngs(0)))
    params = nnx.state(model, nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    # Mean and variance of each of the 20 normalizations, 4,800 channels in all.
    statistics = jax.tree.leaves(nnx.state(model, nnx.BatchStat))
    assert [len(statistics), sum(leaf.size for leaf in statistics)] == [40, 9600]


@pytest.mark.parametrize("size", [32, 33, 64])
@pytest.mark.parametrize("classes", [10, 100])
def test_logits_at_any_size(size, classes):
    model = nnx.eval_shape(lambda: ResNet18(classes=classes, rngs=nnx.Rngs(0)))
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    logits = jax.eval_shape(lambda model, x: model(x), evaluated(model), x)
    assert logits.shape == (2, classes)
    assert logits.dtype == jnp.float32


def test_where_it_convolves(model):
    uses = absum_jax.conv_input_shapes(
        lambda model, x: model(x), evaluated(model), images(1)
    )
    # (kernel, input size, output size, stride) at 32 x 32, from the definition.
    expected = {"stem/kernel": ((3, 3, 3, 64), 32, 32, 1)}
    channels, size = 64, 32
    for block in range(8):
        width, stride = 64 * 2 ** (block // 2), 2 if block in (2, 4, 6) else 1
        name, out = f"blocks/{block}", size // stride
        expected |= {
            f"{name}/conv1/kernel": ((3, 3, channels, width), size, out, stride),
            f"{name}/conv2/kernel": ((3, 3, width, width), out, out, 1),
        }
        if stride == 2:
            shape = (1, 1, channels, width)
            expected[f"{name}/shortcut/kernel"] = (shape, size, out, 2)
        channels, size = width, out
    assert len(expected) == 20
    kernels = {
        leaf_name(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(model)
        if leaf.ndim == 4
    }
    assert {
        name: (
            kernels[name],
            *(use.input_shape[0], use.output_shape[0], use.strides[0]),
        )
        for name, (use,) in uses.items()
    } == expected
    for name, (use,) in uses.items():
        margin = kernels[name][0] // 2
        assert use == absum_jax.ConvUse(
            input_shape=use.input_shape[:1] * 2,
            output_shape=use.output_shape[:1] * 2,
            strides=use.strides[:1] * 2,
            padding=((margin, margin),) * 2,
            kernel_dilation=(1, 1),
            groups=1,
            kernel_axes=(0, 1, 2, 3),
        )


def test_evaluation_matches_numpy():
    model = filled(ResNet18, seed=1, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    x = images(2)
    inside = (np.asarray(x, np.float64) - (0.5, 0.4, 0.3)) / (0.2, 0.3, 0.25)
    expected = resnet18(model, inside, by_statistics)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(evaluated(model)(x), expected, atol=1e-4)


def test_training_matches_numpy_and_moves_the_statistics(model):
    trained = nnx.clone(model)
    by_batch = ByBatch()
    x = images(3)
    expected = resnet18(model, np.asarray(x, np.float64), by_batch)
    np.testing.assert_allclose(trained(x), expected, atol=1e-4)
    assert len(norms(model)) == 20
    by_batch.assert_moved(norms(model), norms(trained))


def test_batch_mates_matter_in_training_alone(model):
    x = images(2)
    fixed = evaluated(model)
    np.testing.assert_allclose(fixed(x)[:1], fixed(x[:1]), atol=1e-5)
    logits = [nnx.clone(model)(batch)[0] for batch in (x, x[:1])]
    assert np.abs(logits[0] - logits[1]).max() > 0.1


def test_eval_and_view_are_one_mode(model):
    same = nnx.clone(model)
    same.eval()
    before = jax.tree.leaves(nnx.state(same))
    np.testing.assert_array_equal(same(images(1)), evaluated(model)(images(1)))
    for old, new in zip(before, jax.tree.leaves(nnx.state(same)), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bfloat16_computes_with_parameters_and_statistics_in_float32(model):
    half = filled(ResNet18, dtype=jnp.bfloat16)
    x = images(2)
    jaxpr = str(jax.make_jaxpr(lambda model, x: model(x))(evaluated(half), x))
    convolutions = [
        line.split("=")[0] for line in jaxpr.splitlines() if "conv_general" in line
    ]
    assert len(convolutions) == 20
    assert all("bf16" in line for line in convolutions)

    logits = half(x)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half))} == {
        jnp.dtype("float32")
    }
    # bfloat16 has 8 bits, and rounds once a layer.
    full = nnx.clone(model)(x)
    assert 0 < np.abs(logits - full).max() < 0.05 * np.abs(full).max()


def test_initial_parameters_are_uniform_with_torch_limits():
    block = _Block(16, 32, 2, jnp.float32, nnx.Rngs(0))
    for conv, fan_in in ((block.conv1, 144), (block.conv2, 288), (block.shortcut, 16)):
        kernel = conv.kernel[...]
        assert conv.bias is None
        assert jnp.abs(kernel).max() <= fan_in**-0.5
        # A uniform variable's standard deviation is limit / sqrt(3).
        assert kernel.std() == pytest.approx((3 * fan_in) ** -0.5, rel=0.1)
    assert (block.norm1.scale[...] == 1).all()
    assert (block.norm1.bias[...] == 0).all()
