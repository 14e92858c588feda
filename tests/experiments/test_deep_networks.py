"""GoogLeNet and DenseNet-121: their arithmetic, geometry, gradient, and precision."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_networks
import pytest
from flax import nnx
from networks import evaluated, filled, images, norms

import absum_jax
from absum_jax.kernels import leaf_name
from experiments.models import densenet, googlenet
from experiments.models.architectures import without_values
from experiments.models.densenet import DenseNet121
from experiments.models.googlenet import GoogLeNet

_MEAN, _STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
_CREATE = {"googlenet": GoogLeNet, "densenet121": DenseNet121}


@pytest.fixture(scope="module", params=_CREATE)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def shapes(name):
    return without_values(_CREATE[name])


@pytest.fixture
def shallow(name, monkeypatch):
    """A model with fewer layers, as the deep ones take a minute to differentiate."""
    monkeypatch.setattr(googlenet, "_STAGES", [its[:1] for its in googlenet._STAGES])
    monkeypatch.setattr(densenet, "_BLOCKS", (2, 2, 2, 2))
    return filled(_CREATE[name], gain=2.0, mean=_MEAN, std=_STD)


@pytest.fixture
def forward(name):
    """The forward pass in NumPy of images in [0, 1]."""

    def logits(model, x, normalize):
        x = (np.asarray(x, np.float64) - _MEAN) / _STD
        return getattr(numpy_networks, name)(model, x, normalize)

    return logits


def test_evaluation_matches_numpy(name, forward):
    model = filled(_CREATE[name], gain=2.0, mean=_MEAN, std=_STD)
    # 8 x 8 is the smallest image of DenseNet-121.
    x = images(2, size=8)
    expected = forward(model, x, numpy_networks.by_statistics)
    assert np.abs(expected[0] - expected[1]).max() > 0.05
    logits = jax.jit(lambda model, x: model(x))(evaluated(model), x)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_training_step(shallow, forward):
    """Logits, moved statistics and the gradient, of one program."""
    graphdef, params, statistics = nnx.split(shallow, nnx.Param, nnx.BatchStat)
    x, y = images(4, size=16), jnp.arange(4)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def step(params):
        trained = nnx.merge(graphdef, params, statistics, copy=True)
        logits = trained(x)
        loss = -jax.nn.log_softmax(logits)[jnp.arange(4), y].mean()
        return loss, (logits, trained)

    gradient, (logits, trained) = step(params)
    by_batch = numpy_networks.ByBatch()
    expected = forward(shallow, x, by_batch)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    by_batch.assert_moved(norms(shallow), norms(trained))

    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    kernels = jax.tree.leaves(absum_jax.conv_kernels(gradient))
    for leaf, is_kernel in zip(leaves, kernels, strict=True):
        assert not is_kernel or np.abs(leaf).max() > 0


def test_where_it_convolves(name, shapes):
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    uses = absum_jax.conv_input_shapes(lambda m, x: m(x), evaluated(shapes), x)
    kernels = {
        leaf_name(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        if leaf.ndim == 4
    }
    assert uses.keys() == kernels.keys()
    found = collections.Counter()
    for path, (use,) in uses.items():
        size, margin = kernels[path][0], kernels[path][0] // 2
        assert use == absum_jax.ConvUse(
            input_shape=use.input_shape[:1] * 2,
            output_shape=use.input_shape[:1] * 2,
            strides=(1, 1),
            padding=((margin, margin),) * 2,
            kernel_dilation=(1, 1),
            groups=1,
            kernel_axes=(0, 1, 2, 3),
        )
        found[use.input_shape[0], size] += 1
    # (image size, kernel size): how many, from the definitions.
    assert (
        found
        == {
            # Four 1x1 and three 3x3 an inception, of which there are 2, 5 and 2.
            "googlenet": {
                **{(32, 1): 8, (32, 3): 7, (16, 1): 20, (16, 3): 15},
                **{(8, 1): 8, (8, 3): 6},
            },
            # One of each a layer, 6, 12, 24 and 16, and a 1x1 after three blocks.
            "densenet121": {
                **{(32, 1): 7, (32, 3): 7, (16, 1): 13, (16, 3): 12},
                **{(8, 1): 25, (8, 3): 24, (4, 1): 16, (4, 3): 16},
            },
        }[name]
    )


def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32(name):
    half = without_values(_CREATE[name], dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)

    def logits_and_state(model, x):
        return model(x), nnx.state(model)

    logits, state = jax.eval_shape(logits_and_state, half, x)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves([half, state])} == {
        jnp.dtype("float32")
    }
    jaxpr = str(jax.make_jaxpr(lambda model, x: model(x))(evaluated(half), x))
    convolved = [line for line in jaxpr.splitlines() if "conv_general" in line]
    assert len(convolved) == {"googlenet": 64, "densenet121": 120}[name]
    assert all("bf16" in line.split("=")[0] for line in convolved)
    # What is concatenated is kept.
    concatenated = [line for line in jaxpr.splitlines() if "concatenate[" in line]
    assert len(concatenated) == {"googlenet": 9, "densenet121": 58}[name]
    assert all("bf16" in line.split("=")[0] for line in concatenated)
