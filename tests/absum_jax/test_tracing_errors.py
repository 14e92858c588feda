"""tracing.py names kernels whose uses cannot be found."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_uses import (
    ONES,
    PARAMS,
    TWO,
    LinenBlock,
    X,
    abstract,
    call,
    conv,
    with_program,
)
from flax import linen, nnx
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from absum_jax.tracing import conv_input_shapes
from experiments.models.small_cnn import SmallCNN


def refused(kernel_fn, kernel=PARAMS["conv"]["kernel"], x=X):
    with pytest.raises(ValueError, match=r"^`fn` must .*`net/conv/kernel`") as error:
        conv_input_shapes(
            lambda p, x: kernel_fn(x, p["net"]["conv"]["kernel"]),
            {"net": {"conv": {"kernel": kernel}}},
            x,
        )
    return str(error.value)


def weight_norm(x, kernel):
    return conv(x, kernel / jnp.sqrt((kernel**2).sum((0, 1, 2))))


def changed_in_loop(x, kernel):
    def step(kernel, _):
        return jnp.sin(kernel), conv(x, kernel)

    return lax.scan(step, kernel, length=2)


def changed_by_three_steps(x, kernel):
    """Only the third step convolves with the sine."""

    def step(carry):
        a, b, c, x = carry
        return jnp.sin(a), a, b, conv(x, c)

    return lax.while_loop(
        lambda carry: carry[-1].sum() < 3, step, (kernel, kernel, kernel, x)
    )


def solved(diagonal, kernel):
    return lax.custom_linear_solve(
        lambda v: diagonal * v, kernel, lambda matvec, b: b / diagonal, symmetric=True
    )


CHANGED = {
    "weight norm": (weight_norm, "changed by `div`, as by weight normalization"),
    "weight standardization": (
        lambda x, k: conv(x, (k - k.mean()) / k.std()),
        "changed by `sub`",
    ),
    "scaled": (lambda x, k: conv(x, 2 * k), "changed by `mul`, as by weight"),
    "scaled in jit": (lambda x, k: conv(x, jax.jit(jnp.sin)(k)), "changed by `sin`"),
    "rounded": (lambda x, k: conv(x, jnp.round(k)), "changed by `round`"),
    "integer": (
        lambda x, k: conv(x, k.astype(int).astype(float)),
        "changed by `convert_element_type`",
    ),
    "masked": (lambda x, k: conv(x, jnp.where(k > 0, k, 0)), "changed by `select_n`"),
    "sliced": (lambda x, k: conv(x, k[:2]), "changed by `slice`"),
    "padded": (lambda x, k: conv(x, jnp.pad(k, 1)[..., 1:5, :]), "changed by `pad`"),
    "sum of kernels": (lambda x, k: conv(x, k + k.swapaxes(2, 3)), "changed by `add`"),
    "one branch": (
        lambda x, k: conv(x, lax.cond(x.sum() > 0, lambda: k, lambda: jnp.cos(k))),
        "changed by `cos`",
    ),
    "loop": (changed_in_loop, "changed by `sin`"),
    "loop of three steps": (changed_by_three_steps, "changed by `sin`"),
    "custom_jvp": (lambda x, k: conv(x, jax.nn.relu(k)), "changed by `max`"),
    "callback": (
        lambda x, k: conv(x, jax.pure_callback(np.sin, k, k)),
        "changed by `pure_callback`",
    ),
    "inside a solver": (
        lambda x, k: conv(x, solved(jnp.arange(1.0, 5.0), k)),
        "changed by `custom_linear_solve`",
    ),
    "unknown primitive": (
        lambda x, k: conv(x, with_program(lambda k, j: k, k, k, 1.0)),
        "changed by `somebody_elses`",
    ),
    "unknown primitive with two results inside": (
        lambda x, k: conv(x, with_program(lambda k, j: (k, j), k, k)),
        "changed by `somebody_elses`",
    ),
    "kernel of kernels": (
        lambda x, k: conv(x, conv(k, k)),
        "changed by `conv_general_dilated`",
    ),
    "reduction with a program": (
        lambda x, k: conv(
            x, jnp.ones((1, 1, 4, 4)) * lax.reduce(k, 0.0, lax.mul, (0, 1, 2, 3))
        ),
        "changed by `reduce",
    ),
    "transposing reshape": (
        lambda x, k: conv(x, lax.reshape(k, k.shape, (1, 0, 2, 3))),
        "changed by `",
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_changed_kernels(name):
    fn, expected = CHANGED[name]
    message = refused(fn)
    assert expected in message
    assert "by hand" in message


def normalized_layers():
    """Layers of flax that change a kernel, its name, and what the error says."""
    rngs = nnx.Rngs(0)
    weight_norm = nnx.WeightNorm(nnx.Conv(4, 4, (3, 3), rngs=rngs), rngs=rngs)
    spectral_norm = nnx.SpectralNorm(nnx.Conv(4, 4, (3, 3), rngs=rngs), rngs=rngs)
    return weight_norm, spectral_norm


@pytest.mark.parametrize(
    ("index", "expected"),
    [(0, "`mul`, as by weight normalization"), (1, "`reshape`, as by .* or spectral")],
    ids=["weight norm", "spectral norm"],
)
def test_nnx_normalized_kernels(index, expected):
    layer = nnx.eval_shape(normalized_layers)[index]
    layer.eval()
    with pytest.raises(ValueError, match=f"/kernel` is changed by {expected}"):
        conv_input_shapes(call, layer, X)


class LinenWeightNorm(linen.Module):
    """A convolution whose kernel is normalized."""

    @linen.compact
    def __call__(self, x):
        return linen.WeightNorm(linen.Conv(4, (3, 3), name="conv"))(x)


def test_linen_normalized_kernels():
    model = LinenWeightNorm()
    variables = jax.eval_shape(model.init, jax.random.key(0), X)
    with pytest.raises(ValueError, match="`params/conv/kernel` is changed by `mul`"):
        conv_input_shapes(model.apply, variables, X)


def test_the_error_names_kernels_rather_than_their_scales():
    params = {"conv": {"kernel": abstract(3, 3, 4, 4), "scale": abstract(4)}}
    with pytest.raises(ValueError, match="but `conv/kernel` is changed by `mul`"):
        conv_input_shapes(
            lambda p, x: conv(x, p["conv"]["kernel"] * p["conv"]["scale"]), params, X
        )


def test_a_kernel_computed_from_leaves_that_are_none():
    params = {"embedding": abstract(36), "weights": abstract(36, 4)}

    def hypernetwork(params, x):
        kernel = params["embedding"][:, None] * params["weights"]
        return conv(x, kernel.reshape(3, 3, 4, 4))

    pattern = "but `embedding` is changed by `.*`, `weights` is changed by `mul`"
    with pytest.raises(ValueError, match=pattern):
        conv_input_shapes(hypernetwork, params, X)


STACKED = abstract(2, 3, 3, 4, 4)


def stacked_for_scan(x, kernels):
    return lax.scan(lambda x, kernel: (conv(x, kernel), None), x, kernels)


def stacked_by_index(x, kernels):
    return lax.fori_loop(0, 2, lambda i, x: conv(x, kernels[i]), x)


def models(x, kernels):
    return jax.vmap(conv, (None, 0))(x, kernels)


def models_with_images(x, kernels):
    return jax.vmap(conv)(x[:, None], kernels)


def stacked_ys(x, kernels):
    _, stacked = lax.scan(lambda c, _: (c, kernels), 0, length=1)
    return conv(x, stacked[0, 0])


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (stacked_for_scan, "is stacked and sliced by `scan`"),
        (stacked_by_index, "changed by `"),
        (models, "changed by `reshape`, as by `vmap` over parameters"),
        (models_with_images, "changed by `reshape`, as by `vmap` over parameters"),
        (stacked_ys, "is stacked and sliced by `scan`"),
    ],
)
def test_stacked_kernels(fn, expected):
    assert expected in refused(fn, STACKED)


def test_linen_scan_over_layers():
    model = linen.scan(
        LinenBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
    )()
    variables = jax.eval_shape(model.init, jax.random.key(0), X, None)
    with pytest.raises(ValueError, match="`Conv_0/kernel` is stacked and sliced by"):
        conv_input_shapes(
            lambda params, x: model.apply({"params": params}, x, None),
            variables["params"],
            X,
        )


def test_nnx_scan_over_layers():
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(key):
        return nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(key))

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def forward(x, layer):
        return layer(x)

    layers = nnx.eval_shape(lambda: create(jax.random.split(jax.random.key(0), 3)))
    with pytest.raises(ValueError, match="`layers/kernel` is stacked and sliced by"):
        conv_input_shapes(
            lambda params, x: forward(x, params["layers"]), {"layers": layers}, X
        )


def test_kernels_split_over_devices():
    mesh = jax.make_mesh((2,), ("out",), axis_types=(AxisType.Auto,))
    out = PartitionSpec(None, None, None, "out")
    fn = jax.shard_map(conv, mesh=mesh, in_specs=(PartitionSpec(), out), out_specs=out)
    assert "is changed by `shard_map`" in refused(fn)


def test_kernels_stacked_over_devices():
    mesh = jax.make_mesh((2,), ("out",), axis_types=(AxisType.Auto,))
    stack = jax.shard_map(
        lambda kernel: lax.pcast(kernel, "out", to="varying"),
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(None, None, None, "out"),
    )
    message = refused(lambda x, k: conv(x, stack(k)), abstract(3, 3, 4, 2))
    assert "is changed by `shard_map`" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lhs_dilation": (2, 2), "padding": ONES}, "got a transposed one"),
        ({"batch_group_count": 2}, "got one with batch_group_count"),
    ],
)
def test_other_convolutions(options, expected):
    assert expected in refused(lambda x, k: conv(x, k, **options))


def test_nnx_transposed_convolution():
    model = nnx.eval_shape(
        lambda: nnx.ConvTranspose(4, 4, (3, 3), strides=2, rngs=nnx.Rngs(0))
    )
    with pytest.raises(ValueError, match=r"use `up/kernel` in plain.* transposed"):
        conv_input_shapes(lambda p, x: p["up"](x), {"up": model}, X)


def computed_from_x(x, kernel):
    weights = jax.nn.softmax(x.mean((0, 1, 2)))
    return conv(x, kernel * weights)


@pytest.mark.parametrize(
    "fn",
    [
        computed_from_x,
        lambda x, k: x,
        lambda x, k: conv(x, jnp.ones((3, 3, 4, 4))),
        lambda x, k: x @ k.mean((0, 1)),
        lambda x, k: conv(k, x[:, :, :4]),
        lambda x, k: conv(x, k) if x.shape[0] > 2 else x,
        lambda x, k: jnp.tensordot(
            lax.conv_general_dilated_patches(
                x, (3, 3), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            jnp.moveaxis(k, 2, 0).reshape(-1, 4),
            1,
        ),
    ],
    ids=["from x", "unused", "constant", "mean", "lhs", "branch", "patches"],
)
def test_unused_kernels(fn):
    assert "no convolution uses `net/conv/kernel`" in refused(fn)


def test_every_unused_kernel_is_named():
    model = nnx.eval_shape(lambda: SmallCNN(form="patches", rngs=nnx.Rngs(0)))
    model.eval()
    with pytest.raises(
        ValueError,
        match=r"no convolution uses `conv1/kernel`, `conv2/kernel`\. Likely reasons: a "
        "product of patches",
    ):
        conv_input_shapes(call, model, abstract(5, 28, 28, 1))


def test_one_of_two_kernels_is_unused():
    with pytest.raises(ValueError, match=r"no convolution uses `conv/b/w`\. Likely"):
        conv_input_shapes(lambda p, x: conv(x, p["conv"]["a"]["kernel"]), TWO, X)


def test_closing_over_the_parameters():
    kernel = np.ones((3, 3, 4, 4), np.float32)
    with pytest.raises(
        ValueError, match=r"`conv/kernel`.* a `fn` that closes over its"
    ):
        conv_input_shapes(lambda p, x: conv(x, kernel), {"conv": {"kernel": kernel}}, X)


@pytest.mark.parametrize("params", [{}, {"dense": {"kernel": abstract(4, 2)}}, None])
def test_no_convolution(params):
    with pytest.raises(ValueError, match="`fn` must convolve with a leaf of `params`"):
        conv_input_shapes(lambda p, x: x, params, X)


@pytest.mark.parametrize("fn", [None, 3, PARAMS])
def test_fn_is_no_function(fn):
    pattern = f"`fn` must be a callable of params and x, got {type(fn).__name__}"
    with pytest.raises(ValueError, match=re.escape(pattern)):
        conv_input_shapes(fn, PARAMS, X)


def test_two_leaves_of_one_name():
    kernel = abstract(3, 3, 4, 4)
    params = {"net/conv": {"w": kernel}, "net": {"conv": {"w": kernel}}}
    with pytest.raises(ValueError, match="`params` must not hold `net/conv/w` twice"):
        conv_input_shapes(lambda p, x: x, params, X)
