"""transforms.py: one battery over every transformation, against eq. 16 in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import absum_jax

LEARNING_RATE = 0.1
MOMENTUM = 0.5
STRENGTH = 0.8
STEPS = 3


def prox_absum_by_branches(kernel, threshold):
    """Eq. 13, branch by branch."""
    space = tuple(range(kernel.ndim - 2))
    size = np.prod([kernel.shape[axis] for axis in space])
    sums = kernel.sum(axis=space, keepdims=True)
    outside = np.where(sums > size * threshold, kernel - threshold, kernel + threshold)
    return np.where(abs(sums) <= size * threshold, kernel - sums / size, outside)


def soft_threshold(kernel, threshold):
    return np.sign(kernel) * np.maximum(abs(kernel) - threshold, 0)


def proximal_l1(strength, *, learning_rate, mask=absum_jax.conv_kernels):
    return absum_jax.proximal(
        absum_jax.prox_l1, strength, learning_rate=learning_rate, mask=mask
    )


TRANSFORMATIONS = {
    "absum": (absum_jax.absum, prox_absum_by_branches),
    "l1": (absum_jax.l1, soft_threshold),
    "proximal": (proximal_l1, soft_threshold),
}
battery = pytest.mark.parametrize(
    ("factory", "oracle"), TRANSFORMATIONS.values(), ids=TRANSFORMATIONS.keys()
)


def random_tree(seed, dtype=np.float32, shape=(3, 3, 2, 4)):
    rng = np.random.default_rng(seed)
    tree = {
        "conv": {"kernel": rng.normal(size=shape) / 4, "bias": rng.normal(size=4)},
        "dense": {"kernel": rng.normal(size=(6, 5))},
    }
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


PARAMS = random_tree(0)
GRADS = [random_tree(1 + step) for step in range(STEPS)]


def train(tx, params=PARAMS, grads=GRADS):
    """Parameters after a jitted step for each of the gradients."""

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params, state = jax.tree.map(jnp.asarray, params), tx.init(params)
    for gradient in grads:
        params, state = step(params, state, gradient)
    return params


def train_in_numpy(
    oracle,
    params=PARAMS,
    grads=GRADS,
    *,
    learning_rate=lambda t: LEARNING_RATE,
    strength=lambda t: STRENGTH,
    momentum=MOMENTUM,
    weight_decay=0.0,
):
    """Eq. 16 in float64: momentum as in torch and optax, the prox on the kernel only.

    Weight decay is coupled, as in torch.optim.SGD: added to the kernel's gradient
    before the momentum.
    """
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    velocity = jax.tree.map(np.zeros_like, params)
    for t, gradient in enumerate(grads):
        gradient = jax.tree.map(lambda g: np.asarray(g, np.float64), gradient)
        gradient["conv"]["kernel"] = (
            gradient["conv"]["kernel"] + weight_decay * params["conv"]["kernel"]
        )
        velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradient)
        rate = learning_rate(t)
        params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, velocity)
        params["conv"]["kernel"] = oracle(params["conv"]["kernel"], rate * strength(t))
    return params


def assert_trees_close(result, expected, atol=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), atol=atol
        ),
        dict(result),
        expected,
    )


def chain(factory, strength=STRENGTH, learning_rate=LEARNING_RATE, **options):
    return optax.chain(
        optax.sgd(learning_rate, momentum=MOMENTUM),
        factory(strength, learning_rate=learning_rate, **options),
    )


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@battery
def test_steps_are_eq_16(factory, oracle):
    expected = train_in_numpy(oracle)
    # The prox must matter, or the comparison would prove nothing.
    plain = train_in_numpy(lambda kernel, threshold: kernel)
    assert abs(plain["conv"]["kernel"] - expected["conv"]["kernel"]).max() > 0.05
    assert_trees_close(train(chain(factory)), expected)


@battery
@pytest.mark.parametrize("shape", [(5, 2, 4), (2, 3, 2, 1, 4), (1, 1, 2, 4)])
def test_convolutions_of_one_to_three_dimensions(factory, oracle, shape):
    params, gradient = random_tree(0, shape=shape), random_tree(1, shape=shape)
    result = train(chain(factory), params, [gradient])
    assert_trees_close(result, train_in_numpy(oracle, params, [gradient]))


@pytest.mark.parametrize("compile_", [jax.jit, lambda update: update])
@pytest.mark.parametrize("factory", [absum_jax.absum, absum_jax.l1])
def test_strength_zero_is_plain_sgd_to_the_bit(factory, compile_):
    def train(tx):
        # `p + u` stays outside of jit, where XLA may contract it with the rate times
        # the momentum to one rounding, in one of the two programs alone.
        update = compile_(tx.update)
        params, state = PARAMS, tx.init(PARAMS)
        for gradient in GRADS:
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    plain = train(optax.sgd(LEARNING_RATE, momentum=MOMENTUM))
    assert bits(train(chain(factory, 0.0))) == bits(plain)
    assert bits(train(chain(factory, jnp.float32(0.0)))) == bits(plain)


@battery
def test_other_leaves_are_untouched_to_the_bit(factory, oracle):
    plain = train(optax.sgd(LEARNING_RATE, momentum=MOMENTUM))
    result = train(chain(factory))
    assert bits(result["dense"]) == bits(plain["dense"])
    assert bits(result["conv"]["bias"]) == bits(plain["conv"]["bias"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_l1_gives_exact_zeros(dtype):
    params, grads = random_tree(0, dtype), [random_tree(1, dtype)]
    kernel = np.asarray(train(chain(absum_jax.l1), params, grads)["conv"]["kernel"])
    zeros = train_in_numpy(soft_threshold, params, grads)["conv"]["kernel"] == 0
    assert 0 < zeros.sum() < zeros.size
    np.testing.assert_array_equal(kernel[zeros], 0)


SCHEDULES = {
    "both": (lambda count: 0.1 / (1 + count), lambda count: 0.5 * count),
    "strength": (lambda count: LEARNING_RATE, lambda count: 2.0 - count),
    "learning_rate": (lambda count: 0.1 * (1 + count), lambda count: STRENGTH),
}


@battery
@pytest.mark.parametrize("which", SCHEDULES)
def test_schedules_count_from_zero_as_optax_does(factory, oracle, which):
    learning_rate, strength = SCHEDULES[which]
    tx = chain(
        factory,
        STRENGTH if which == "learning_rate" else strength,
        LEARNING_RATE if which == "strength" else learning_rate,
    )
    expected = train_in_numpy(oracle, learning_rate=learning_rate, strength=strength)
    assert_trees_close(train(tx), expected)


def test_schedule_is_called_with_the_count_of_scale_by_schedule():
    # The threshold becomes the update itself; the rate makes it 1 * schedule(count).
    def schedule(count):
        return 1.0 + 10.0 * count

    record = absum_jax.proximal(
        lambda p, threshold: jnp.full_like(p, threshold), schedule, learning_rate=1.0
    )
    peer = optax.scale_by_schedule(schedule)
    params = ones = {"p": jnp.ones(1)}
    zero = {"p": jnp.zeros(1)}
    ours, theirs = record.init(zero), peer.init(params)
    for _ in range(3):
        ours_update, ours = record.update(zero, ours, zero)
        theirs_update, theirs = peer.update(ones, theirs, params)
        np.testing.assert_array_equal(ours_update["p"], theirs_update["p"])
    assert ours.count == theirs.count == 3


@battery
def test_state_is_empty_without_schedules(factory, oracle):
    assert jax.tree.leaves(factory(0.1, learning_rate=0.1).init(PARAMS)) == []
    scheduled = factory(0.1, learning_rate=lambda count: 0.1).init(PARAMS)
    assert isinstance(scheduled.inner_state, absum_jax.ProximalState)
    assert [leaf.dtype for leaf in jax.tree.leaves(scheduled)] == [jnp.int32]


def test_proximal_without_mask_takes_every_leaf_and_keeps_no_state():
    tx = absum_jax.proximal(absum_jax.prox_l1, 1.0, learning_rate=0.5)
    state = tx.init(PARAMS)
    assert state == optax.EmptyState()
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    updates, state = tx.update(zeros, state, PARAMS)
    assert state == optax.EmptyState()
    result = optax.apply_updates(PARAMS, updates)
    assert_trees_close(result, jax.tree.map(lambda p: soft_threshold(p, 0.5), PARAMS))


@battery
def test_eager_equals_jit(factory, oracle):
    tx = chain(factory)
    state = tx.init(PARAMS)
    eager, _ = tx.update(GRADS[0], state, PARAMS)
    compiled, _ = jax.jit(tx.update)(GRADS[0], state, PARAMS)
    assert_trees_close(eager, compiled)


@battery
def test_vmap_over_strengths_and_learning_rates(factory, oracle):
    strengths = jnp.array([0.0, 0.5, 3.0])
    rates = jnp.array([0.1, 0.2, 0.05])

    @jax.jit
    @jax.vmap
    def first_step(strength, rate):
        tx = chain(factory, strength, rate)
        updates, _ = tx.update(GRADS[0], tx.init(PARAMS), PARAMS)
        return optax.apply_updates(PARAMS, updates)

    result = first_step(strengths, rates)
    for i, (strength, rate) in enumerate(zip(strengths, rates, strict=True)):
        expected = train_in_numpy(
            oracle,
            grads=GRADS[:1],
            strength=lambda t, strength=float(strength): strength,
            learning_rate=lambda t, rate=float(rate): rate,
        )
        assert_trees_close(jax.tree.map(lambda leaf, i=i: leaf[i], result), expected)


@battery
@pytest.mark.parametrize(
    # A bfloat16 has 8 bits of significand; weights are below 4, in a few roundings.
    ("dtype", "atol"),
    [(jnp.bfloat16, 2e-2), (jnp.float64, 1e-14)],
)
def test_dtypes(factory, oracle, dtype, atol):
    with jax.enable_x64(dtype == jnp.float64):
        params, grads = random_tree(0, dtype), [random_tree(1, dtype)]
        result = train(chain(factory), params, grads)
        assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype(dtype)}
        expected = train_in_numpy(oracle, params, grads)
        assert_trees_close(result, expected, atol=atol)


def test_bfloat16_mean_is_taken_in_float32():
    # In bfloat16 a sum of 2048 ones would stop growing at 256.
    params = {"conv": {"kernel": jnp.ones((2048, 1, 1), jnp.bfloat16)}}
    tx = absum_jax.absum(2.0, learning_rate=1.0)
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params
    )
    assert updates["conv"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(updates["conv"]["kernel"], float), -1.0)


TWO_CONVS = {
    "first": {"kernel": PARAMS["conv"]["kernel"]},
    "second": {"kernel": GRADS[1]["conv"]["kernel"]},
    "bias": PARAMS["conv"]["bias"],
}
ONLY_SECOND = {"first": {"kernel": False}, "second": {"kernel": True}, "bias": False}


def masked_by(how, factory):
    sgd = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    build = functools.partial(factory, STRENGTH, learning_rate=LEARNING_RATE)
    if how == "tree":
        return optax.chain(sgd, build(mask=ONLY_SECOND))
    if how == "prefix tree":
        mask = {"first": False, "second": True, "bias": False}
        return optax.chain(sgd, build(mask=mask))
    if how == "callable":
        return optax.chain(sgd, build(mask=lambda params: ONLY_SECOND))
    if how == "optax.masked":
        return optax.chain(sgd, optax.masked(build(), ONLY_SECOND))
    return optax.multi_transform(
        {True: optax.chain(sgd, build()), False: sgd}, ONLY_SECOND
    )


@battery
@pytest.mark.parametrize(
    "how", ["tree", "prefix tree", "callable", "optax.masked", "optax.multi_transform"]
)
def test_masks(factory, oracle, how):
    grads = [
        jax.tree.map(lambda leaf, i=i: np.cos(leaf + i), TWO_CONVS) for i in range(2)
    ]
    result = train(masked_by(how, factory), TWO_CONVS, grads)
    plain = train(optax.sgd(LEARNING_RATE, momentum=MOMENTUM), TWO_CONVS, grads)
    assert bits(result["first"]) == bits(plain["first"])
    assert bits(result["bias"]) == bits(plain["bias"])
    alone = [{"conv": gradient["second"]} for gradient in grads]
    expected = train_in_numpy(oracle, {"conv": TWO_CONVS["second"]}, alone)
    assert_trees_close({"conv": result["second"]}, expected)


@battery
def test_multi_steps_around_the_chain_is_one_step_on_the_mean_gradient(factory, oracle):
    tx = optax.MultiSteps(chain(factory), every_k_schedule=STEPS)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *GRADS)
    assert_trees_close(train(tx), train_in_numpy(oracle, grads=[mean]))


@battery
def test_inject_hyperparams_of_the_whole_chain(factory, oracle):
    def build(strength, learning_rate):
        return chain(factory, strength, learning_rate)

    tx = optax.inject_hyperparams(build)(STRENGTH, LEARNING_RATE)
    assert_trees_close(train(tx), train_in_numpy(oracle))
    state = tx.init(PARAMS)
    state.hyperparams["strength"] = jnp.asarray(0.25)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    updates, _ = tx.update(GRADS[0], state, PARAMS)
    expected = train_in_numpy(
        oracle,
        grads=GRADS[:1],
        strength=lambda t: 0.25,
        learning_rate=lambda t: 0.5,
    )
    assert_trees_close(optax.apply_updates(PARAMS, updates), expected)


@pytest.mark.parametrize("name", ["absum", "l1"])
def test_inject_hyperparams_of_the_transformation_itself(name):
    factory, oracle = TRANSFORMATIONS[name]
    tx = optax.chain(
        optax.sgd(LEARNING_RATE, momentum=MOMENTUM),
        optax.inject_hyperparams(factory)(
            strength=lambda count: 1.0 * count, learning_rate=LEARNING_RATE
        ),
    )
    expected = train_in_numpy(oracle, strength=lambda t: 1.0 * t)
    assert_trees_close(train(tx), expected)


def test_inject_hyperparams_of_proximal_with_static_arguments():
    tx = optax.inject_hyperparams(absum_jax.proximal, static_args=("prox", "mask"))(
        absum_jax.prox_l1,
        STRENGTH,
        learning_rate=LEARNING_RATE,
        mask=absum_jax.conv_kernels,
    )
    tx = optax.chain(optax.sgd(LEARNING_RATE, momentum=MOMENTUM), tx)
    assert_trees_close(train(tx), train_in_numpy(soft_threshold))


@battery
def test_missing_params_are_named(factory, oracle):
    tx = factory(0.1, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"`params` must be .*, got None: call `upd"):
        tx.update(GRADS[0], tx.init(PARAMS))


@battery
def test_none_leaves_pass_through(factory, oracle):
    params = {"conv": {"kernel": PARAMS["conv"]["kernel"], "bias": None}, "act": None}
    zeros = jax.tree.map(np.zeros_like, params)
    tx = factory(STRENGTH, learning_rate=LEARNING_RATE)
    updates, _ = tx.update(zeros, tx.init(params), params)
    assert updates["act"] is None
    assert updates["conv"]["bias"] is None
    kernel = optax.apply_updates(params, updates)["conv"]["kernel"]
    expected = oracle(params["conv"]["kernel"], STRENGTH * LEARNING_RATE)
    np.testing.assert_allclose(kernel, expected, atol=1e-6)


def test_weight_decay_on_conv_kernels_is_coupled_as_in_torch():
    tx = optax.chain(
        optax.add_decayed_weights(0.3, mask=absum_jax.conv_kernels),
        optax.sgd(LEARNING_RATE, momentum=MOMENTUM),
    )
    expected = train_in_numpy(lambda kernel, threshold: kernel, weight_decay=0.3)
    assert_trees_close(train(tx), expected)


@pytest.mark.parametrize("prox", [absum_jax.prox_absum, absum_jax.prox_l1])
def test_apply_proximal_updates_is_the_prox_to_the_bit(prox):
    result = absum_jax.apply_proximal_updates(PARAMS, GRADS[0], prox, 0.05)
    moved = jax.tree.map(jnp.add, PARAMS, GRADS[0])
    moved["conv"]["kernel"] = prox(moved["conv"]["kernel"], 0.05)
    assert bits(result) == bits(moved)


@pytest.mark.parametrize(
    "mask",
    [
        {"conv": {"kernel": False, "bias": True}, "dense": {"kernel": False}},
        {"conv": {"kernel": False, "bias": True}, "dense": False},
        lambda tree: {
            "conv": {"kernel": False, "bias": True},
            "dense": {"kernel": False},
        },
    ],
    ids=["tree", "prefix", "callable"],
)
def test_apply_proximal_updates_takes_masks(mask):
    result = absum_jax.apply_proximal_updates(
        PARAMS, GRADS[0], absum_jax.prox_l1, 0.5, mask
    )
    moved = jax.tree.map(np.add, PARAMS, GRADS[0])
    moved["conv"]["bias"] = soft_threshold(moved["conv"]["bias"], 0.5)
    assert_trees_close(result, moved)


def test_apply_proximal_updates_under_jit_with_a_traced_threshold():
    @jax.jit
    def step(threshold):
        return absum_jax.apply_proximal_updates(
            PARAMS, GRADS[0], absum_jax.prox_absum, threshold
        )

    moved = jax.tree.map(np.add, PARAMS, GRADS[0])
    moved["conv"]["kernel"] = prox_absum_by_branches(moved["conv"]["kernel"], 0.05)
    assert_trees_close(step(0.05), moved)


def test_apply_proximal_updates_keeps_dtypes():
    params, grads = random_tree(0, jnp.bfloat16), random_tree(1)
    result = absum_jax.apply_proximal_updates(
        params, grads, absum_jax.prox_absum, jnp.float32(0.05)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("bfloat16")}
