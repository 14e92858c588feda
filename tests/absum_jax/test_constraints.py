"""SNC and spectral normalization as optax transformations, and applied once.

`test_clip.py` tests the methods: here it is the one that compiles the fastest, but in
the first test.
"""

import functools

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import absum_jax
from absum_jax import ConvUse
from absum_jax.spectral import constraints

SIZE = (6, 6)
SHAPES = {"conv/kernel": SIZE}


def _kernel(seed=0, shape=(3, 3, 2, 3)):
    return jax.random.normal(jax.random.key(seed), shape)


def _params(seed=0):
    return {
        "conv": {"kernel": _kernel(seed), "bias": jnp.ones(3)},
        "dense": {"kernel": jnp.ones((3, 2))},
    }


def _updates(params, seed=9):
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [
        0.1 * jax.random.normal(k, leaf.shape)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


_constraint = functools.partial(absum_jax.spectral_norm_constraint, method="svd")
_apply_constraint = functools.partial(
    absum_jax.apply_spectral_norm_constraint, method="svd"
)


@functools.partial(jax.jit, static_argnames="rescale")
def _moved(max_norm, params, updates, *, rescale):
    """The updates after either transformation: two programs for all bounds."""
    if rescale:
        tx = absum_jax.spectral_normalization(max_norm, SHAPES)
    else:
        tx = _constraint(max_norm, SHAPES, every=1)
    return tx.update(updates, tx.init(params), params)[0]


def _blocks(kernel, size):
    return np.fft.fft2(np.asarray(kernel, np.float64), size, axes=(0, 1))


def _norm(kernel, size=SIZE):
    return float(np.linalg.norm(_blocks(kernel, size), 2, axis=(-2, -1)).max())


def _numpy_clip(kernel, size, max_norm):
    """Clip and cut by float64 FFT and SVD (Sedghi et al. 2019, algorithm 1)."""
    u, s, v = np.linalg.svd(_blocks(kernel, size), full_matrices=False)
    clipped = u * np.minimum(s, max_norm)[..., None, :] @ v
    taps = np.fft.ifft2(clipped, axes=(0, 1)).real
    return taps[: kernel.shape[0], : kernel.shape[1]]


def _assert_same(a, b):
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, two)


def test_every_third_update_is_the_clip_and_the_others_pass_to_the_bit():
    params = _params()
    updates = _updates(params)
    tx = absum_jax.spectral_norm_constraint(1.0, SHAPES, every=3)
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(1, 7):
        moved, state = update(updates, state, params)
        if step % 3:
            _assert_same(moved, updates)
            continue
        proposed = params["conv"]["kernel"] + updates["conv"]["kernel"]
        np.testing.assert_allclose(
            params["conv"]["kernel"] + moved["conv"]["kernel"],
            _numpy_clip(proposed, SIZE, 1.0),
            atol=1e-5,
        )
        _assert_same(moved["dense"], updates["dense"])
        _assert_same(moved["conv"]["bias"], updates["conv"]["bias"])
    assert int(state.count) == 6


def test_rescaling_scales_the_whole_kernel_to_the_bound():
    params = _params()
    updates = _updates(params)
    moved = _moved(0.5, params, updates, rescale=True)
    proposed = params["conv"]["kernel"] + updates["conv"]["kernel"]
    new = params["conv"]["kernel"] + moved["conv"]["kernel"]
    np.testing.assert_allclose(new, 0.5 * proposed / _norm(proposed), atol=1e-6)
    assert _norm(new) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("rescale", [False, True], ids=["clip", "rescale"])
def test_within_the_bound_updates_pass_to_the_bit(rescale):
    params = _params()
    updates = _updates(params)
    moved = _moved(100.0, params, updates, rescale=rescale)
    _assert_same(moved, updates)


@pytest.mark.parametrize("rescale", [False, True], ids=["clip", "rescale"])
def test_applied_once_equals_the_transformation(rescale):
    params = _params()
    apply = absum_jax.apply_spectral_normalization if rescale else _apply_constraint
    once = apply(params, 0.7, SHAPES)
    zeros = jax.tree.map(jnp.zeros_like, params)
    moved = _moved(0.7, params, zeros, rescale=rescale)
    for a, b in zip(
        jax.tree.leaves(once),
        jax.tree.leaves(optax.apply_updates(params, moved)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_projections_and_rescaling_reach_the_bound():
    params = _params()
    once, often, exactly = (
        _apply_constraint(params, 1.0, SHAPES, **options)
        for options in ({}, {"projections": 10}, {"projections": 10, "rescale": True})
    )
    norms = [_norm(p["conv"]["kernel"]) for p in (once, often, exactly)]
    assert norms[0] > norms[1] > norms[2]
    assert norms[2] == pytest.approx(1.0, rel=1e-5)


def test_layers_of_one_geometry_are_a_batch_of_which_each_is_its_own():
    """One of them is within the bound, and comes back to the bit."""
    params = {f"conv{i}": {"kernel": _kernel(i) * 0.2**i} for i in range(3)}
    shapes = {f"conv{i}/kernel": SIZE for i in range(3)}
    bound = 2.0
    together = _apply_constraint(params, bound, shapes)
    assert _norm(params["conv2"]["kernel"]) < bound < _norm(params["conv0"]["kernel"])
    _assert_same(together["conv2"], params["conv2"])
    for i in range(3):
        alone = absum_jax.clip_conv_spectral_norm(
            params[f"conv{i}"]["kernel"], SIZE, bound, method="svd"
        )
        np.testing.assert_allclose(
            together[f"conv{i}"]["kernel"], alone, rtol=1e-5, atol=1e-6
        )


def test_a_kernel_with_two_uses_is_clipped_for_one_after_the_other():
    kernel = _kernel()
    ones, axes = (1, 1), (0, 1, 2, 3)
    uses = tuple(ConvUse(size, (), ones, (), ones, 1, axes) for size in (SIZE, (4, 8)))
    clipped = _apply_constraint(
        {"conv": {"kernel": kernel}}, 1.0, {"conv/kernel": uses}
    )
    expected = _numpy_clip(_numpy_clip(kernel, SIZE, 1.0), (4, 8), 1.0)
    np.testing.assert_allclose(clipped["conv"]["kernel"], expected, atol=1e-5)


def test_other_layouts_strides_and_groups_come_from_the_use():
    kernel = _kernel(shape=(3, 3, 2, 4))
    use = ConvUse((6, 6), (3, 3), (2, 2), (), (1, 1), 2, (2, 3, 1, 0))
    clipped = _apply_constraint({"w": kernel.transpose(3, 2, 0, 1)}, 1.0, {"w": (use,)})
    expected = absum_jax.clip_conv_spectral_norm(
        kernel, (6, 6), 1.0, strides=2, groups=2, method="svd"
    )
    np.testing.assert_allclose(
        clipped["w"].transpose(2, 3, 1, 0), expected, rtol=1e-5, atol=1e-6
    )


def test_the_bound_may_follow_a_schedule():
    params = _params()
    zeros = jax.tree.map(jnp.zeros_like, params)
    tx = absum_jax.spectral_normalization(lambda count: 2.0 / (count + 1), SHAPES)
    state, update = tx.init(params), jax.jit(tx.update)
    for bound in (2.0, 1.0):
        moved, state = update(zeros, state, params)
        new = params["conv"]["kernel"] + moved["conv"]["kernel"]
        assert _norm(new) == pytest.approx(bound, rel=1e-5)


def test_a_mask_leaves_kernels_out():
    params = {"a": {"kernel": _kernel(0)}, "b": {"kernel": _kernel(1)}}
    mask = {"a": True, "b": False}
    for shapes in ({"a/kernel": SIZE}, {"a/kernel": SIZE, "b/kernel": SIZE}):
        clipped = _apply_constraint(params, 0.5, shapes, mask=mask)
        _assert_same(clipped["b"], params["b"])
        assert _norm(clipped["a"]["kernel"]) < _norm(params["a"]["kernel"])


def test_accumulated_gradients_count_as_one_update():
    params = _params()
    zeros = jax.tree.map(jnp.zeros_like, params)
    chain = optax.chain(
        optax.sgd(0.1), absum_jax.spectral_normalization(0.5, SHAPES, every=1)
    )
    tx = optax.MultiSteps(chain, every_k_schedule=2)
    state, update = tx.init(params), jax.jit(tx.update)
    first, state = update(zeros, state, params)
    second, state = update(zeros, state, params)
    _assert_same(first, zeros)
    new = params["conv"]["kernel"] + second["conv"]["kernel"]
    assert _norm(new) == pytest.approx(0.5, rel=1e-5)


def test_bfloat16_parameters_keep_their_dtype():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), _params())
    clipped = _apply_constraint(params, 1.0, SHAPES)
    assert clipped["conv"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(
        clipped["conv"]["kernel"].astype(jnp.float32),
        _numpy_clip(params["conv"]["kernel"].astype(jnp.float32), SIZE, 1.0),
        atol=0.01,
    )


def _conditionals(function, *args):
    text = str(jax.make_jaxpr(function)(*args))
    # Those on the platform are decided when the program is lowered.
    return text.count("cond[") - text.count("branches_platforms=")


def test_between_clips_a_condition_skips_the_work_under_vmap_too():
    """With a batched count it would be a selection: the trap of a vmapped sweep."""
    params = _params()
    tx = absum_jax.spectral_norm_constraint(1.0, SHAPES)
    state = tx.init(params)
    models = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), params)
    one_count = jax.vmap(tx.update, in_axes=(0, None, 0), out_axes=(0, None))
    two_counts = jax.vmap(tx.update)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), state)
    # On CPUs each block has a condition of its own, in either.
    of_blocks = _conditionals(two_counts, models, states, models)
    assert _conditionals(one_count, models, state, models) == 1 + of_blocks


def test_models_under_vmap_are_clipped_as_alone():
    tx = _constraint(1.0, SHAPES, every=1)
    params = [_params(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    zeros = jax.tree.map(jnp.zeros_like, stacked)
    update = jax.vmap(tx.update, in_axes=(0, None, 0), out_axes=(0, None))
    moved, _ = jax.jit(update)(zeros, tx.init(params[0]), stacked)
    for i, one in enumerate(params):
        new = one["conv"]["kernel"] + moved["conv"]["kernel"][i]
        expected = _numpy_clip(one["conv"]["kernel"], SIZE, 1.0)
        np.testing.assert_allclose(new, expected, atol=1e-5)


def test_in_a_scan_it_compiles_once_and_clips_on_time():
    params = _params()
    tx = optax.chain(optax.sgd(0.1), _constraint(0.5, SHAPES, every=2))

    @jax.jit
    def train(params):
        def body(carry, _):
            params, state = carry
            zeros = jax.tree.map(jnp.zeros_like, params)
            updates, state = tx.update(zeros, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params["conv"]["kernel"]

        return jax.lax.scan(body, (params, tx.init(params)), length=3)[1]

    first, second, third = train(params)
    _assert_same(first, params["conv"]["kernel"])
    np.testing.assert_allclose(second, _numpy_clip(first, SIZE, 0.5), atol=1e-5)
    _assert_same(second, third)


class _NNX(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)

    def __call__(self, x):
        return self.conv(x)


def _nnx():
    graphdef, params = nnx.split(_NNX(nnx.Rngs(0)))
    return lambda p, x: nnx.merge(graphdef, p)(x), params, (1, 6, 6, 1)


def _linen():
    module = nn.Conv(2, (3, 3))
    x = jnp.zeros((1, 6, 6, 1))
    return module.apply, module.init(jax.random.key(0), x), x.shape


def _haiku():
    net = hk.without_apply_rng(hk.transform(lambda x: hk.Conv2D(2, 3)(x)))
    x = jnp.zeros((1, 6, 6, 1))
    return net.apply, net.init(jax.random.key(0), x), x.shape


def _equinox():
    conv = eqx.nn.Conv2d(1, 2, 3, padding=1, key=jax.random.key(0))
    params, static = eqx.partition(conv, eqx.is_array)
    return (
        lambda p, x: jax.vmap(eqx.combine(p, static))(x),
        params,
        (1, 1, 6, 6),
    )


@pytest.mark.parametrize("make", [_nnx, _linen, _haiku, _equinox])
def test_every_framework(make):
    fn, params, shape = make()
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    uses = absum_jax.conv_input_shapes(fn, params, x)
    tx = optax.chain(
        optax.sgd(0.1, momentum=0.9),
        absum_jax.spectral_normalization(0.1, uses),
    )

    def loss(params):
        return jnp.square(fn(params, jnp.ones(shape))).mean()

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, _ = step(params, tx.init(params))
    [(name, [use])] = uses.items()
    leaves = jax.tree_util.tree_leaves_with_path(params)
    [kernel] = [leaf for _, leaf in leaves if leaf.ndim == 4]
    assert _norm(kernel.transpose(use.kernel_axes)) == pytest.approx(0.1, rel=1e-5)
    assert jax.tree.structure(params) == jax.tree.structure(make()[1])
    assert name


KERNEL = {"conv": {"kernel": jnp.ones((3, 3, 1, 1))}}
ERRORS = {
    "`max_norm` must be positive": lambda: absum_jax.spectral_norm_constraint(
        0.0, SHAPES
    ),
    "`max_norm` must be non-negative": lambda: absum_jax.spectral_normalization(
        -1.0, SHAPES
    ),
    "`every` must be an integer of at least 1": lambda: (
        absum_jax.spectral_norm_constraint(1.0, SHAPES, every=0)
    ),
    "`method` must be one of": lambda: absum_jax.spectral_norm_constraint(
        1.0, SHAPES, method="lanczos"
    ),
    "`projections` must be an integer": lambda: absum_jax.spectral_norm_constraint(
        1.0, SHAPES, projections=0
    ),
    "`input_shapes` names conv/kernel, other/kernel, which": lambda: (
        absum_jax.spectral_norm_constraint(1.0, SHAPES | {"other/kernel": SIZE}).init(
            {"a": {"kernel": jnp.ones((3, 3, 1, 1))}}
        )
    ),
    "`conv2/kernel` is missing": lambda: absum_jax.spectral_norm_constraint(
        1.0, SHAPES
    ).init(KERNEL | {"conv2": {"kernel": jnp.ones((3, 3, 1, 1))}}),
    "`mask` selects no leaf": lambda: absum_jax.spectral_norm_constraint(
        1.0, SHAPES, mask={"conv": False}
    ).init(KERNEL),
    r"`strides` must divide .* \(`input_shapes` of `conv/kernel`\)": lambda: (
        absum_jax.apply_spectral_norm_constraint(
            KERNEL,
            1.0,
            {"conv/kernel": [ConvUse((5, 5), (), (2, 2), (), (1, 1), 1, (0, 1, 2, 3))]},
        )
    ),
    "must permute its 4 axes": lambda: absum_jax.apply_spectral_norm_constraint(
        KERNEL,
        1.0,
        {"conv/kernel": [ConvUse((5,), (), (1,), (), (1,), 1, (0, 1, 2))]},
    ),
    r"`input_shape` .* \(`input_shapes` of `conv/kernel`\)": lambda: (
        absum_jax.apply_spectral_norm_constraint(KERNEL, 1.0, {"conv/kernel": (6,)})
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_mistakes_are_named(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()


def test_without_params_optax_says_so():
    tx = absum_jax.spectral_norm_constraint(1.0, SHAPES)
    state = tx.init(KERNEL)
    with pytest.raises(ValueError, match="params"):
        tx.update(KERNEL, state)


@pytest.mark.parametrize("first", [0.0, -2.0, jnp.inf, -jnp.inf, jnp.nan])
def test_one_layer_waits_for_another_and_is_unchanged(first):
    array = jnp.array([-0.0, 1.5, jnp.inf])
    after = jax.jit(constraints._after)
    previous = jnp.full((2, 2), first)
    np.testing.assert_array_equal(after(previous, array), array)
    np.testing.assert_array_equal(constraints._after(None, array), array)
    # XLA must not see that nothing is done, or the layers run at a time again.
    compiled = after.lower(previous, array).compile().as_text()
    assert "compare(" in compiled
    assert "select(" in compiled
