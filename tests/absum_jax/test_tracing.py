"""tracing.py: the geometry of every use of every convolution kernel."""

import dataclasses
import functools
import itertools
import re

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core
from jax.extend.core import primitives
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from absum_jax.kernels import leaf_name
from absum_jax.tracing import ConvUse, conv_input_shapes
from experiments.models.small_cnn import SmallCNN

LAYOUTS = {3: ("NWC", "WIO"), 4: ("NHWC", "HWIO"), 5: ("NDHWC", "DHWIO")}


def abstract(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def conv(x, kernel, strides=1, padding="SAME", **options):
    """A convolution in flax's layout, of any rank."""
    data, weights = LAYOUTS[x.ndim]
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides,) * (x.ndim - 2),
        padding,
        dimension_numbers=(data, weights, data),
        **options,
    )


X = abstract(2, 8, 6, 4)
PARAMS = {"conv": {"kernel": abstract(3, 3, 4, 4), "bias": abstract(4)}}
# A 3x3 kernel, "SAME": one row and column of zeros on each side.
USE = ConvUse(
    input_shape=(8, 6),
    output_shape=(8, 6),
    strides=(1, 1),
    padding=((1, 1), (1, 1)),
    kernel_dilation=(1, 1),
    groups=1,
    kernel_axes=(0, 1, 2, 3),
)
but = dataclasses.replace
ONES = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))


def uses_of(kernel_fn, kernel=PARAMS["conv"]["kernel"], x=X):
    """The uses of a kernel in `kernel_fn(x, kernel)`."""
    params = {"conv": {"kernel": kernel}}
    found = conv_input_shapes(lambda p, x: kernel_fn(x, p["conv"]["kernel"]), params, x)
    assert list(found) == ["conv/kernel"]
    return found["conv/kernel"]


# Geometry

GEOMETRIES = {
    # "SAME": ceil(8 / 2) outputs; (4 - 1) * 2 + 3 - 8 = 1 zero, at the end
    "strided": (
        (8, 6),
        (3, 3),
        {"strides": 2},
        {"output_shape": (4, 3), "strides": (2, 2), "padding": ((0, 1), (0, 1))},
    ),
    "valid": (
        (8, 6),
        (3, 2),
        {"padding": "VALID"},
        {"output_shape": (6, 5), "padding": ((0, 0), (0, 0))},
    ),
    # 7 + 1 + 2 - 5 + 1 rows; the kernel is longer than the image is wide
    "explicit": (
        (7, 3),
        (5, 5),
        {"padding": [(1, 2), (3, 0)]},
        {"output_shape": (6, 2), "padding": ((1, 2), (3, 0))},
    ),
    "negative": (
        (8, 6),
        (1, 1),
        {"padding": [(-1, 0), (0, -2)]},
        {"output_shape": (7, 4), "padding": ((-1, 0), (0, -2))},
    ),
    # floor((8 - 3) / 3) + 1
    "stride that does not divide": (
        (8, 6),
        (3, 3),
        {"strides": 3, "padding": "VALID"},
        {"output_shape": (2, 2), "strides": (3, 3), "padding": ((0, 0), (0, 0))},
    ),
    # A dilated kernel extends over 2 * (3 - 1) + 1 = 5.
    "dilated": (
        (8, 6),
        (3, 3),
        {"rhs_dilation": (2, 1)},
        {"padding": ((2, 2), (1, 1)), "kernel_dilation": (2, 1)},
    ),
    "even kernel": ((8, 6), (2, 4), {}, {"padding": ((0, 1), (1, 2))}),
    "1-d": (
        (9,),
        (3,),
        {"strides": 2, "padding": "SAME_LOWER"},
        {
            "output_shape": (5,),
            "strides": (2,),
            "padding": ((1, 1),),
            "kernel_dilation": (1,),
            "kernel_axes": (0, 1, 2),
        },
    ),
    "3-d": (
        (5, 6, 7),
        (1, 3, 5),
        {},
        {
            "strides": (1, 1, 1),
            "padding": ((0, 0), (1, 1), (2, 2)),
            "kernel_dilation": (1, 1, 1),
            "kernel_axes": (0, 1, 2, 3, 4),
        },
    ),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry(name):
    size, window, options, expected = GEOMETRIES[name]
    expected = {"input_shape": size, "output_shape": size, **expected}
    found = uses_of(
        lambda x, kernel: conv(x, kernel, **options),
        abstract(*window, 4, 5),
        abstract(2, *size, 4),
    )
    assert found == (but(USE, **expected),)


@pytest.mark.parametrize(("groups", "out"), [(2, 6), (4, 4), (4, 8)])
def test_groups_and_depthwise(groups, out):
    found = uses_of(
        lambda x, kernel: conv(x, kernel, feature_group_count=groups),
        abstract(3, 3, 4 // groups, out),
    )
    assert found == (but(USE, groups=groups),)


def by_hand(x, kernel, use):
    """The convolution that a use describes, of NHWC or NWC images."""
    return conv(
        x,
        kernel.transpose(use.kernel_axes),
        1,
        use.padding,
        rhs_dilation=use.kernel_dilation,
        feature_group_count=use.groups,
    )


@pytest.mark.parametrize(
    ("data", "weights", "expected"),
    [
        ("NHWC", "HWIO", (0, 1, 2, 3)),
        ("NCHW", "OIHW", (2, 3, 1, 0)),
        ("NHWC", "OHWI", (1, 2, 3, 0)),
        ("CHWN", "IHWO", (1, 2, 0, 3)),
        # The order of space is the input's.
        ("NHWC", "WHIO", (1, 0, 2, 3)),
        ("NCHW", "OWIH", (3, 1, 2, 0)),
    ],
)
def test_kernel_axes_give_the_convolution_back(data, weights, expected):
    rng = np.random.default_rng(0)
    window = dict(zip("HWIO", (3, 2, 2, 4), strict=True))
    kernel = rng.normal(size=[window[axis] for axis in weights]).astype(np.float32)
    x = rng.normal(size=(2, 5, 6, 4)).astype(np.float32)
    # jax orders strides, padding and dilation as the kernel's spatial axes.
    options = {"H": ((1, 2), 1), "W": ((0, 3), 2)}
    space = [axis for axis in weights if axis in "HW"]

    def layout(x, kernel):
        return lax.conv_general_dilated(
            x.transpose(*map("NHWC".index, data)),
            kernel,
            (1, 1),
            [options[axis][0] for axis in space],
            rhs_dilation=[options[axis][1] for axis in space],
            dimension_numbers=(data, weights, "NHWC"),
            feature_group_count=2,
        )

    [use] = uses_of(layout, kernel, x)
    assert use == ConvUse(
        input_shape=(5, 6),
        output_shape=(6, 7),  # 5 + 3 - 3 + 1, 6 + 3 - (2 * 1 + 1) + 1
        strides=(1, 1),
        padding=((1, 2), (0, 3)),
        kernel_dilation=(1, 2),
        groups=2,
        kernel_axes=expected,
    )
    np.testing.assert_allclose(layout(x, kernel), by_hand(x, kernel, use), atol=1e-5)


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))])
def test_transposes_are_followed(order):
    def transposed(x, kernel):
        return conv(x, kernel.transpose(*np.argsort(order)))

    shape = (3, 2, 4, 5)
    [use] = uses_of(transposed, abstract(*(shape[axis] for axis in order)))
    # The kernel's axis i is the leaf's axis whose number in `order` is i.
    assert use == but(
        USE, padding=((1, 1), (0, 1)), kernel_axes=tuple(np.argsort(order))
    )


def test_two_transposes_compose():
    def twice(x, kernel):
        return conv(x, jnp.moveaxis(kernel.transpose(1, 2, 3, 0), 0, -1))

    # (a, b, c, d) -> (b, c, d, a) -> (c, d, a, b)
    assert uses_of(twice, abstract(4, 5, 3, 3)) == (but(USE, kernel_axes=(2, 3, 0, 1)),)


# What the kernel may pass through

same_with_jvp = jax.custom_jvp(lambda k: k)
same_with_jvp.defjvp(lambda primals, tangents: (primals[0], tangents[0]))

SAME = {
    "bfloat16": lambda k: k.astype(jnp.bfloat16),
    "float16 and back": lambda k: k.astype(jnp.float16).astype(jnp.float32),
    "copy": jnp.copy,
    "array": jnp.array,
    "ellipsis": lambda k: k[...],
    "whole slice": lambda k: lax.slice(k, (0,) * 4, k.shape),
    "whole dynamic slice": lambda k: lax.dynamic_slice(k, (0,) * 4, k.shape),
    "stop_gradient": lax.stop_gradient,
    "flip": lambda k: jnp.flip(k, (0, 1)),
    "reduce_precision": lambda k: lax.reduce_precision(k, 8, 7),
    # Functions of jax.lax leave these out.
    "reshape": lambda k: primitives.reshape_p.bind(
        k, new_sizes=k.shape, dimensions=None, sharding=None
    ),
    "broadcast": lambda k: primitives.broadcast_in_dim_p.bind(
        k, shape=k.shape, broadcast_dimensions=(0, 1, 2, 3), sharding=None
    ),
    "squeeze": lambda k: primitives.squeeze_p.bind(k, dimensions=()),
    "barrier": lambda k: lax.optimization_barrier((jnp.ones(2), k))[1],
    "device_put": jax.device_put,
    "name": lambda k: checkpoint_name(k, "kernel"),
    "transposed twice": lambda k: k.T.T,
    "jit": jax.jit(lambda k: k),
    "custom_jvp": same_with_jvp,
}


@pytest.mark.parametrize("name", SAME)
def test_unchanged_kernels(name):
    def through(x, kernel):
        kernel = SAME[name](kernel)
        return conv(x.astype(kernel.dtype), kernel)

    assert uses_of(through) == (USE,)


def test_sharding_constraint():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec())
    found = uses_of(lambda x, k: conv(x, lax.with_sharding_constraint(k, sharding)))
    assert found == (USE,)


def test_resharding():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    whole = NamedSharding(mesh, PartitionSpec(None, None, None, None))
    rows = NamedSharding(mesh, PartitionSpec(None, None, None, "batch"))
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 4), jnp.float32, sharding=rows)
    with jax.set_mesh(mesh):
        found = uses_of(lambda x, k: conv(x, jax.sharding.reshard(k, whole)), kernel)
    assert found == (USE,)


# Programs within programs


@jax.custom_jvp
def with_jvp(x, kernel):
    return conv(x, kernel)


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), with_jvp(*tangents)))


@jax.custom_vjp
def with_vjp(x, kernel):
    return conv(x, kernel)


with_vjp.defvjp(lambda x, k: (with_vjp(x, k), None), lambda _, g: (g, None))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def with_static_vjp(strides, x, kernel):
    return conv(x, kernel, strides)


with_static_vjp.defvjp(
    lambda strides, x, k: (with_static_vjp(strides, x, k), None),
    lambda strides, _, g: (g, None),
)


@jax.custom_batching.custom_vmap
def with_vmap(x, kernel):
    return conv(x, kernel)


with_vmap.def_vmap(lambda size, batched, x, kernel: (with_vmap(x, kernel), False))


@jax.custom_gradient
def with_gradient(x, kernel):
    return conv(x, kernel), lambda g: (g, None)


def scanned(x, kernel):
    return lax.scan(lambda x, _: (conv(x, kernel), x.sum()), x, length=2)


def scanned_with_xs(x, kernel):
    def step(x, scale):
        return conv(scale * x, kernel), scale

    return lax.scan(step, x, jnp.arange(3.0), reverse=True, unroll=2)


def scanned_in_carry(x, kernel):
    def step(carry, _):
        x, (kernel,) = carry
        return (conv(x, kernel), (kernel,)), kernel.sum()

    return lax.scan(step, (x, (kernel,)), length=2)


def scanned_after_transposing(x, kernel):
    transposed = jnp.moveaxis(kernel, -1, 0)
    return scanned(x, jnp.moveaxis(transposed, 0, -1))


def while_body(x, kernel):
    return lax.while_loop(
        lambda carry: carry.sum() < 3, lambda carry: conv(carry, kernel), x
    )


def while_condition(x, kernel):
    return lax.while_loop(lambda x: conv(x, kernel).sum() < 3, lambda x: x + 1, x)


def while_carry(x, kernel):
    def step(carry):
        i, x, kernel = carry
        return i + 1, conv(x, kernel), kernel

    return lax.while_loop(lambda carry: carry[0] < 3, step, (0, x, kernel))


def after_while(x, kernel):
    _, kernel = lax.while_loop(
        lambda carry: carry[0] < 3, lambda carry: (carry[0] + 1, carry[1]), (0, kernel)
    )
    return conv(x, kernel)


def after_scan(x, kernel):
    carry, _ = lax.scan(lambda c, _: ((c[1], c[0]), None), (kernel, kernel), length=3)
    return conv(x, carry[0])


def fori(x, kernel):
    return lax.fori_loop(0, 3, lambda i, x: conv(x, kernel), x)


def dynamic_fori(x, kernel):
    n = x.sum().astype(int)
    return lax.fori_loop(0, n, lambda i, x: conv(x, kernel), x)


def cond(x, kernel):
    return lax.cond(x.sum() > 0, lambda: conv(x, kernel), lambda: x)


def switch(x, kernel):
    branches = [lambda x, k: x, conv, lambda x, k: x + 1]
    return lax.switch(x.sum().astype(int), branches, x, kernel)


def kernel_out_of_cond(x, kernel):
    return conv(x, lax.cond(x.sum() > 0, jnp.copy, lambda k: k, kernel))


def cond_without_operands(x, kernel):
    return conv(x, kernel) + lax.cond(x.sum() > 0, lambda: 1.0, lambda: 2.0)


def platforms(x, kernel):
    return lax.platform_dependent(x, kernel, cpu=conv, default=conv)


def sharded(x, kernel):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    batch, whole = PartitionSpec("batch"), PartitionSpec()
    return jax.shard_map(conv, mesh=mesh, in_specs=(batch, whole), out_specs=batch)(
        x, kernel
    )


def vmapped_over_images(x, kernel):
    return jax.vmap(lambda image: conv(image[None], kernel)[0])(x)


def mapped_over_images(x, kernel):
    return lax.map(lambda image: conv(image[None], kernel)[0], x)


def nested(x, kernel):
    @jax.checkpoint
    def block(x, kernel):
        return lax.cond(x.sum() > 0, jax.jit(scanned), scanned, x, kernel)[0]

    return while_carry(block(x, kernel), kernel)


PROGRAMS = {
    "jit": jax.jit(conv),
    "jit in jit": jax.jit(lambda x, k: jax.jit(conv)(x, k)),
    "checkpoint": jax.checkpoint(conv),
    "checkpoint with a policy": jax.checkpoint(
        conv, policy=jax.checkpoint_policies.dots_saveable
    ),
    "custom_jvp": with_jvp,
    "custom_vjp": with_vjp,
    "custom_vjp with a static argument": functools.partial(with_static_vjp, 1),
    "custom_vmap": with_vmap,
    "custom_gradient": with_gradient,
    "scan": scanned,
    "scan with xs": scanned_with_xs,
    "scan carry": scanned_in_carry,
    "scan after transposing": scanned_after_transposing,
    "while body": while_body,
    "while condition": while_condition,
    "while carry": while_carry,
    "after while": after_while,
    "after scan": after_scan,
    "fori_loop": fori,
    "dynamic fori_loop": dynamic_fori,
    "cond": cond,
    "switch": switch,
    "kernel out of cond": kernel_out_of_cond,
    "cond without operands": cond_without_operands,
    "platform_dependent": platforms,
    "shard_map": sharded,
    "vmap over images": vmapped_over_images,
    "map over images": mapped_over_images,
    "nested": nested,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name):
    assert uses_of(PROGRAMS[name]) == (USE,)


def with_program(fn, *args):
    """A primitive of somebody else's that runs `fn`, with its first two operands."""
    primitive = core.Primitive("somebody_elses")
    primitive.def_abstract_eval(lambda *avals, body: body.out_avals[0])
    return primitive.bind(*args, body=jax.make_jaxpr(fn)(*args[:2]))


def test_unknown_primitives():
    assert uses_of(lambda x, k: with_program(conv, x, k)) == (USE,)
    found = uses_of(lambda x, k: conv(x, with_program(lambda k, x: k, k, x)))
    assert found == (USE,)


def test_a_loop_that_never_comes_to_rest():
    def fn(params, x):
        sine, cosine = jnp.sin(params["bias"]), jnp.cos(params["bias"])
        swapped, _ = lax.fori_loop(0, 3, lambda i, c: (c[1], c[0]), (sine, cosine))
        return conv(x, params["kernel"]) + swapped

    assert conv_input_shapes(fn, PARAMS["conv"], X) == {"kernel": (USE,)}


def test_shard_map_sees_the_size_on_one_device():
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec(None, "rows"), PartitionSpec()
    found = uses_of(
        jax.shard_map(conv, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    )
    assert found == (but(USE, input_shape=(4, 6), output_shape=(4, 6)),)


# Several uses, several kernels

TWO = {
    "conv": {"a": {"kernel": abstract(3, 3, 4, 4)}, "b": {"w": abstract(3, 3, 4, 4)}}
}


def test_uses_in_order_of_appearance_without_duplicates():
    def shared(x, kernel):
        x = conv(conv(x, kernel), kernel)
        x = conv(x, kernel, 2)
        x = conv(x, kernel)
        return conv(conv(x, kernel, 2), kernel, padding="VALID", rhs_dilation=(1, 1))

    strided = {"strides": (2, 2), "padding": ((0, 1), (0, 1))}
    odd = {"strides": (2, 2), "padding": ((0, 1), (1, 1))}  # 6 -> 3 -> 2
    assert uses_of(shared, x=abstract(2, 16, 6, 4)) == (
        but(USE, input_shape=(16, 6), output_shape=(16, 6)),
        but(USE, input_shape=(16, 6), output_shape=(8, 3), **strided),
        but(USE, input_shape=(8, 3), output_shape=(8, 3)),
        but(USE, input_shape=(8, 3), output_shape=(4, 2), **odd),
        but(USE, input_shape=(4, 2), output_shape=(2, 0), padding=((0, 0), (0, 0))),
    )


def test_kernels_in_the_order_of_the_tree():
    def reversed_order(params, x):
        x = conv(x, params["conv"]["b"]["w"], 2)
        return conv(x, params["conv"]["a"]["kernel"])

    strided = {"strides": (2, 2), "padding": ((0, 1), (0, 1))}
    found = conv_input_shapes(reversed_order, TWO, X)
    assert list(found) == ["conv/a/kernel", "conv/b/w"]
    assert found == {
        "conv/a/kernel": (but(USE, input_shape=(4, 3), output_shape=(4, 3)),),
        "conv/b/w": (but(USE, output_shape=(4, 3), **strided),),
    }


@pytest.mark.parametrize("selection", ["cond", "scan"])
def test_one_of_two_kernels(selection):
    def either(params, x):
        a, b = params["conv"]["a"]["kernel"], params["conv"]["b"]["w"]
        if selection == "cond":
            return conv(x, lax.cond(x.sum() > 0, lambda: a, lambda: b.mT.mT))
        # Each step swaps the kernels.
        return lax.scan(lambda c, _: ((conv(c[0], c[1]), c[2], c[1]), None), (x, a, b),
                        length=2)  # fmt: skip

    uses = conv_input_shapes(either, TWO, X)
    assert uses == {"conv/a/kernel": (USE,), "conv/b/w": (USE,)}


def test_leaves_of_any_name_and_leaves_that_are_no_kernels():
    params = {"filters": abstract(3, 3, 4, 4), "dense": {"kernel": abstract(4, 2)}}
    found = conv_input_shapes(
        lambda p, x: conv(x, p["filters"]) @ p["dense"]["kernel"], params, X
    )
    assert found == {"filters": (USE,)}


def test_params_may_be_one_kernel():
    assert conv_input_shapes(lambda k, x: conv(x, k), abstract(3, 3, 4, 4), X) == {
        "": (USE,)
    }


def test_other_kernels_are_passed_over():
    def fn(params, x):
        blur = jnp.ones((3, 3, 1, 4)) / 9
        # A transposed convolution and one of batch groups, which a leaf may not have.
        x = conv(x, blur, 2, ONES, feature_group_count=4, lhs_dilation=(2, 2))
        x = conv(jnp.concatenate([x, x]), jnp.ones((3, 3, 4, 4)), batch_group_count=2)
        attention = jax.nn.softmax(x[0, :3, :3, :, None] * params["conv"]["bias"])
        x = conv(x, attention)
        rolled = lax.fori_loop(0, 3, lambda i, k: 2 * k, x[0, :3, :3, :, None])
        return conv(conv(x, params["conv"]["kernel"]), rolled * jnp.ones(4))

    assert conv_input_shapes(fn, PARAMS, X) == {"conv/kernel": (USE,)}


def test_a_leaf_as_the_input_is_no_kernel():
    params = {**PARAMS, "canvas": abstract(1, 8, 6, 4)}
    found = conv_input_shapes(
        lambda p, x: conv(p["canvas"], p["conv"]["kernel"]) + x, params, X
    )
    assert found == {"conv/kernel": (USE,)}


def test_an_adapted_kernel_counts_where_it_is_still_unadapted():
    def adapted(x, kernel):
        def step(kernel, _):
            y = conv(x, kernel)
            return kernel - y.mean(), None

        return conv(x, lax.scan(step, kernel, length=2)[0], 2)

    strided = {"strides": (2, 2), "padding": ((0, 1), (0, 1)), "output_shape": (4, 3)}
    assert uses_of(adapted) == (USE, but(USE, **strided))


def test_what_may_be_computed_from_x_is_passed_over():
    def fn(x, kernel):
        def adapt(adapted, _):
            return adapted - conv(x, adapted).mean(), None

        adapted, _ = lax.scan(adapt, 2 * kernel, length=2)
        filled = jnp.full(kernel.shape, x.mean())
        dynamic = lax.cond(x.sum() > 0, lambda: 2 * kernel, lambda: filled)
        return conv(conv(conv(x, kernel), adapted), dynamic)

    assert uses_of(fn) == (USE,)


def test_nothing_is_computed_and_nothing_is_compiled():
    huge = abstract(1024, 100_000, 100_000, 4)
    [use] = uses_of(jax.jit(conv), x=huge)
    assert use.input_shape == (100_000, 100_000)


def test_concrete_and_abstract_arrays_give_the_same():
    zeros = functools.partial(jax.tree.map, lambda leaf: np.zeros(leaf.shape, "f4"))
    for params, x in itertools.product([PARAMS, zeros(PARAMS)], [X, zeros(X)]):
        found = conv_input_shapes(lambda p, x: conv(x, **p["conv"]), *(
            {"conv": {"kernel": params["conv"]["kernel"]}}, x
        ))  # fmt: skip
        assert found == {"conv/kernel": (USE,)}


def test_inside_jit():
    found = []

    @jax.jit
    def step(kernel, x):
        found.append(uses_of(conv, kernel, x))
        return conv(x, kernel)

    step.trace(PARAMS["conv"]["kernel"], X)
    assert found == [(USE,)]


def test_any_tree_of_inputs_and_any_result():
    def fn(params, inputs):
        image, options = inputs
        assert options == {"mode": "SAME", "none": None}
        return "text", conv(image, params["conv"]["kernel"], padding=options["mode"])

    inputs = (X, {"mode": "SAME", "none": None})
    assert conv_input_shapes(fn, PARAMS, inputs) == {"conv/kernel": (USE,)}


def test_uses_are_static_data():
    assert len({USE, but(USE), but(USE, groups=2)}) == 2
    assert jax.tree.leaves({"a": (USE,)}) == [USE]
    [use] = uses_of(lambda x, k: conv(x, k, np.int64(2), [(np.int64(1), 1)] * 2))
    numbers = jax.tree.leaves(dataclasses.astuple(use))
    assert {type(number) for number in numbers} == {int}


# Frameworks


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


def call(model, x):
    return model(x)


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


class LinenBlock(linen.Module):
    """A step of linen.scan over shared parameters."""

    @linen.compact
    def __call__(self, x, _):
        return linen.Conv(4, (3, 3), padding="CIRCULAR")(x), None


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


# Errors


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
