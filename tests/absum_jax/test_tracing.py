"""tracing.py: the geometry of every use of every convolution kernel."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_uses import (
    ONES,
    PARAMS,
    TWO,
    USE,
    X,
    abstract,
    but,
    conv,
    uses_of,
    with_program,
)
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import primitives
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from absum_jax.tracing import ConvUse, conv_input_shapes

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
