"""prox.py: operators against brute force, and what convex analysis says of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize

import absum_jax

# Sums of dyadic numbers are exact, so that a filter can lie on a boundary of eq. 13.
THRESHOLD = 0.5
# mean / threshold: both outer branches, both boundaries, and within the inner branch.
MEANS = (-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.0)


def filters_with_means(size: int, means: tuple[float, ...], seed: int) -> np.ndarray:
    """Random dyadic filters (size, len(means)) with these exact means."""
    filters = np.random.default_rng(seed).integers(-16, 17, (size, len(means))) / 8
    filters[-1] += size * np.asarray(means) - filters.sum(axis=0)
    return filters


def brute_force_prox_absum(k: np.ndarray, threshold: float) -> np.ndarray:
    """The argmin of eq. 14, by sequential quadratic programming.

    |sum| is split as s+ + s- with s+ - s- = sum and both non-negative, which makes the
    problem smooth; neither a branch nor the mean of eq. 13 enters.
    """
    n = k.size
    costs = np.array([threshold, threshold])

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        gap = z[:n] - k
        value = gap @ gap / 2 + costs @ z[n:]
        return value, np.concatenate([gap, costs])

    balance = np.concatenate([np.ones(n), [-1.0, 1.0]])
    result = optimize.minimize(
        objective,
        np.zeros(n + 2),
        jac=True,
        method="SLSQP",
        bounds=[(None, None)] * n + [(0, None)] * 2,
        constraints={
            "type": "eq",
            "fun": lambda z: balance @ z,
            "jac": lambda z: balance,
        },
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return result.x[:n]


@pytest.mark.parametrize(
    "space", [(5,), (3, 3), (2, 1, 3), (1, 1)], ids=["WIO", "HWIO", "DHWIO", "1x1"]
)
def test_prox_absum_is_the_argmin_in_each_branch_and_at_the_boundaries(space):
    size = int(np.prod(space))
    means = tuple(THRESHOLD * mean for mean in MEANS) * 2
    filters = filters_with_means(size, means, seed=size)
    expected = np.stack([brute_force_prox_absum(k, THRESHOLD) for k in filters.T], 1)
    with jax.enable_x64(True):
        kernel = jnp.asarray(filters.reshape(*space, 2, len(MEANS)))
        result = absum_jax.prox_absum(kernel, THRESHOLD)
    assert result.dtype == jnp.float64
    # 1e-6: acceptance of the project.
    np.testing.assert_allclose(result.reshape(size, -1), expected, atol=1e-6)


def test_brute_force_reaches_a_lower_objective_than_its_neighbours():
    filters = filters_with_means(9, tuple(THRESHOLD * m for m in MEANS), seed=1)

    def objective(u, k):
        return ((u - k) ** 2).sum() / 2 + THRESHOLD * abs(u.sum())

    rng = np.random.default_rng(2)
    for k in filters.T:
        best = brute_force_prox_absum(k, THRESHOLD)
        near = best + 1e-3 * rng.normal(size=(100, 9))
        assert objective(best, k) < min(objective(u, k) for u in near)


def jitted(function):
    """The function jitted once for all examples of a hypothesis test, in float64."""
    compiled = jax.jit(function)

    def call(*args):
        with jax.enable_x64(True):
            return np.asarray(compiled(*args))

    return call


prox_absum = jitted(absum_jax.prox_absum)
prox_l1 = jitted(absum_jax.prox_l1)
KERNELS = hnp.arrays(
    np.float64, (2, 3, 1, 2), elements=st.floats(-4, 4, allow_subnormal=False)
)
THRESHOLDS = st.floats(0, 3, allow_subnormal=False)


@given(KERNELS, KERNELS, THRESHOLDS, st.sampled_from([prox_absum, prox_l1]))
def test_firmly_nonexpansive(x, y, threshold, prox):
    moved = prox(x, threshold) - prox(y, threshold)
    assert (moved**2).sum() <= (moved * (x - y)).sum() + 1e-12


@given(KERNELS, THRESHOLDS)
def test_moreau_identity(kernel, threshold):
    # x - prox_g(x) is the prox of g's conjugate. For g = t |sum| the conjugate is the
    # indicator of the segment {c 1 : |c| <= t}, and its prox the projection onto it:
    # the point r of the segment with <x - r, z - r> <= 0 at both of its ends z.
    r = kernel - prox_absum(kernel, threshold)
    np.testing.assert_allclose(r, np.broadcast_to(r[:1, :1], r.shape), atol=1e-12)
    assert np.abs(r).max() <= threshold + 1e-12
    for end in (-threshold, threshold):
        assert ((kernel - r) * (end - r)).sum(axis=(0, 1)).max() <= 1e-12


@given(hnp.arrays(np.int8, (5, 2), elements=st.integers(-20, 20)), THRESHOLDS)
def test_zero_sum_filters_are_fixed_points(integers, threshold):
    filters = np.concatenate([integers, -integers.sum(axis=0, keepdims=True)])
    kernel = filters.reshape(2, 3, 1, 2).astype(np.float64)
    np.testing.assert_array_equal(prox_absum(kernel, threshold), kernel)


@given(KERNELS)
def test_large_threshold_makes_every_sum_zero(kernel):
    sums = prox_absum(kernel, 4.0).sum(axis=(0, 1))  # |mean| <= 4 in KERNELS
    np.testing.assert_allclose(sums, 0, atol=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 2.0])
def test_prox_l1_is_the_argmin_of_each_coefficient(threshold):
    x = np.array([-3.0, -2.0, -0.5, -0.1, 0.0, 0.3, 0.5, 0.75, 2.0, 4.0])

    def argmin(k):
        # The objective is unimodal, and its search needs no derivative at the kink.
        return optimize.minimize_scalar(
            lambda u: (u - k) ** 2 / 2 + threshold * abs(u),
            bounds=(-5, 5),
            method="bounded",
            options={"xatol": 1e-10},
        ).x

    with jax.enable_x64(True):
        result = absum_jax.prox_l1(jnp.asarray(x), threshold)
    np.testing.assert_allclose(result, [argmin(k) for k in x], atol=1e-6)


def penalty_by_loops(kernel: np.ndarray, axes: tuple[int, ...]) -> float:
    channels = [axis for axis in range(kernel.ndim) if axis not in axes]
    total = 0.0
    for index in itertools.product(*(range(kernel.shape[axis]) for axis in channels)):
        where = [slice(None)] * kernel.ndim
        for axis, i in zip(channels, index, strict=True):
            where[axis] = i
        total += abs(kernel[tuple(where)].sum())
    return total


@pytest.mark.parametrize(
    ("shape", "spatial_axes", "axes"),
    [
        ((3, 2, 4), None, (0,)),
        ((3, 2, 2, 4), None, (0, 1)),
        ((2, 3, 2, 2, 1), None, (0, 1, 2)),
        ((4, 2, 3, 2), (2, 3), (2, 3)),
        ((2, 3, 3, 1, 2), (-4, -3), (1, 2)),
    ],
)
def test_absum_penalty_is_the_sum_of_absolute_sums(shape, spatial_axes, axes):
    kernel = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    penalty = absum_jax.absum_penalty(kernel, spatial_axes=spatial_axes)
    assert penalty.shape == ()
    np.testing.assert_allclose(penalty, penalty_by_loops(kernel, axes), rtol=1e-5)


@pytest.mark.parametrize(
    ("order", "spatial_axes"),
    [
        ((3, 2, 0, 1), (2, 3)),
        ((3, 2, 0, 1), (-1, -2)),
        ((3, 2, 0, 1), [np.int64(2), 3]),
        ((3, 0, 1, 2), (1, 2)),
        ((0, 1, 2, 3), (0, 1)),
    ],
    ids=["OIHW", "OIHW negative", "OIHW list", "OHWI", "HWIO"],
)
def test_layouts_agree_with_hwio(order, spatial_axes):
    hwio = np.random.default_rng(4).normal(size=(2, 3, 2, 4)).astype(np.float32)
    expected = np.transpose(absum_jax.prox_absum(hwio, 0.3), order)
    result = absum_jax.prox_absum(
        np.transpose(hwio, order), 0.3, spatial_axes=spatial_axes
    )
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_stacked_kernels_are_independent():
    stacked = np.random.default_rng(5).normal(size=(3, 2, 2, 2, 2)).astype(np.float32)
    result = absum_jax.prox_absum(stacked, 0.2, spatial_axes=(-4, -3))
    for kernel, expected in zip(stacked, result, strict=True):
        np.testing.assert_allclose(
            absum_jax.prox_absum(kernel, 0.2), expected, atol=1e-6
        )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_takes_the_mean_in_float32(dtype):
    # In half precision a running sum of 4096 ones stops growing at 256 or 2048.
    kernel = jnp.asarray(
        1 + np.random.default_rng(6).normal(size=(4096, 1, 2)) / 8, dtype
    )
    wide = np.asarray(kernel, np.float32)
    mean = wide.mean(axis=0, keepdims=True)
    expected = jnp.asarray(wide - np.clip(mean, -2, 2)).astype(dtype)
    result = absum_jax.prox_absum(kernel, 2.0)
    assert result.dtype == dtype
    # The order of the float32 sum may move the mean by its last bit.
    np.testing.assert_allclose(
        np.asarray(result, np.float32), np.asarray(expected, np.float32), atol=1e-5
    )
    assert absum_jax.absum_penalty(kernel).dtype == jnp.float32
    np.testing.assert_allclose(
        absum_jax.absum_penalty(kernel), np.abs(wide.sum(axis=0)).sum(), rtol=1e-5
    )


@pytest.mark.parametrize("threshold", [0.25, jnp.bfloat16(0.25), np.float64(0.25), 1])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("prox", [absum_jax.prox_absum, absum_jax.prox_l1])
def test_dtype_is_the_kernels(prox, dtype, threshold):
    with jax.enable_x64(True):
        kernel = jnp.asarray(np.full((2, 1, 1), 2.0), dtype)
        result = prox(kernel, threshold)
    assert result.dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(result, np.float64), 2.0 - np.float64(threshold)
    )


@pytest.mark.parametrize("prox", [absum_jax.prox_absum, absum_jax.prox_l1])
def test_threshold_zero_is_the_identity_to_the_bit(prox):
    kernel = np.random.default_rng(7).normal(size=(3, 3, 2, 4)).astype(np.float32)
    assert np.asarray(prox(kernel, 0.0)).tobytes() == kernel.tobytes()


@pytest.mark.parametrize("prox", [absum_jax.prox_absum, absum_jax.prox_l1])
def test_vmap_over_thresholds(prox):
    kernel = np.random.default_rng(8).normal(size=(3, 3, 1, 2)).astype(np.float32)
    thresholds = np.array([0.0, 0.1, 10.0], np.float32)
    result = jax.vmap(prox, in_axes=(None, 0))(kernel, thresholds)
    for one, threshold in zip(result, thresholds, strict=True):
        np.testing.assert_allclose(one, prox(kernel, threshold), atol=1e-6)


def test_jacobian_is_a_projection_inside_and_the_identity_outside():
    # Eq. 13: within the inner branch the mean goes, beyond it only a constant.
    filters = filters_with_means(4, (0.25, 2.0), seed=9)
    with jax.enable_x64(True):
        prox = functools.partial(absum_jax.prox_absum, threshold=THRESHOLD)
        jacobian = jax.jacobian(prox)(jnp.asarray(filters.reshape(2, 2, 1, 2)))
    blocks = np.asarray(jacobian).reshape(4, 2, 4, 2)
    np.testing.assert_allclose(blocks[:, 0, :, 0], np.eye(4) - 1 / 4, atol=1e-12)
    np.testing.assert_allclose(blocks[:, 1, :, 1], np.eye(4), atol=1e-12)
    np.testing.assert_array_equal(blocks[:, 0, :, 1], 0)


@pytest.mark.parametrize("value", [0.0, 0.5, -0.5, 3.0])
def test_gradients_are_finite_at_kinks(value):
    kernel = jnp.full((2, 2, 1, 1), value)

    def total(kernel, threshold):
        moved = absum_jax.prox_absum(kernel, threshold)
        return (moved**2).sum() + absum_jax.absum_penalty(kernel)

    for gradient in jax.grad(total, argnums=(0, 1))(kernel, THRESHOLD):
        assert jnp.isfinite(gradient).all()
