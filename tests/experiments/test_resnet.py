"""ResNet-18: its size, its geometry, its arithmetic, its two modes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import absum_jax
from absum_jax.tracing import leaf_name
from experiments.models.resnet import ResNet18, _Block


def _filled(seed=0, **arguments):
    """A model with random parameters and statistics, all of them unlike 0 and 1.

    Filled by NumPy: to compile a sampler for each shape takes longer than the tests.
    """
    abstract = nnx.eval_shape(lambda: ResNet18(**arguments, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(abstract)
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if leaf.ndim > 1:
            values = rng.normal(size=leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5
        elif leaf_name(path).endswith(("scale", "var")):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            values = rng.normal(size=leaf.shape) * 0.2
        return jnp.asarray(values, jnp.float32)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(fill, state))


@pytest.fixture(scope="module")
def model():
    """A filled model; tests that move its statistics take a copy."""
    return _filled()


def _evaluated(model):
    return nnx.view(model, use_running_average=True)


def _images(examples, size=32, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.random((examples, size, size, 3), np.float32))


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
    logits = jax.eval_shape(lambda model, x: model(x), _evaluated(model), x)
    assert logits.shape == (2, classes)
    assert logits.dtype == jnp.float32


def test_where_it_convolves(model):
    uses = absum_jax.conv_input_shapes(
        lambda model, x: model(x), _evaluated(model), _images(1)
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


def _numpy_forward(model, x, normalize):
    """The forward pass in float64; `normalize(layer, x)` is batch normalization."""

    def conv(layer, x, stride):
        kernel = np.asarray(layer.kernel[...], np.float64)
        size = kernel.shape[0]
        margin = (0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(x, margin), (size, size), axis=(1, 2)
        )[:, ::stride, ::stride]
        return np.tensordot(windows, kernel, ((4, 5, 3), (0, 1, 2)))

    x = np.maximum(normalize(model.stem_norm, conv(model.stem, x, 1)), 0)
    for i, block in enumerate(model.blocks):
        stride = 2 if i in (2, 4, 6) else 1
        out = np.maximum(normalize(block.norm1, conv(block.conv1, x, stride)), 0)
        out = normalize(block.norm2, conv(block.conv2, out, 1))
        if stride == 2:
            x = normalize(block.shortcut_norm, conv(block.shortcut, x, stride))
        x = np.maximum(out + x, 0)
    kernel, bias = (np.asarray(p[...]) for p in (model.dense.kernel, model.dense.bias))
    return x.mean(axis=(1, 2)) @ kernel + bias


def _normalized(layer, x, mean, var):
    scale, bias = (np.asarray(p[...]) for p in (layer.scale, layer.bias))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def test_evaluation_matches_numpy():
    model = _filled(seed=1, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    x = _images(2)

    def normalize(layer, x):
        mean, var = (np.asarray(p[...]) for p in (layer.mean, layer.var))
        return _normalized(layer, x, mean, var)

    inside = (np.asarray(x, np.float64) - (0.5, 0.4, 0.3)) / (0.2, 0.3, 0.25)
    expected = _numpy_forward(model, inside, normalize)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(_evaluated(model)(x), expected, atol=1e-4)


def test_training_matches_numpy_and_moves_the_statistics(model):
    trained = nnx.clone(model)
    moved = {}

    def normalize(layer, x):
        mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        old = (np.asarray(p[...]) for p in (layer.mean, layer.var))
        batch = (mean, var)
        # PyTorch's momentum of 0.1.
        moved[id(layer)] = [0.9 * a + 0.1 * b for a, b in zip(old, batch, strict=True)]
        return _normalized(layer, x, mean, var)

    x = _images(3)
    expected = _numpy_forward(model, np.asarray(x, np.float64), normalize)
    np.testing.assert_allclose(trained(x), expected, atol=1e-4)
    norms = [
        (before, after)
        for (_, before), (_, after) in zip(
            nnx.iter_modules(model), nnx.iter_modules(trained), strict=True
        )
        if isinstance(before, nnx.BatchNorm)
    ]
    assert len(norms) == 20
    for before, after in norms:
        mean, var = moved[id(before)]
        np.testing.assert_allclose(after.mean[...], mean, atol=1e-4)
        np.testing.assert_allclose(after.var[...], var, rtol=1e-3)


def test_batch_mates_matter_in_training_alone(model):
    x = _images(2)
    evaluated = _evaluated(model)
    np.testing.assert_allclose(evaluated(x)[:1], evaluated(x[:1]), atol=1e-5)
    logits = [nnx.clone(model)(batch)[0] for batch in (x, x[:1])]
    assert np.abs(logits[0] - logits[1]).max() > 0.1


def test_eval_and_view_are_one_mode(model):
    same = nnx.clone(model)
    same.eval()
    before = jax.tree.leaves(nnx.state(same))
    np.testing.assert_array_equal(same(_images(1)), _evaluated(model)(_images(1)))
    for old, new in zip(before, jax.tree.leaves(nnx.state(same)), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bfloat16_computes_with_parameters_and_statistics_in_float32(model):
    half = _filled(dtype=jnp.bfloat16)
    x = _images(2)
    jaxpr = str(jax.make_jaxpr(lambda model, x: model(x))(_evaluated(half), x))
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


def test_matches_pytorch_with_the_same_weights(model):
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed (the extra bench)"
    )
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(outputs)
            if stride != 1:
                self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.shortcut_norm = nn.BatchNorm2d(outputs)

        def forward(self, x):
            out = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
            if hasattr(self, "shortcut"):
                x = self.shortcut_norm(self.shortcut(x))
            return (out + x).relu()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            self.stem_norm = nn.BatchNorm2d(64)
            widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
            self.blocks = nn.ModuleList(
                Block(a, b, 2 if a != b else 1) for a, b in itertools.pairwise(widths)
            )
            self.dense = nn.Linear(512, 10)

        def forward(self, x):
            x = self.stem_norm(self.stem(x)).relu()
            for block in self.blocks:
                x = block(x)
            return self.dense(x.mean((2, 3)))

    names = {"mean": "running_mean", "var": "running_var", "scale": "weight"}
    weights = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(model)):
        *modules, name = leaf_name(path).split("/")
        values = np.asarray(leaf)
        if name == "kernel":
            name = "weight"
            values = values.transpose((3, 2, 0, 1) if values.ndim == 4 else (1, 0))
        weights[".".join([*modules, names.get(name, name)])] = torch.tensor(values)
    network = Network()
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected

    x = _images(4)
    channels_first = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
    with torch.inference_mode():
        evaluated = network.eval()(channels_first).numpy()
        trained = network.train()(channels_first).numpy()
    np.testing.assert_allclose(_evaluated(model)(x), evaluated, atol=1e-4)
    np.testing.assert_allclose(nnx.clone(model)(x), trained, atol=1e-4)
