"""tracing.py finds the uses of kernels in the modules of frameworks."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_uses import NONE, PARAMS, USE, LinenBlock, X, abstract, but, call, conv
from flax import linen, nnx

from absum_jax.kernels import leaf_name
from absum_jax.tracing import ConvUse, conv_input_shapes
from experiments.models.small_cnn import SmallCNN


class NnxNet(nnx.Module):
    """Depthwise-separable, circular, dilated, grouped, with what a network has."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs, dtype=jnp.bfloat16)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.depthwise = nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=rngs)
        self.pointwise = nnx.Conv(4, 6, (1, 1), rngs=rngs)
        self.circular = nnx.Conv(6, 6, (3, 3), padding="CIRCULAR", rngs=rngs)
        self.grouped = nnx.Conv(
            6, 6, (3, 3), feature_group_count=2, kernel_dilation=2, rngs=rngs
        )
        self.shared = self.grouped
        self.attend = nnx.MultiHeadAttention(2, 6, decode=False, rngs=rngs)
        self.head = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.stem(x))))
        x = self.pointwise(self.depthwise(x))
        x = self.grouped(self.circular(x))
        x = self.shared(nnx.max_pool(x, (2, 2), (2, 2)))
        return self.head(self.attend(x.reshape(len(x), -1, 6)).mean(1))


GROUPED = but(USE, groups=2, kernel_dilation=(2, 2), padding=((2, 2), (2, 2)))
NNX_USES = {
    "circular": (but(USE, input_shape=(10, 8), padding=NONE),),
    "depthwise": (but(USE, groups=4),),
    "grouped": (GROUPED, but(GROUPED, input_shape=(4, 3), output_shape=(4, 3))),
    "pointwise": (but(USE, padding=NONE),),
    # 16 x 12 images; (8 - 1) * 2 + 3 - 16 = 1
    "stem": (
        but(USE, input_shape=(16, 12), strides=(2, 2), padding=((0, 1), (0, 1))),
    ),
}  # fmt: skip
NNX_USES = {f"{name}/kernel": uses for name, uses in NNX_USES.items()}
IMAGES = abstract(2, 16, 12, 3)


def nnx_net():
    model = nnx.eval_shape(lambda: NnxNet(nnx.Rngs(0)))
    model.eval()
    return model


def concrete(tree):
    """Zeros in place of abstract arrays, without compiling an initialisation."""

    def zeros(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.asarray(np.zeros(leaf.shape, leaf.dtype))

    return jax.tree.map(zeros, tree)


def concrete_nnx_net():
    graph, state = nnx.split(nnx_net())
    return nnx.merge(graph, concrete(state))


def nnx_form(name):
    """A function and its parameters."""
    if name == "abstract module":
        return call, nnx_net()
    model = concrete_nnx_net()
    wrappers = {"module": lambda f: f, "jit": nnx.jit, "remat": nnx.remat}
    if name in wrappers:
        return wrappers[name](call), model
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def merged(params, x):
        return nnx.merge(graph, params, rest)(x)

    def from_dict(params, x):
        state = nnx.state(model)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state)(x)

    return {
        "State": (merged, params),
        "pure State": (merged, nnx.as_pure(params)),
        "pure dict": (from_dict, nnx.to_pure_dict(params)),
    }[name]


NNX_FORMS = ["module", "abstract module", "jit", "remat", "State", "pure State"]
NNX_FORMS += ["pure dict"]


@pytest.mark.parametrize("form", NNX_FORMS)
def test_nnx(form):
    fn, params = nnx_form(form)
    assert conv_input_shapes(fn, params, IMAGES) == NNX_USES
    paths = jax.tree_util.tree_leaves_with_path(params)
    assert {leaf_name(path) for path, _ in paths} >= set(NNX_USES)


def test_tracing_leaves_an_nnx_module_as_it_was():
    model = concrete_nnx_net()
    model.train()
    before = jax.tree.leaves(model)
    assert conv_input_shapes(call, model, IMAGES) == NNX_USES
    assert all(a is b for a, b in zip(before, jax.tree.leaves(model), strict=True))


def test_small_cnn():
    model = nnx.eval_shape(lambda: SmallCNN(form="native", rngs=nnx.Rngs(0)))
    model.eval()
    valid = but(USE, padding=NONE)
    found = conv_input_shapes(call, model, abstract(5, 28, 28, 1))
    assert found == {
        "conv1/kernel": (but(valid, input_shape=(28, 28), output_shape=(24, 24)),),
        "conv2/kernel": (but(valid, input_shape=(12, 12), output_shape=(8, 8)),),
    }


class LinenNet(linen.Module):
    """Convolutions of two ranks, remat, scan, and a norm."""

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(4, (3, 3), dtype=jnp.bfloat16)(x)
        x = linen.BatchNorm(use_running_average=True)(x)
        x = linen.remat(linen.Conv)(4, (3, 3), strides=2, feature_group_count=2)(x)
        x, _ = linen.scan(
            LinenBlock, variable_broadcast="params", split_rngs={"params": False},
            length=3,
        )()(x, None)  # fmt: skip
        return linen.Conv(2, (3,), padding="CAUSAL", kernel_dilation=2)(x[:, 0])


def test_linen():
    model = LinenNet()
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    params = variables["params"]
    rest = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape), {"batch_stats": variables["batch_stats"]}
    )
    found = conv_input_shapes(
        lambda params, x: model.apply({"params": params, **rest}, x), params, IMAGES
    )
    grouped = but(USE, groups=2, strides=(2, 2), padding=((0, 1), (0, 1)))
    assert found == {
        "Conv_0/kernel": (but(USE, input_shape=(16, 12), output_shape=(16, 12)),),
        "CheckpointConv_0/kernel": (but(grouped, input_shape=(16, 12)),),
        "ScanLinenBlock_0/Conv_0/kernel": (
            but(USE, input_shape=(10, 8), padding=NONE),
        ),
        "Conv_1/kernel": (
            # Two zeros for each of the two steps back, before the convolution.
            ConvUse((10,), (6,), (1,), ((0, 0),), (2,), 1, (0, 1, 2)),
        ),
    }  # fmt: skip


def test_linen_metadata():
    init = linen.with_partitioning(linen.initializers.ones, (None, None, None, "out"))
    model = linen.Conv(4, (3, 3), kernel_init=init)
    variables = jax.eval_shape(model.init, jax.random.key(0), X)
    assert conv_input_shapes(model.apply, variables, X) == {"params/kernel": (USE,)}


def test_haiku():
    def forward(x):
        x = hk.Conv2D(4, 3, stride=2)(x)
        x = hk.DepthwiseConv2D(1, 3, name="depthwise")(x)
        x = hk.Conv2D(4, 3, data_format="NCHW", name="nchw")(x.transpose(0, 3, 1, 2))
        return hk.Conv1D(2, 3, rate=2)(x[:, :, 0].swapaxes(1, 2))

    model = hk.without_apply_rng(hk.transform(forward))
    params = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    strided = {"strides": (2, 2), "padding": ((0, 1), (0, 1))}
    assert conv_input_shapes(model.apply, params, IMAGES) == {
        "conv1_d/w": (ConvUse((6,), (6,), (1,), ((2, 2),), (2,), 1, (0, 1, 2)),),
        "conv2_d/w": (but(USE, input_shape=(16, 12), **strided),),
        "depthwise/w": (but(USE, groups=4),),
        "nchw/w": (USE,),
    }


def test_haiku_names_within_modules():
    params = {"net/~/conv2_d": {"w": abstract(3, 3, 4, 4)}}
    found = conv_input_shapes(lambda p, x: conv(x, p["net/~/conv2_d"]["w"]), params, X)
    assert found == {"net/~/conv2_d/w": (USE,)}


class EquinoxNet(eqx.Module):
    """OIHW kernels, and leaves that are no arrays."""

    layers: list
    head: eqx.nn.Conv1d
    activation: object
    mode: str
    repeats: int
    scale: float

    def __init__(self, key):
        self.layers = [
            eqx.nn.Conv2d(3, 4, 3, stride=2, padding=1, key=key),
            jax.nn.relu,
            eqx.nn.Conv2d(4, 4, 3, padding="SAME", groups=2, use_bias=False, key=key),
        ]
        self.head = eqx.nn.Conv1d(4, 2, 3, dilation=2, key=key)
        self.activation = jnp.tanh
        self.mode, self.repeats, self.scale = "twice", 2, 0.5

    def __call__(self, x):
        for _ in range(self.repeats):
            x = jnp.moveaxis(x, -1, 0) if self.mode == "twice" else x
            for layer in self.layers:
                x = layer(x)
            return self.activation(self.head(x[:, 0])) * self.scale
        return None


@pytest.mark.parametrize("form", ["module", "filtered", "filter_jit"])
def test_equinox(form):
    model = concrete(eqx.filter_eval_shape(EquinoxNet, jax.random.key(0)))
    fn, params = (lambda model, x: jax.vmap(model)(x)), model
    if form == "filtered":
        params, static = eqx.partition(model, eqx.is_array)
        fn = lambda params, x: jax.vmap(eqx.combine(params, static))(x)  # noqa: E731
    if form == "filter_jit":
        fn = eqx.filter_jit(fn)
    oihw = but(USE, kernel_axes=(2, 3, 1, 0))
    assert conv_input_shapes(fn, params, IMAGES) == {
        "layers/0/weight": (but(oihw, input_shape=(16, 12), strides=(2, 2)),),
        "layers/2/weight": (but(oihw, groups=2),),
        "head/weight": (ConvUse((6,), (2,), (1,), ((0, 0),), (2,), 1, (2, 1, 0)),),
    }


def test_plain_trees():
    params = [({"w": abstract(3, 3, 4, 4)},), {"conv": [abstract(4, 4, 3, 3)]}]
    found = conv_input_shapes(
        lambda p, x: conv(conv(x, p[0][0]["w"]), p[1]["conv"][0].T), params, X
    )
    # .T reverses the axes: O, I, H, W -> W, H, I, O
    assert found == {"0/0/w": (USE,), "1/conv/0": (but(USE, kernel_axes=(3, 2, 1, 0)),)}


def test_leaves_that_are_no_arrays():
    params = {**PARAMS, "names": np.array(["a"]), "n": 2, "f": jnp.sin, "no": None}

    def fn(params, x):
        assert params["names"] == "a"
        return params["f"](conv(x, params["conv"]["kernel"], params["n"] - 1))

    assert conv_input_shapes(fn, params, X) == {"conv/kernel": (USE,)}
