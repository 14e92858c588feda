"""`canonical_convolutions` beside the plain functions, and what it compiles to."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import absum_jax
from absum_jax import canonical_convolutions

NHWC = ("NHWC", "HWIO", "NHWC")
# (shape of the images, of the kernel, other arguments of `conv_general_dilated`)
CASES = {
    "nchw": ((2, 4, 5, 6), (6, 4, 3, 3), {"padding": "SAME"}),
    "nhwc": (
        (2, 5, 6, 4), (3, 3, 4, 6), {"padding": "SAME", "dimension_numbers": NHWC},
    ),
    "strided, asymmetric": (
        (2, 9, 8, 4), (3, 2, 4, 6),
        {
            "window_strides": (2, 1), "padding": ((1, 0), (0, 2)),
            "dimension_numbers": NHWC,
        },
    ),
    "strided both ways": (
        (2, 10, 9, 4), (4, 3, 4, 6),
        {
            "window_strides": (3, 2), "padding": ((2, 1), (1, 1)),
            "dimension_numbers": NHWC,
        },
    ),
    "strided 1x1": (
        (2, 7, 8, 4), (1, 1, 4, 6),
        {"window_strides": (2, 2), "dimension_numbers": NHWC},
    ),
    "dilated": (
        (2, 4, 7, 6), (6, 4, 3, 2),
        {
            "window_strides": (1, 2), "padding": ((1, 2), (0, 2)),
            "lhs_dilation": (2, 1), "rhs_dilation": (1, 2),
        },
    ),
    "groups": ((2, 4, 5, 6), (6, 2, 3, 3), {"feature_group_count": 2}),
    "depthwise": (
        (2, 6, 5, 4), (3, 3, 1, 4),
        {"feature_group_count": 4, "padding": "SAME", "dimension_numbers": NHWC},
    ),
    "groups of the batch": (
        (4, 5, 6, 3), (3, 3, 3, 6),
        {"batch_group_count": 2, "padding": "SAME", "dimension_numbers": NHWC},
    ),
    "one axis": ((2, 3, 9), (5, 3, 4), {"window_strides": (2,), "padding": ((1, 2),)}),
    "three axes": ((2, 3, 4, 5, 3), (4, 3, 2, 3, 2), {"window_strides": (1, 2, 1)}),
    "any order": (
        (7, 2, 6, 4), (3, 6, 4, 3),
        {"padding": "SAME", "dimension_numbers": ("HNWC", "HOIW", "CWNH")},
    ),
}  # fmt: skip


def _draw(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def _case(name):
    """A scalar function of images and a kernel, and both."""
    images, kernel, options = CASES[name]
    defaults = {"window_strides": (1,) * (len(images) - 2), "padding": "VALID"}
    convolve = functools.partial(
        jax.lax.conv_general_dilated, **defaults | options
    )  # fmt: skip
    weights = _draw(2, jax.eval_shape(convolve, *_zeros(images, kernel)).shape)

    def function(x, kernel):
        return jnp.sum(jnp.tanh(convolve(x, kernel)) * weights)

    return function, _draw(0, images), _draw(1, kernel)


def _zeros(*shapes):
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def _layouts(function, *args, platform="cpu"):
    """The layouts of the convolutions of a program, and how often it transposes."""
    exported = jax.export.export(jax.jit(function), platforms=[platform])(*args)
    text = exported.mlir_module()
    layouts = re.findall(r"stablehlo.convolution.*?dim_numbers = (.*?), window", text)
    return sorted(layouts), text.count("stablehlo.transpose")


def _is_canonical(layout):
    middle = ", ".join(map(str, range(layout.split("->")[1].count(",") - 1)))
    return layout == f"[b, {middle}, f]x[{middle}, i, o]->[b, {middle}, f]"


def _assert_same(a, b, rtol=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        scale = np.abs(np.asarray(x, np.float64)).max()
        np.testing.assert_allclose(
            np.asarray(x, np.float64), np.asarray(y, np.float64), atol=rtol * scale
        )


def _gradients_in_a_loop(function):
    gradient = jax.grad(function, (0, 1))

    def loop(x, kernel):
        def step(pair, _):
            moves = gradient(*pair)
            return jax.tree.map(lambda p, m: p - 0.1 * m, pair, moves), None

        return jax.lax.scan(step, (x, kernel), length=2)[0]

    return loop


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_are_those_of_the_plain_function(name):
    function, x, kernel = _case(name)
    gradients = jax.grad(function, (0, 1))

    def everything(transform):
        """All that is to agree, of one function."""
        ours, its_gradients = transform(function), transform(gradients)
        several = jnp.stack([x, 2 * x]), jnp.stack([kernel, -kernel])

        def norm(x, kernel):
            return sum(jnp.vdot(g, g) for g in its_gradients(x, kernel))

        return {
            "value": ours(x, kernel),
            "gradients": its_gradients(x, kernel),
            "gradients around": jax.grad(ours, (0, 1))(x, kernel),
            "forward mode": jax.jvp(its_gradients, (x, kernel), (x, kernel))[1],
            "second derivatives": jax.grad(norm, (0, 1))(x, kernel),
            "over both": jax.vmap(its_gradients)(*several),
            "over images": jax.vmap(its_gradients, (0, None))(several[0], kernel),
            "over kernels": jax.vmap(its_gradients, (None, 0))(x, several[1]),
            "in a loop": transform(_gradients_in_a_loop(function))(x, kernel),
        }

    plain = jax.jit(lambda: everything(lambda f: f))()
    ours = jax.jit(lambda: everything(canonical_convolutions))()
    for what, expected in plain.items():
        # Without LLVM's optimization, as in these tests, either is up to 1.7e-5 from
        # what float64 gives, in forward mode.
        _assert_same(expected, ours[what], 4e-5)


@pytest.mark.parametrize("name", CASES)
def test_programs_for_a_cpu_are_canonical_and_others_unchanged(name):
    function, x, kernel = _case(name)
    loop = _gradients_in_a_loop(function)
    layouts, _ = _layouts(canonical_convolutions(loop), x, kernel)
    assert layouts
    assert all(map(_is_canonical, layouts))
    for platform in ("cuda", "tpu"):
        plain = _layouts(loop, x, kernel, platform=platform)
        ours = _layouts(canonical_convolutions(loop), x, kernel, platform=platform)
        assert ours == plain
        assert not all(map(_is_canonical, plain[0]))


@jax.custom_jvp
def _custom_jvp(x):
    return _convolve(x)


@_custom_jvp.defjvp
def _custom_jvp_rule(primals, tangents):
    return _convolve(*primals), 2 * _convolve(*tangents)


@jax.custom_vjp
def _custom_vjp(x):
    return _convolve(x)


_custom_vjp.defvjp(
    lambda x: (_convolve(x), None),
    lambda _, g: (3 * jax.vjp(_convolve, g)[1](g)[0],),
)

KERNEL = _draw(3, (4, 4, 3, 3))


def _convolve(x):
    return jax.lax.conv(x, KERNEL, (1, 1), "SAME")


def _in_shard_map(x, **options):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")

    def body(x):
        return jax.lax.scan(lambda x, _: (_convolve(x), None), x, length=2)[0]

    return jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, **options)(x)


WRAPPERS = {
    "jit": jax.jit(_convolve),
    "jit twice": lambda x: jax.jit(_convolve)(jax.jit(_convolve)(x)),
    "scan": lambda x: jax.lax.scan(lambda x, _: (_convolve(x), x), x, length=2),
    "while": lambda x: jax.lax.while_loop(
        lambda x: _convolve(x).sum() < 1e9, lambda x: 2 * _convolve(x), x
    ),
    "map": lambda x: jax.lax.map(lambda x: _convolve(x[None])[0], x),
    "cond": lambda x: jax.lax.cond(x.sum() > 0, _convolve, lambda x: -_convolve(x), x),
    "checkpoint": jax.checkpoint(_convolve),
    "custom_jvp": _custom_jvp,
    "custom_vjp": _custom_vjp,
    "shard_map": _in_shard_map,
    "shard_map, unchecked": functools.partial(_in_shard_map, check_vma=False),
    "linear solve": lambda x: jax.lax.custom_linear_solve(
        lambda v: v + 1e-3 * _convolve(v), x, lambda _, b: b - 1e-3 * _convolve(b)
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_convolutions_are_found_wherever_they_are(name):
    x = _draw(0, (2, 4, 5, 6))

    def with_gradient(x):
        if name in ("while", "linear solve"):
            return WRAPPERS[name](x)
        return jax.value_and_grad(lambda x: sum(map(jnp.sum, _leaves(x))))(x)

    def _leaves(x):
        return jax.tree.leaves(WRAPPERS[name](x))

    ours = canonical_convolutions(with_gradient)
    _assert_same(jax.jit(with_gradient)(x), jax.jit(ours)(x))
    layouts, _ = _layouts(ours, x)
    assert layouts
    assert all(map(_is_canonical, layouts))


@pytest.mark.parametrize(
    "out_sharding",
    [None, PartitionSpec("data"), PartitionSpec("data", None, None, "m")],
)
def test_explicit_shardings_are_kept(out_sharding):
    mesh = jax.make_mesh((2, 2), ("data", "m"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        x = jax.device_put(_draw(0, (4, 4, 6, 6)), PartitionSpec("data"))

        def convolve(x):
            return jax.lax.conv_general_dilated(
                x, KERNEL, (1, 1), "SAME",
                out_sharding=out_sharding and NamedSharding(mesh, out_sharding),
            )  # fmt: skip

        plain = jax.jit(convolve)(x)
        ours = jax.jit(canonical_convolutions(convolve))(x)
        assert ours.sharding.is_equivalent_to(plain.sharding, 4)
        assert jax.typeof(ours) == jax.typeof(plain)
        _assert_same(plain, ours)
        typed = jax.make_jaxpr(canonical_convolutions(convolve))(x).out_avals
        assert typed == jax.make_jaxpr(convolve)(x).out_avals


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_converted(dtype):
    x, kernel = _draw(0, (2, 4, 5, 6), dtype), KERNEL.astype(dtype)

    def convolve(x, kernel):
        return jax.lax.map(lambda x: jax.lax.conv(x, kernel, (1, 1), "SAME"), x[None])

    layouts, _ = _layouts(canonical_convolutions(convolve), x, kernel)
    assert layouts
    assert all(map(_is_canonical, layouts))
    _assert_same(
        jax.jit(convolve)(x, kernel),
        jax.jit(canonical_convolutions(convolve))(x, kernel),
        rtol=1e-2,
    )


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64, jnp.float64])
def test_others_are_left_as_they_are(dtype):
    with jax.enable_x64(True):
        x, kernel = (4 * _draw(0, (2, 4, 5, 6))).astype(dtype), KERNEL.astype(dtype)

        def convolve(x, kernel):
            return jax.lax.conv(x, kernel, (1, 1), "SAME")

        ours = canonical_convolutions(convolve)
        assert _layouts(ours, x, kernel) == _layouts(convolve, x, kernel)
        np.testing.assert_array_equal(
            jax.jit(convolve)(x, kernel), jax.jit(ours)(x, kernel)
        )


def test_arguments_and_results_are_trees():
    def function(params, x, *, scale, shift=None):
        out = scale * jax.lax.conv(x, params["kernel"], (1, 1), "SAME")
        return {"out": out if shift is None else out + shift, "none": None}, (x, 3)

    x = _draw(0, (2, 4, 5, 6))
    args, options = ({"kernel": KERNEL}, x), {"scale": 2.0}
    ours = canonical_convolutions(function)(*args, **options)
    expected = function(*args, **options)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    _assert_same(jax.tree.map(jnp.asarray, expected), jax.tree.map(jnp.asarray, ours))
    assert canonical_convolutions(function).__name__ == "function"


def test_changes_in_place_are_refused():
    """They would be lost: a training step would silently train nothing."""

    def step(model, x):
        grads = nnx.grad(lambda model, x: model(x).sum())(model, x)
        nnx.update(
            model, jax.tree.map(jnp.subtract, nnx.state(model, nnx.Param), grads)
        )

    model = nnx.Conv(4, 2, (3, 3), rngs=nnx.Rngs(0))
    x = jnp.ones((1, 5, 5, 4))
    for call in (
        lambda: nnx.jit(canonical_convolutions(step))(model, x),
        lambda: canonical_convolutions(lambda tree: tree.update(new=2 * tree["x"]))(
            {"x": x}
        ),
        lambda: canonical_convolutions(lambda tree: tree.pop("x"))({"x": x}),
    ):
        with pytest.raises(ValueError, match="`fn` must return what it changes"):
            call()

    graphdef, state = nnx.split(model)

    @jax.jit
    @canonical_convolutions
    def pure(state, x):
        model = nnx.merge(graphdef, state)
        step(model, x)
        return nnx.state(model)

    # Merging shares the variables of the state.
    before, after = model.kernel[...], pure(state, x)["kernel"][...]
    assert jnp.abs(before - after).max() > 0.1


def test_values_of_outer_transformations_may_be_closed_over():
    x = _draw(0, (3, 2, 4, 5, 6))

    def outer(x, kernel):
        return canonical_convolutions(
            lambda scale: scale * jax.lax.conv(x, kernel, (1, 1), "SAME")
        )(2.0)

    def plain(x, kernel):
        return 2.0 * jax.lax.conv(x, kernel, (1, 1), "SAME")

    def total(f):
        return jax.vmap(jax.grad(lambda k, x: jnp.sum(f(x, k) ** 2)), (None, 0))

    _assert_same(total(plain)(KERNEL, x), jax.jit(total(outer))(KERNEL, x))


def test_layers_of_one_shape_share_a_program():
    def network(x):
        for _ in range(5):
            x = jax.lax.conv(x, KERNEL, (1, 1), "SAME")
        return x

    x = _draw(0, (2, 4, 5, 6))
    layouts, _ = _layouts(canonical_convolutions(network), x)
    assert len(layouts) == 1


def test_without_jit_the_function_is_called_as_it_is():
    called = []

    def function(x):
        called.append(not isinstance(x, jax.core.Tracer))
        return x

    with jax.disable_jit():
        canonical_convolutions(function)(jnp.ones(2))
    assert called == [True]


def test_the_librarys_loops_are_canonical():
    """A strided NCHW network under every attack that loops."""
    dense = _draw(4, (4, 3))

    def apply(kernel, x):
        x = x.transpose(0, 3, 1, 2)
        x = jax.nn.relu(jax.lax.conv(x, kernel, (2, 2), "SAME"))
        return x.mean((2, 3)) @ dense

    logits_fn = jax.tree_util.Partial(apply, KERNEL)
    x = jax.random.uniform(jax.random.key(5), (6, 8, 8, 4))
    y = jnp.arange(6) % 3
    options = {"key": jax.random.key(0), "eps": 0.1, "step_size": 0.05, "steps": 3}
    calls = {
        "pgd": lambda x: absum_jax.pgd(logits_fn, x, y, **options),
        "fgsm": lambda x: absum_jax.fgsm(logits_fn, x, y, eps=0.1),
        "pgd_accuracy": lambda x: absum_jax.pgd_accuracy(
            logits_fn, x, y, batch_size=3, **options
        ),
        "accuracy": lambda x: absum_jax.accuracy(logits_fn, x, y, batch_size=3),
        "single_fourier": lambda x: absum_jax.single_fourier_accuracy(
            logits_fn, x, y, 0.1, batch_size=3
        ),
        "low_pass": lambda x: absum_jax.low_pass_accuracy(
            logits_fn, x, y, 2, batch_size=3
        ),
        "fourier_noise": lambda x: absum_jax.fourier_noise_accuracy(
            logits_fn, x, y, 1.0, key=jax.random.key(0), batch_size=3
        ),
    }
    for name, call in calls.items():
        layouts, _ = _layouts(call, x)
        assert layouts, name
        assert all(map(_is_canonical, layouts)), name
    chex.assert_trees_all_equal(
        absum_jax.pgd(logits_fn, x, y, **options | {"eps": 0.0}), x
    )


def test_transpositions_are_not_fused_with_what_leads_to_them():
    function, x, kernel = _case("nhwc")

    def loss(x, kernel):
        return function(jax.nn.relu(2 * x + x[:, ::-1]), kernel)

    gradients = canonical_convolutions(jax.grad(loss, (0, 1)))
    compiled = jax.jit(gradients).lower(x, kernel).compile().as_text()
    # Of the images for the kernel's gradient, and of the kernel for the images'.
    assert compiled.count(" conditional(") == 2


@pytest.mark.parametrize("name", ["strided both ways", "strided 1x1"])
def test_gradients_of_strided_convolutions_multiply_by_no_zeros(name):
    function, x, kernel = _case(name)
    gradients = jax.grad(lambda x, kernel: function(x, kernel).sum(), (0, 1))

    def dilated(gradients):
        """Counts convolutions of images with zeros between their rows."""
        traced = jax.jit(gradients).trace(x, kernel)
        text = traced.lower(lowering_platforms=("cpu",)).as_text()
        return text.count("lhs_dilate = [2") + text.count("lhs_dilate = [3")

    assert dilated(gradients) == 1
    # A 1x1 kernel has fewer rows than phases: some rows of its gradient are zeros.
    expected = {"strided both ways": 0, "strided 1x1": 1}[name]
    assert dilated(canonical_convolutions(gradients)) == expected
