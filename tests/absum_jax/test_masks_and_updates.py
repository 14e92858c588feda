"""Masks, updates, operators and schedules that transformations refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import absum_jax

KERNEL = np.ones((3, 3, 1, 2), np.float32)
PARAMS = {"conv": {"kernel": KERNEL}}
NAN = float("nan")


def test_absum_says_which_leaf_has_no_spatial_axes():
    mask = {"head": {"kernel": True}}
    params = {"head": {"kernel": np.ones((3, 2))}}
    message = r"no spatial axes.*\['head'\]\['kernel'\], which `mask` selects"
    with pytest.raises(ValueError, match=message):
        absum_jax.absum(0.1, learning_rate=0.1, mask=mask).init(params)
    with pytest.raises(ValueError, match=message):
        absum_jax.apply_proximal_updates(
            params, params, absum_jax.prox_absum, 0.1, mask
        )


NO_CONVOLUTION = {"dense": {"kernel": np.ones((3, 2), np.float32)}}


@pytest.mark.parametrize(
    "function",
    [
        lambda: absum_jax.absum(0.1, learning_rate=0.1).init(NO_CONVOLUTION),
        lambda: absum_jax.l1(0.1, learning_rate=0.1, mask={"dense": False}).init(
            NO_CONVOLUTION
        ),
        lambda: absum_jax.apply_proximal_updates(
            NO_CONVOLUTION, NO_CONVOLUTION, absum_jax.prox_l1, 0.1
        ),
        lambda: optax.chain(
            optax.sgd(0.1), absum_jax.absum(0.1, learning_rate=0.1)
        ).init({}),
    ],
    ids=["absum", "l1 mask", "apply_proximal_updates", "empty"],
)
def test_no_convolution_kernel(function):
    with pytest.raises(ValueError, match=r"`mask` selects no leaf.*pass a mask"):
        function()


MASKS = [
    ({"conv": {"kernel": "yes"}}, "must be a tree of bools, got 'yes' in it"),
    ({"conv": {"kernel": 1}}, "must be a tree of bools, got 1 in it"),
    ({"conv": {"kernel": np.ones(2, bool)}}, "must be a tree of bools, got array"),
    (lambda tree: jax.tree.map(np.sum, tree), "must be a tree of bools, got"),
    ({"convolution": True}, "must be a tree of the structure of the parameters, or"),
    ({"conv": {"kernel": True, "bias": False}}, "must be a tree of the structure of"),
]


@pytest.mark.parametrize(("mask", "message"), MASKS)
@pytest.mark.parametrize(
    "function",
    [
        lambda mask: absum_jax.l1(0.1, learning_rate=0.1, mask=mask).init(PARAMS),
        lambda mask: absum_jax.apply_proximal_updates(
            PARAMS, PARAMS, absum_jax.prox_l1, 0.1, mask
        ),
        lambda mask: absum_jax.apply_spectral_normalization(
            PARAMS, 0.1, {"conv/kernel": (4, 4)}, mask=mask
        ),
    ],
    ids=["l1", "apply_proximal_updates", "apply_spectral_normalization"],
)
def test_masks(function, mask, message):
    with pytest.raises(ValueError, match=f"^`mask` {message}"):
        function(mask)


def test_masks_of_traced_values():
    def move(flag):
        return absum_jax.apply_proximal_updates(
            PARAMS, PARAMS, absum_jax.prox_l1, 0.1, {"conv": flag}
        )

    with pytest.raises(
        ValueError, match=r"^`mask` must be a tree of bools, got .*Trac"
    ):
        jax.jit(move)(True)


@pytest.mark.parametrize("mask", [np.True_, jnp.array(True), {"conv": True}])
def test_any_bool_is_a_mask(mask):
    moved = absum_jax.apply_proximal_updates(
        PARAMS, PARAMS, absum_jax.prox_l1, 0.5, mask
    )
    np.testing.assert_array_equal(moved["conv"]["kernel"], 1.5)


def test_a_parameter_without_an_update_stays_as_it_is():
    params = {"conv": {"kernel": np.ones((2, 1, 1)), "bias": np.ones(2)}, "act": None}
    for name in ("kernel", "bias"):
        updates = jax.tree.map(np.ones_like, params)
        updates["conv"][name] = None
        moved = absum_jax.apply_proximal_updates(
            params, updates, absum_jax.prox_absum, 0.5
        )
        expected = {"kernel": 1.5, "bias": 2.0} | {name: 1.0}
        for leaf, value in expected.items():
            np.testing.assert_array_equal(moved["conv"][leaf], value)


UPDATES = [
    ({}, "must have the structure of `params`"),
    ({"conv": {"kernel": np.ones((3, 3, 1, 1))}}, "must have the shapes of `params`"),
    ({"conv": {"kernel": 1.0}}, "must have the shapes of `params`"),
    ({"conv": {"kernel": KERNEL.astype(int)}}, "must have a real floating-point dtype"),
]


@pytest.mark.parametrize(("updates", "message"), UPDATES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: absum_jax.absum(0.1, learning_rate=0.1),
        lambda: absum_jax.spectral_normalization(0.1, {"conv/kernel": (4, 4)}),
    ],
    ids=["absum", "spectral_normalization"],
)
def test_updates(make, updates, message):
    tx = make()
    with pytest.raises(ValueError, match=f"^`updates` {message}"):
        tx.update(updates, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    "prox",
    [
        lambda array, threshold: array.sum(),
        lambda array, threshold: array[None],
        lambda array, threshold: array * 1j,
        lambda array, threshold: 3.0,
        lambda array, threshold: (array, threshold),
        lambda array, threshold: None,
    ],
)
def test_operators_of_another_shape_or_dtype(prox):
    tx = absum_jax.proximal(prox, 0.1, learning_rate=0.1)
    message = r"^`prox` must return a real array of the shape of its argument, \(3"
    with pytest.raises(ValueError, match=message):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=message):
        absum_jax.apply_proximal_updates(PARAMS, PARAMS, prox, 0.1)


@pytest.mark.parametrize("threshold", [np.float64(0.25), jnp.float32(0.25)])
def test_operators_do_not_widen_parameters(threshold):
    params = {"conv": {"kernel": jnp.ones((3, 3, 1, 2), jnp.bfloat16)}}
    moved = absum_jax.apply_proximal_updates(
        params, params, lambda array, limit: array - limit, threshold
    )
    assert moved["conv"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(moved["conv"]["kernel"].astype(float), 1.75)


TRANSFORMATIONS = {
    "absum": lambda: absum_jax.absum(0.25, learning_rate=1.0),
    "l1": lambda: absum_jax.l1(0.25, learning_rate=1.0),
    "proximal": lambda: absum_jax.proximal(
        absum_jax.prox_l1, 0.25, learning_rate=1.0, mask=absum_jax.conv_kernels
    ),
    "spectral_normalization": lambda: absum_jax.spectral_normalization(
        1.0, {"conv/kernel": (4, 4)}
    ),
    "spectral_norm_constraint": lambda: absum_jax.spectral_norm_constraint(
        1.0, {"conv/kernel": (4, 4)}, every=1
    ),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_updates_of_numpy_and_none(name):
    tx = TRANSFORMATIONS[name]()
    params = {"conv": {"kernel": KERNEL, "bias": np.ones(2, np.float32)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    expected, _ = tx.update(zeros, tx.init(params), params)
    wide = jax.tree.map(lambda leaf: np.zeros(leaf.shape), params)
    wide["conv"]["bias"] = None
    found, _ = tx.update(wide, tx.init(params), params)
    assert found["conv"]["bias"] is None
    np.testing.assert_array_equal(
        found["conv"]["kernel"], expected["conv"]["kernel"], strict=True
    )
    nothing = {"conv": {"kernel": None, "bias": None}}
    assert tx.update(nothing, tx.init(params), params)[0] == nothing


def test_half_precision_of_numpy_is_not_multiplied():
    tx = absum_jax.l1(np.float16(1e-3), learning_rate=np.float16(1e-3))
    zeros = {"conv": {"kernel": np.zeros_like(KERNEL)}}
    moved, _ = tx.update(zeros, tx.init(PARAMS), PARAMS)
    expected = -(float(np.float16(1e-3)) ** 2)
    np.testing.assert_allclose(moved["conv"]["kernel"], expected, rtol=1e-6)


SCHEDULES = [
    (NAN, "must be non-negative, got nan"),
    (-1.0, "must be non-negative, got -1.0"),
    (np.inf, "must be finite, got inf"),
    (np.ones(2), r"must be a scalar, got shape \(2,\)"),
    (1j, "must be a real number, got 1j"),
]


@pytest.mark.parametrize(("value", "message"), SCHEDULES)
@pytest.mark.parametrize("name", ["strength", "learning_rate"])
def test_values_of_schedules(name, value, message):
    arguments = {"strength": 0.1, "learning_rate": 0.1, name: lambda count: value}
    tx = absum_jax.absum(**arguments)
    with pytest.raises(ValueError, match=f"^`{name}` {message}"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("value", [0.0, -1.0, NAN, np.ones(2)], ids=str)
def test_bounds_of_schedules(value):
    shapes = {"conv/kernel": (4, 4)}
    tx = absum_jax.spectral_normalization(lambda count: value, shapes)
    with pytest.raises(ValueError, match=r"^`max_norm` must be"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
