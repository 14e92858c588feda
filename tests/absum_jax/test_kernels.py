"""kernels.py: which leaves of real and made-up trees are convolution kernels."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import absum_jax


def selected(tree):
    """The paths of the leaves that `conv_kernels` marks."""
    mask = absum_jax.conv_kernels(tree)
    assert jax.tree.structure(mask) == jax.tree.structure(tree)
    assert all(type(leaf) is bool for leaf in jax.tree.leaves(mask))
    return {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(mask)
        if leaf
    }


def abstract(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", ["kernel", "w", "weight"])
@pytest.mark.parametrize(
    ("module", "ranks"), [("layer", {4, 5}), ("MyConv_0", {3, 4, 5})]
)
def test_rank_and_module_name(module, ranks, name, rank):
    tree = {module: {name: abstract(*[2] * rank)}}
    assert bool(selected(tree)) == (rank in ranks)


@pytest.mark.parametrize(
    "name", ["bias", "b", "scale", "embedding", "kernels", "value", "pos_weight"]
)
def test_other_leaf_names_are_excluded(name):
    assert not selected({"conv": {name: abstract(3, 3, 1, 4)}})


@pytest.mark.parametrize(
    "module",
    [
        "MultiHeadDotProductAttention_0",
        "self_attention",
        "attn",
        "conv_attn",
        "query",
        "key",
        "value",
        "qkv",
        "qkv_conv",
        "Embedding_0",
        "Einsum_0",
        "ConvLocal_0",
        "local",
        "experts",
        "MoEExpert_3",
    ],
)
def test_other_modules_are_excluded(module):
    kernels = {"kernel": abstract(2, 2, 4, 4), "w": abstract(2, 2, 2, 4, 4)}
    assert not selected({module: kernels})
    assert not selected({"conv_block": {module: {"conv": kernels}}})


@pytest.mark.parametrize(
    "module",
    [
        "keypoint_conv",
        "monkey_conv",
        "valued",
        "localization_net",
        "queries",
        "conv2_d",
        "stem",
        "attribute_head",
    ],
)
def test_words_that_only_resemble_others_are_included(module):
    assert selected({module: {"kernel": abstract(3, 3, 1, 4)}})


def test_haiku_module_paths_are_several_names():
    tree = {
        "net/~/conv1_d": {"w": abstract(3, 1, 4)},
        "net/attention/linear": {"w": abstract(2, 2, 4, 4)},
    }
    assert selected(tree) == {"['net/~/conv1_d']['w']"}


def test_lists_tuples_and_bare_arrays():
    assert selected([{"kernel": abstract(3, 3, 1, 4)}, ({"w": abstract(4)},)]) == {
        "[0]['kernel']"
    }
    assert not selected(abstract(3, 3, 1, 4))
    assert not selected({})
    assert not selected({"conv": {"kernel": 1.0, "w": None}})


class NnxModel(nnx.Module):
    """Convolutions of three ranks, and layers that are none."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.conv1d = nnx.Conv(1, 4, (3,), rngs=rngs)
        self.blocks = nnx.List([nnx.ConvTranspose(1, 4, (2, 2, 2), rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 4, 8, rngs=rngs)
        self.embed = nnx.Embed(3, 4, rngs=rngs)
        self.query = nnx.LinearGeneral((2, 3), (4, 5), axis=(-2, -1), rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)


def test_nnx_states_of_params_and_pure_states():
    model = nnx.eval_shape(lambda: NnxModel(nnx.Rngs(0)))
    params = nnx.state(model, nnx.Param)
    expected = {
        "['blocks'][0]['kernel']",
        "['conv1d']['kernel']",
        "['stem']['kernel']",
    }
    assert {path.removesuffix(".value") for path in selected(params)} == expected
    assert selected(nnx.as_pure(params)) == expected
    assert len(selected(nnx.to_pure_dict(params))) == len(expected)


class LinenModel(linen.Module):
    """Two convolutions, and layers that are none."""

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(4, (3, 3))(x)
        x = linen.BatchNorm(use_running_average=True)(x)
        x = linen.ConvLocal(2, (2, 2))(x)
        x = linen.MultiHeadDotProductAttention(num_heads=2)(x)
        x = linen.DenseGeneral((2, 3), axis=(-2, -1), name="value")(x)
        x = linen.Conv(3, (3,))(x[..., 0])
        x = linen.Embed(5, 3)(jnp.zeros(2, int)) + x.mean()
        return linen.Dense(2)(x)


def test_linen_variables():
    variables = jax.eval_shape(
        LinenModel().init, jax.random.key(0), jnp.ones((1, 4, 4, 1))
    )
    assert selected(variables["params"]) == {
        "['Conv_0']['kernel']",
        "['Conv_1']['kernel']",
    }


def test_haiku_params():
    def forward(x):
        x = hk.Conv2D(2, 3)(x)
        x = hk.Conv1D(2, 3)(x[0])
        x = hk.MultiHeadAttention(1, 2, w_init=jnp.ones)(x, x, x)
        return hk.nets.MLP([3])(x)

    init = hk.without_apply_rng(hk.transform(forward)).init
    params = jax.eval_shape(init, jax.random.key(0), jnp.ones((1, 4, 4, 1)))
    assert selected(params) == {"['conv1_d']['w']", "['conv2_d']['w']"}


class EquinoxModel(eqx.Module):
    """Two convolutions, and layers that are none."""

    conv: eqx.nn.Conv1d
    layers: eqx.nn.Sequential
    attend: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm

    def __init__(self, key):
        self.conv = eqx.nn.Conv1d(1, 2, 3, key=key)
        self.layers = eqx.nn.Sequential(
            [eqx.nn.Conv2d(1, 2, 3, key=key), eqx.nn.Lambda(jax.nn.relu)]
        )
        self.attend = eqx.nn.MultiheadAttention(2, 4, key=key)
        self.norm = eqx.nn.LayerNorm((2, 4, 4))


def test_equinox_module_with_functions_and_none_leaves():
    model = eqx.filter_eval_shape(EquinoxModel, jax.random.key(0))
    expected = {".conv.weight", ".layers.layers[0].weight"}
    assert selected(model) == expected
    is_array = jax.tree.map(lambda leaf: hasattr(leaf, "ndim"), model)
    assert selected(eqx.filter(model, is_array)) == expected


def test_mask_reads_neither_values_nor_dtypes():
    params = {"conv": {"kernel": np.ones((3, 3, 1, 4)), "bias": np.ones(4)}}
    updates = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.bfloat16), params)
    traced = []
    jax.eval_shape(lambda tree: traced.append(absum_jax.conv_kernels(tree)), params)
    expected = {"conv": {"kernel": True, "bias": False}}
    assert absum_jax.conv_kernels(params) == expected
    assert absum_jax.conv_kernels(updates) == expected
    assert traced == [expected]
