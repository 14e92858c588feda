"""spectral/spectrum.py: norms against the dense operator, and what the paper proves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_operator import CASES, QUICK, Conv, random
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import absum_jax


def norm_of(conv):
    """The spectral norm as a function of the kernel."""
    return functools.partial(
        absum_jax.conv_spectral_norm, input_shape=conv.input_shape, **conv.options
    )


@functools.cache
def compiled(conv):
    return jax.jit(norm_of(conv), compiler_options=QUICK)


# The blocks are those of test_spectral_values.py, which has every geometry.
@pytest.mark.parametrize(
    "name",
    [
        "even kernel, odd input",
        "strides per axis",
        "1x1 with strides",
        "groups",
        "depthwise, strides",
        "one filter",
        "one output",
        "1-d with everything",
        "3-d",
        "larger than the input",
        "dilated around the input",
        "one pixel",
    ],
)
def test_spectral_norm_is_that_of_the_dense_operator(name):
    conv = CASES[name]
    for seed in range(3):
        kernel = conv.kernel(seed)
        norm = compiled(conv)(kernel)
        assert norm.shape == ()
        assert norm.dtype == jnp.float32
        # Never below but for rounding, 1e-6; tight to a few roundings.
        ratio = norm / conv.singular_values(kernel)[0]
        assert 1 - 1e-6 <= ratio <= 1 + 2e-6


# One geometry serves many kernels: 4 input, 4 output channels.
SQUARE = Conv((3, 3, 4, 4), (4, 4))


def one_tap(matrix, window=(3, 3)):
    """A convolution that multiplies each pixel by a matrix."""
    kernel = np.zeros((*window, *matrix.shape))
    kernel[(0,) * len(window)] = matrix
    return kernel


def rank_one(seed=0):
    rng = np.random.default_rng(seed)
    return np.einsum("hw,i,o->hwio", *map(rng.normal, [0] * 3, [1] * 3, [(3, 3), 4, 4]))


def orthogonal(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


BLUR = np.multiply.outer([1, 2, 1], [1, 2, 1]) / 16  # binomial, as in anti-aliasing
SPECIAL = {
    "rank one": rank_one(),
    "equal singular values": one_tap(orthogonal(4)),
    "two equal": one_tap(np.diag([1, 1, 0.5, 0])),
    "close": one_tap(np.diag([1, 0.99, 0.5, 0.2])),
    "nearly equal": one_tap(np.diag([1, 1 - 1e-4, 1 - 1e-6, 0.5])),
    "blur of each channel": np.einsum("hw,io->hwio", BLUR, np.eye(4)),
    "blur of mixed channels": np.einsum("hw,io->hwio", BLUR, random(4, 4)),
    "blur of rank one": np.einsum("hw,i,o->hwio", BLUR, random(4), random(4, seed=1)),
    "means": np.ones((3, 3, 4, 4)) / 9,
    "dead channels": random(3, 3, 4, 4) * [1, 0, 0, 1],
    "one coefficient": one_tap(np.diag([0, 0, 3, 0])),
    "channels of other scales": random(3, 3, 4, 4) * [1, 1e-3, 1e-6, 1e-12],
    "tiny beside large": random(3, 3, 4, 4) * [[1], [1e-20], [1e-30], [1]],
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_kernels(name):
    kernel = SPECIAL[name].astype(np.float32)
    expected = SQUARE.singular_values(kernel)[0]
    np.testing.assert_allclose(compiled(SQUARE)(kernel), expected, rtol=2e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6, 1e-30, 1e30])
def test_scales(scale):
    kernel = SQUARE.kernel() * np.float32(scale)
    expected = SQUARE.singular_values(kernel)[0]
    np.testing.assert_allclose(compiled(SQUARE)(kernel), expected, rtol=2e-6)


def test_zero():
    assert compiled(SQUARE)(np.zeros((3, 3, 4, 4), np.float32)) == 0


@pytest.mark.parametrize(
    ("conv", "norm"),
    [(Conv((4, 4, 1, 1), (8, 8)), 16), (Conv((2, 2, 2, 1, 1), (4, 4, 4)), 8)],
    ids=["2-d", "3-d"],
)
def test_sums_whose_response_vanishes_at_some_frequencies(conv, norm):
    # Rounding leaves 1e-24 where the sum of alternating signs is zero.
    assert compiled(conv)(np.ones(conv.kernel_shape, np.float32)) == norm


def test_largest_response_at_an_inner_frequency():
    conv = Conv((6, 6, 1, 1), (6, 6))
    l, m = np.indices((6, 6))
    wave = np.cos(2 * np.pi * (l + 2 * m) / 6).astype(np.float32)
    # |sum cos^2| over the 36 places.
    norm = compiled(conv)(wave[..., None, None])
    np.testing.assert_allclose(norm, 18, rtol=1e-6)
    assert abs(wave.sum()) < 1e-5


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype):
    kernel = jnp.asarray(SQUARE.kernel(), dtype)
    norm = compiled(SQUARE)(kernel)
    assert norm.dtype == jnp.float32
    expected = SQUARE.singular_values(np.asarray(kernel, np.float64))[0]
    np.testing.assert_allclose(norm, expected, rtol=2e-6)
    for function in (
        absum_jax.conv_zero_padded_norm_bound,
        absum_jax.conv_induced_inf_norm,
    ):
        shape_of = functools.partial(function, input_shape=(6, 6))
        assert jax.eval_shape(shape_of, kernel).dtype == jnp.float32


@functools.cache
def with_gradient(conv):
    """Norm and gradient of stacked kernels."""
    function = jax.vmap(jax.value_and_grad(norm_of(conv)))
    return jax.jit(function, compiler_options=QUICK)


def central_differences(function, x, step=1e-5):
    gradient = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        shift = np.zeros(x.shape)
        shift[index] = step
        gradient[index] = (function(x + shift) - function(x - shift)) / (2 * step)
    return gradient


@pytest.mark.parametrize(
    "conv",
    [
        Conv((3, 2, 2, 2), (4, 3)),
        Conv((2, 2, 2, 4), (4, 2), strides=2, groups=2),
        Conv((3, 2, 3), (2,), kernel_dilation=3),
    ],
    ids=["tall", "strides and groups", "wrapped"],
)
def test_gradient_is_that_of_central_differences(conv):
    kernels = np.stack([conv.kernel(seed).astype(np.float64) for seed in range(2)])
    with jax.enable_x64(True):
        norms, gradients = with_gradient(conv)(kernels)
    for kernel, norm, gradient in zip(kernels, norms, gradients, strict=True):
        values = conv.singular_values(kernel)
        assert norm.dtype == jnp.float64
        np.testing.assert_allclose(norm, values[0], rtol=1e-13)
        # Generic: only the opposite frequency has the same value.
        assert values[0] - values[2] > 1e-2
        expected = central_differences(lambda k: conv.singular_values(k)[0], kernel)
        np.testing.assert_allclose(gradient, expected, atol=1e-8)


def special_gradients():
    """Kernels with their norms and gradients, in one batch."""
    kernels = [*SPECIAL.values(), SQUARE.kernel(), np.zeros((3, 3, 4, 4))]
    return kernels, *with_gradient(SQUARE)(np.stack(kernels).astype(np.float32))


def test_gradients_of_stacked_kernels_are_subgradients_and_zero_at_zero():
    kernels, norms, gradients = special_gradients()
    expected = [SQUARE.singular_values(kernel)[0] for kernel in kernels]
    np.testing.assert_allclose(norms, expected, rtol=2e-6)
    others = [SQUARE.kernel(seed) for seed in range(1, 6)] + kernels
    for kernel, norm, gradient in zip(kernels, norms, gradients, strict=True):
        assert np.isfinite(gradient).all()
        if norm == 0:
            np.testing.assert_array_equal(gradient, 0)
            continue
        # <g, k> = |k| and <g, h> <= |h| for all h, and only for a subgradient.
        np.testing.assert_allclose(np.sum(gradient * kernel), norm, rtol=1e-5)
        for other in others:
            most = SQUARE.singular_values(other)[0] * (1 + 1e-5)
            assert abs(np.sum(gradient * other)) <= most


def test_gradient_tells_close_singular_values_apart():
    _, _, gradients = special_gradients()
    # Of a single tap, u v^T at each frequency. Rounding, 1e-7, over the gap.
    gradient = gradients[list(SPECIAL).index("close")]
    np.testing.assert_allclose(gradient[0, 0], np.diag([1, 0, 0, 0]), atol=2e-5)


# Zero padding

PADDED = {
    "even kernel": Conv((2, 4, 3, 2), (6, 5)),
    "stride 2": Conv((3, 3, 2, 3), (5, 6), strides=2),
    "stride 3": Conv((3, 2, 2, 4), (7, 8), strides=3),
    "dilation": Conv((3, 3, 2, 2), (6, 7), kernel_dilation=2),
    "groups": Conv((3, 3, 2, 4), (6, 6), groups=2),
    "1-d, larger than the input": Conv((5, 2, 3), (3,)),
    "3-d": Conv((2, 3, 2, 2, 2), (3, 3, 2), strides=(1, 2, 1)),
    "1x1 with strides": Conv((1, 1, 3, 3), (5, 5), strides=2),
}
PADDINGS = ["SAME", "SAME_LOWER", "VALID", "full", "one more"]


def zero_padding(conv, padding):
    if padding not in ("full", "one more"):
        return padding
    dilation = conv.per_axis(conv.kernel_dilation)
    widths = [d * (w - 1) for d, w in zip(dilation, conv.window, strict=True)]
    extra = padding == "one more"
    return tuple((width + extra, width) for width in widths)


@pytest.mark.slow
@pytest.mark.parametrize("name", PADDED)
def test_zero_padded_norm_bound(name):
    conv = PADDED[name]
    bound_of = jax.jit(
        functools.partial(
            absum_jax.conv_zero_padded_norm_bound,
            input_shape=conv.input_shape,
            **conv.options,
        ),
        compiler_options=QUICK,
    )
    for seed in range(3):
        bound = bound_of(conv.kernel(seed))
        norms = {}
        for padding in PADDINGS:
            pads = zero_padding(conv, padding)
            if padding == "VALID" and conv.window[0] > conv.input_shape[0]:
                continue  # no output at all
            norms[padding] = np.linalg.norm(conv.dense(conv.kernel(seed), pads), 2)
        assert max(norms.values()) <= bound * (1 + 1e-6)
        # Measured: at most 1.36 times the norm for SAME on such small inputs.
        assert bound <= 1.5 * norms["SAME"]


def test_zero_padded_norm_bound_is_tight_on_larger_inputs():
    conv = Conv((3, 3, 1, 2), (16, 16))
    bound = absum_jax.conv_zero_padded_norm_bound(conv.kernel(), conv.input_shape)
    norm = np.linalg.norm(conv.dense(conv.kernel(), "SAME"), 2)
    assert norm <= bound <= 1.05 * norm


# The induced infinity norm


@pytest.mark.parametrize(
    "name",
    [
        "groups",
        "1-d with everything",
        "3-d",
        "larger than the input",
        "dilated around the input",
        "one pixel",
    ],
)
def test_induced_inf_norm_is_the_largest_row_sum(name):
    conv = CASES[name]
    norm = absum_jax.conv_induced_inf_norm(
        conv.kernel(), conv.input_shape, kernel_dilation=conv.kernel_dilation
    )
    expected = abs(conv.dense(conv.kernel())).sum(axis=1).max()
    np.testing.assert_allclose(norm, expected, rtol=1e-6)


def test_induced_inf_norm_on_large_inputs():
    kernel = random(3, 2, 2, 4)
    expected = abs(kernel).sum((0, 1, 2)).max()
    for shape, dilation in [(None, 1), ((9, 9), 1), (None, (2, 3)), ((5, 4), (2, 3))]:
        norm = absum_jax.conv_induced_inf_norm(kernel, shape, kernel_dilation=dilation)
        np.testing.assert_allclose(norm, expected, rtol=1e-6)


def test_induced_inf_norm_of_what_is_no_kernel():
    for shape in [(3,), (3, 1), (0, 1, 1)]:
        with pytest.raises(ValueError, match="`kernel` must have the axes"):
            absum_jax.conv_induced_inf_norm(np.ones(shape), kernel_dilation=(1, 1))


# What the paper's appendix proves of one filter, "Inequality of Induced Norms for
# Convolution"

SIDE = 4
# Powers of ten up to what float64 holds: no property may depend on the scale.
FILTERS = hnp.arrays(
    np.float64,
    (3, 3, 1, 1),
    elements=st.floats(-4, 4, allow_subnormal=False) | st.sampled_from([0.0, 1.0]),
)


@functools.partial(jax.jit, compiler_options=QUICK)
def _of_filter(kernel):
    return (
        absum_jax.conv_spectral_norm(kernel, (SIDE, SIDE)),
        absum_jax.conv_induced_inf_norm(kernel, (SIDE, SIDE)),
        absum_jax.conv_singular_values(kernel, (SIDE, SIDE)),
    )


def of_filter(kernel):
    """Spectral norm, induced infinity norm and singular values, in float64."""
    with jax.enable_x64(True):
        return [np.asarray(result) for result in _of_filter(kernel)]


@given(FILTERS)
def test_spectral_norm_is_at_most_the_induced_inf_norm(kernel):
    norm, inf_norm, _ = of_filter(kernel)
    assert norm <= inf_norm * (1 + 1e-12)


@given(FILTERS)
def test_frobenius_norm_is_n_times_that_of_the_filter(kernel):
    *_, values = of_filter(kernel)
    np.testing.assert_allclose(
        np.linalg.norm(values), SIDE * np.linalg.norm(kernel), rtol=1e-12
    )


@given(FILTERS)
def test_spectral_norm_lies_between_the_others(kernel):
    norm, inf_norm, values = of_filter(kernel)
    assert inf_norm / SIDE <= norm * (1 + 1e-12)
    assert norm <= np.linalg.norm(values) * (1 + 1e-12)
    np.testing.assert_allclose(norm, values.max(), rtol=1e-12)


@given(FILTERS, st.floats(-1e6, 1e6, allow_subnormal=False))
def test_norms_are_homogeneous(kernel, factor):
    for scaled, plain in zip(
        of_filter(factor * kernel), of_filter(kernel), strict=True
    ):
        atol = 1e-12 * abs(factor) * np.max(plain)
        np.testing.assert_allclose(scaled, abs(factor) * plain, atol=atol)


@given(FILTERS, FILTERS)
def test_norms_are_subadditive(kernel, other):
    both, one, two = map(of_filter, (kernel + other, kernel, other))
    for total, a, b in zip(both[:2], one[:2], two[:2], strict=True):
        assert total <= (a + b) * (1 + 1e-12)
