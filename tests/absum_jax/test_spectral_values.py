"""spectral/spectrum.py: spectra and responses, against the operator as a dense matrix.

And what every function of a convolution says of wrong input.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_operator import CASES, QUICK, Conv, random
from jax import lax

import absum_jax
from absum_jax.spectral import circulant, clip

cases = pytest.mark.parametrize("conv", CASES.values(), ids=CASES)

LAYOUTS = {3: ("NWC", "WIO"), 4: ("NHWC", "HWIO"), 5: ("NDHWC", "DHWIO")}


def lax_dense(conv, kernel, padding):
    """The matrix by lax.conv_general_dilated, on an input wrapped around for None."""
    strides, dilation = map(conv.per_axis, (conv.strides, conv.kernel_dilation))
    x = basis = conv.basis
    if padding is None:
        # The last output begins a stride before the input's end.
        after = [
            (0, max(d * (w - 1) + 1 - s, 0))
            for d, w, s in zip(dilation, conv.window, strides, strict=True)
        ]
        x, padding = np.pad(x, [(0, 0), *after, (0, 0)], mode="wrap"), "VALID"
    layout, weights = LAYOUTS[kernel.ndim]
    with jax.enable_x64(True):
        y = lax.conv_general_dilated(
            jnp.asarray(x),
            jnp.asarray(kernel, jnp.float64),
            strides,
            padding,
            rhs_dilation=dilation,
            feature_group_count=conv.groups,
            dimension_numbers=(layout, weights, layout),
            precision="highest",
        )
        return np.asarray(y).reshape(len(basis), -1).T


@pytest.mark.parametrize(
    "name",
    [
        "even kernel, odd input",
        "strides per axis",
        "1-d with everything",
        "3-d with strides",
        "larger than the input",
        "dilated around the input",
    ],
)
def test_dense_operator_is_the_convolution_of_lax(name):
    conv = CASES[name]
    expected = lax_dense(conv, conv.kernel(), None)
    np.testing.assert_allclose(conv.dense(conv.kernel()), expected, atol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 3))])
def test_zero_padded_operator_is_the_convolution_of_lax(padding):
    conv = Conv((3, 2, 2, 4), (6, 5), (2, 3), (1, 2), groups=2)
    expected = lax_dense(conv, conv.kernel(), padding)
    np.testing.assert_allclose(conv.dense(conv.kernel(), padding), expected, atol=1e-12)


def test_cut_of_the_dense_operator_is_the_kernel():
    for conv in CASES.values():
        kernel = conv.kernel()
        again = conv.taps(conv.dense(kernel))
        # Taps on one place cannot be told apart.
        np.testing.assert_allclose(conv.dense(again), conv.dense(kernel), atol=1e-12)


def spectra(conv, *methods):
    """The spectra of a kernel by each method."""
    return lambda kernel: [
        absum_jax.conv_singular_values(
            kernel, conv.input_shape, method=method, **conv.options
        )
        for method in methods
    ]


@functools.cache
def compiled(conv, *methods):
    return jax.jit(spectra(conv, *methods), compiler_options=QUICK)


def decaying(conv):
    """A kernel whose singular values spread over decades."""
    scales = np.float32(0.1) ** np.arange(conv.kernel_shape[-1], dtype=np.float32)
    return conv.kernel() * scales


def in_order(values):
    return np.sort(values, axis=None)[::-1]


@cases
def test_spectrum_is_that_of_the_dense_operator_in_float32(conv):
    for kernel in (conv.kernel(), decaying(conv)):
        expected = conv.singular_values(kernel)
        values, by_gram = compiled(conv, "svd", "gram")(kernel)
        assert values.dtype == by_gram.dtype == jnp.float32
        # Acceptance of the project: 1e-5 of the largest.
        atol = 1e-5 * expected[0]
        np.testing.assert_allclose(in_order(values), expected, atol=atol, rtol=0)
        # By the Gram matrix 1e-4 of it, for values above a hundredth of it.
        error = abs(in_order(by_gram) - expected)
        assert error[expected > expected[0] / 100].max() <= 1e-4 * expected[0]
        # What the docstring says; at 0 it is the error of a square.
        documented = 1e-6 * expected[0] ** 2 / np.maximum(expected, 1e-3 * expected[0])
        assert (error <= documented).all()


# The geometry of a block does not depend on the type, its accuracy does.
@pytest.mark.parametrize(
    "name", ["strides per axis", "groups", "1-d with everything", "3-d", "one filter"]
)
def test_spectrum_is_that_of_the_dense_operator_in_float64(name):
    conv = CASES[name]
    expected = conv.singular_values(conv.kernel())
    with jax.enable_x64(True):
        [values] = compiled(conv, "svd")(conv.kernel().astype(np.float64))
    assert values.dtype == jnp.float64
    # Acceptance of the project.
    atol = 1e-10 * expected[0]
    np.testing.assert_allclose(in_order(values), expected, atol=atol, rtol=0)


@cases
def test_shapes(conv):
    inputs = conv.kernel_shape[-2] * int(np.prod(conv.per_axis(conv.strides)))
    outputs = conv.kernel_shape[-1] // conv.groups
    by_group = [conv.groups] if conv.groups > 1 else []
    values, response = (
        jax.eval_shape(
            functools.partial(function, input_shape=conv.input_shape, **conv.options),
            conv.kernel(),
        )
        for function in (
            absum_jax.conv_singular_values,
            absum_jax.conv_frequency_response,
        )
    )
    assert values.shape == (*conv.output_shape, *by_group, min(inputs, outputs))
    assert response.shape == (*conv.output_shape, *by_group, outputs, inputs)
    assert response.dtype == jnp.complex64


def test_largest_first_and_the_same_at_opposite_frequencies():
    conv = CASES["plain"]
    for values in compiled(conv, "svd", "gram")(conv.kernel()):
        assert (np.diff(values, axis=-1) <= 0).all()
        opposite = np.roll(np.flip(values, (0, 1)), 1, (0, 1))
        np.testing.assert_array_equal(values, opposite)


def exponential(k, shape):
    """exp(2 pi i k . q / n) at each place q."""
    places = np.indices(shape).T / shape
    return np.exp(2j * np.pi * (places @ k)).T


@pytest.mark.parametrize(
    "name", ["strides per axis", "groups", "1-d with everything", "3-d with strides"]
)
def test_response_is_what_comes_of_complex_exponentials(name):
    conv = CASES[name]
    kernel, space = conv.kernel(), conv.output_shape
    strides, inputs = conv.per_axis(conv.strides), kernel.shape[-2]
    response = absum_jax.conv_frequency_response(
        kernel, conv.input_shape, **conv.options
    )
    # The columns are, in C order, the aliases and the channels.
    response = np.asarray(response).reshape(*space, conv.groups, -1, *strides, inputs)
    for k in np.ndindex(*conv.input_shape):
        q = tuple(np.mod(k, space))
        alias = tuple(np.floor_divide(k, space))
        # (groups, out, in)
        gains = response[(*q, slice(None), slice(None), *alias)]
        gains = gains * np.prod(strides) ** 0.5
        # One unit vector for each group and channel, times the wave.
        x = np.eye(conv.groups * inputs)[:, *[None] * len(space)]
        x = x * exponential(k, conv.input_shape)[..., None]
        y = conv.apply(kernel.astype(np.float64), x)
        expected = np.zeros((conv.groups, inputs, *space, conv.groups, gains.shape[1]))
        expected = expected.astype(complex)
        for group in range(conv.groups):
            wave = exponential(q, space)[..., None]
            for channel in range(inputs):
                expected[group, channel, ..., group, :] = (
                    wave * gains[group, :, channel]
                )
        np.testing.assert_allclose(y, expected.reshape(y.shape), atol=1e-5)


def test_response_is_the_conjugate_of_the_dft():
    conv = CASES["plain"]
    response = absum_jax.conv_frequency_response(conv.kernel(), conv.input_shape)
    expected = np.fft.fft2(conv.kernel(), s=conv.input_shape, axes=(0, 1)).conj()
    np.testing.assert_allclose(np.swapaxes(response, -1, -2), expected, atol=1e-5)


def test_singular_values_of_one_filter_are_its_dft_in_the_order_of_fft2():
    # P appendix, "Inequality of Induced Norms for Convolution": sigma_uv = |DFT|.
    conv = CASES["one filter"]
    kernel = conv.kernel()
    for values in compiled(conv, "svd", "gram")(kernel):
        for fft2 in (np.fft.fft2, jnp.fft.fft2):
            expected = abs(fft2(kernel[..., 0, 0], s=conv.input_shape))
            np.testing.assert_allclose(values[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6, 1e-30, 1e30])
def test_scales(scale):
    conv = CASES["plain"]
    kernel = conv.kernel() * np.float32(scale)
    expected = conv.singular_values(kernel)
    values, by_gram = compiled(conv, "svd", "gram")(kernel)
    ratios = in_order(values).astype(np.float64) / expected[0]
    np.testing.assert_allclose(ratios, expected / expected[0], atol=1e-5)
    np.testing.assert_allclose(by_gram.max(), expected[0], rtol=1e-5)


def test_degenerate_kernels_have_finite_spectra():
    conv = CASES["plain"]
    ones = np.ones(conv.kernel_shape, np.float32)
    for kernel, largest in [(0 * ones, 0), (ones, 9 * np.sqrt(12))]:  # 9 taps, 3 by 4
        for values in compiled(conv, "svd", "gram")(kernel):
            assert (values >= 0).all()
            np.testing.assert_allclose(np.max(values), largest, rtol=1e-6)


@pytest.mark.parametrize(
    ("conv", "chunk", "chunks"),
    # Geometries of their own, as programs are cached by them. 3 x 4 frequencies q with
    # -q: two are their own opposite, (12 + 2) / 2 = 7. A block has 4 * 2 * 3 elements,
    # but the 9 taps by 4 aliases are more.
    [
        (Conv((3, 3, 2, 3), (6, 8), strides=2), 1, (7, 1)),
        (Conv((3, 3, 3, 2), (6, 8), strides=2), 36 * 5, (2, 5)),
    ],
    ids=["one by one", "five at a time"],
)
def test_chunks_change_nothing(monkeypatch, conv, chunk, chunks):
    monkeypatch.setattr(circulant, "_CHUNK", chunk)
    geometry = circulant.circular_conv(conv.kernel_shape, conv.input_shape, 2)
    assert circulant._chunks(geometry)[1].shape == chunks

    @functools.partial(jax.jit, compiler_options=QUICK)
    def program(kernel, max_norm):
        [values] = spectra(conv, "svd")(kernel)
        norm = absum_jax.conv_spectral_norm(kernel, conv.input_shape, **conv.options)
        clipped = [
            clip.clip_kernels(
                jnp.stack([kernel, kernel / 2]),
                max_norm,
                geometry,
                method,
                projections=1,
                rescale=False,
            )
            for method in ("eigh", "polar")
        ]
        return values, norm, clipped

    kernel = conv.kernel()
    expected = conv.singular_values(kernel)
    values, norm, clipped = program(kernel, 2.0)
    assert values.shape == (3, 4, conv.kernel_shape[-1])
    np.testing.assert_allclose(in_order(values), expected, atol=1e-5)
    np.testing.assert_allclose(norm, expected[0], rtol=1e-6)
    for i, whole in enumerate((kernel, kernel / 2)):
        reference = conv.clipped(whole, 2.0)
        assert abs(reference - whole).max() > 0.1
        for ours in clipped:
            np.testing.assert_allclose(ours[i], reference, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype):
    conv = CASES["one filter"]
    kernel = jnp.asarray(conv.kernel(), dtype)
    values, by_gram = compiled(conv, "svd", "gram")(kernel)
    assert values.dtype == by_gram.dtype == jnp.float32
    expected = conv.singular_values(np.asarray(kernel, np.float64))
    np.testing.assert_allclose(in_order(values), expected, atol=1e-5 * expected[0])
    response = jax.eval_shape(
        lambda kernel: absum_jax.conv_frequency_response(kernel, (6, 6)), kernel
    )
    assert response.dtype == jnp.complex64


def test_vmap_over_stacked_kernels():
    conv = CASES["plain"]
    kernels = np.stack([conv.kernel(seed) for seed in range(3)])
    function = spectra(conv, "svd", "gram")
    stacked = jax.jit(jax.vmap(function), compiler_options=QUICK)(kernels)
    for i, kernel in enumerate(kernels):
        alone = compiled(conv, "svd", "gram")(kernel)
        for result, expected in zip(stacked, alone, strict=True):
            np.testing.assert_allclose(result[i], expected, atol=1e-4)


def test_other_spellings_of_a_geometry():
    kernel = CASES["one filter"].kernel()
    expected = absum_jax.conv_singular_values(kernel, (6, 5))
    [by_jit] = compiled(CASES["one filter"], "svd")(kernel)
    np.testing.assert_allclose(by_jit, expected, atol=1e-6)
    for shape in ([6, 5], np.array([6, 5])):
        result = absum_jax.conv_singular_values(
            kernel, shape, strides=np.int32(1), kernel_dilation=[1, 1]
        )
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("window", "counts"),
    [
        # Of 5 x 4 frequencies two are their own opposite; the others are 9 pairs.
        ((2, 2), [1] * 2 + [2] * 9),
        # A kernel of one row has the same blocks in each of the 5 rows.
        ((1, 2), [5, 5, 10]),
        ((1, 1), [20]),
    ],
)
def test_each_frequency_is_computed_once(window, counts):
    kept, found, places = circulant.circular_conv((*window, 1, 1), (5, 4)).frequencies
    assert sorted(found) == counts
    spectrum = abs(np.fft.fft2(random(*window), s=(5, 4)))
    np.testing.assert_allclose(spectrum[tuple(kept.T)][places], spectrum, atol=1e-12)


@pytest.mark.parametrize("value", [1.0, 0.75, 3.0, 1e-6, 1e6, 1e-30, 1e30])
def test_normalized_takes_a_power_of_two(value):
    kernel = jnp.array([value, -value / 3], jnp.float32)
    unit, scale = circulant.normalized(kernel)
    assert 0.5 <= unit[0] < 1
    assert np.frexp(scale)[0] == 0.5
    np.testing.assert_array_equal(unit * scale, kernel)


def test_normalized_zero_is_zero():
    unit, scale = circulant.normalized(jnp.zeros(2))
    np.testing.assert_array_equal(unit, 0)
    assert scale == 1


KERNEL = np.ones((3, 2, 2, 4), np.float32)


def clipping(kernel, input_shape, max_norm=1.0, **options):
    return absum_jax.clip_conv_spectral_norm(kernel, input_shape, max_norm, **options)


CIRCULAR = {
    "conv_singular_values": absum_jax.conv_singular_values,
    "conv_frequency_response": absum_jax.conv_frequency_response,
    "conv_spectral_norm": absum_jax.conv_spectral_norm,
    "clip_conv_spectral_norm": clipping,
}
STRIDED = {
    **CIRCULAR,
    "conv_zero_padded_norm_bound": absum_jax.conv_zero_padded_norm_bound,
}
ALL = {**STRIDED, "conv_induced_inf_norm": absum_jax.conv_induced_inf_norm}
AXES = (
    "`kernel` must have the axes (spatial..., in, out), none of them empty, got shape"
)
SIZES = "`input_shape` must be positive integers, one for each of 2 spatial axes, got"

WRONG = [
    (ALL, {"kernel": KERNEL.astype(int)}, "`kernel` must have a real floating-point"),
    (ALL, {"kernel": KERNEL * 1j}, "`kernel` must have a real floating-point"),
    (ALL, {"kernel": KERNEL[0, 0], "input_shape": ()}, f"{AXES} (2, 4)"),
    (ALL, {"kernel": KERNEL[0, 0, 0], "input_shape": (6,)}, f"{AXES} (4,)"),
    (ALL, {"kernel": KERNEL[:0]}, f"{AXES} (0, 2, 2, 4)"),
    (ALL, {"kernel": KERNEL[..., :0]}, f"{AXES} (3, 2, 2, 0)"),
    (ALL, {"input_shape": 6}, "`input_shape` must be the 2 spatial sizes"),
    (STRIDED, {"input_shape": None}, "`input_shape` must be the 2 spatial sizes"),
    (ALL, {"input_shape": (6,)}, f"{SIZES} (6,)"),
    (ALL, {"input_shape": (6, 6, 2)}, f"{SIZES} (6, 6, 2)"),
    (ALL, {"input_shape": (6, 0)}, f"{SIZES} (6, 0)"),
    (ALL, {"input_shape": (6.0, 6.0)}, f"{SIZES} (6.0, 6.0)"),
    (ALL, {"input_shape": (True, 6)}, f"{SIZES} (True, 6)"),
    (ALL, {"kernel_dilation": 0}, "`kernel_dilation` must be positive integers"),
    (ALL, {"kernel_dilation": (1, 1, 1)}, "`kernel_dilation` must be positive"),
    (ALL, {"kernel_dilation": 1.5}, "`kernel_dilation` must be positive integers"),
    (
        STRIDED,
        {"strides": -1},
        "`strides` must be positive integers, one for each of 2",
    ),
    (STRIDED, {"strides": (2,)}, "`strides` must be positive integers.*got (2,)"),
    (STRIDED, {"strides": None}, "`strides` must be positive integers.*got None"),
    (CIRCULAR, {"strides": 4}, "`strides` must divide `input_shape`.*(4, 4).*(6, 6)"),
    (STRIDED, {"groups": 3}, "`groups` must divide the 4 output channels, got 3"),
    (STRIDED, {"groups": 0}, "`groups` must be an integer of at least 1, got 0"),
    (STRIDED, {"groups": 2.0}, "`groups` must be an integer of at least 1, got 2.0"),
]
METHOD = [
    (
        absum_jax.conv_singular_values,
        {"method": "qr"},
        "`method` must be one of 'svd', 'gram', got 'qr'",
    ),
    (clipping, {"method": "gram"}, "`method` must be one of 'polar', 'eigh', 'svd'"),
    (clipping, {"projections": 0}, "`projections` must be an integer of at least 1"),
    (clipping, {"projections": 1.0}, "`projections` must be an integer of at least 1"),
    (clipping, {"max_norm": 0.0}, "`max_norm` must be positive, got 0.0"),
    (clipping, {"max_norm": -1.0}, "`max_norm` must be non-negative, got -1.0"),
    (clipping, {"max_norm": np.nan}, "`max_norm` must be non-negative, got nan"),
    (clipping, {"max_norm": None}, "`max_norm` must be a real number, got None"),
    (clipping, {"max_norm": np.ones(2)}, "`max_norm` must be a scalar, got shape (2,)"),
]
EACH = [
    (function, changed, message)
    for functions, changed, message in WRONG
    for function in functions.values()
]


@pytest.mark.parametrize(("function", "changed", "message"), EACH + METHOD)
def test_wrong_input_is_named(function, changed, message):
    pattern = ".*".join(map(re.escape, message.split(".*")))
    arguments = {"kernel": KERNEL, "input_shape": (6, 6)} | changed
    with pytest.raises(ValueError, match=f"^{pattern}"):
        function(**arguments)


def test_a_traced_bound_is_not_looked_at():
    shape = jax.eval_shape(functools.partial(clipping, KERNEL, (6, 6)), -1.0)
    assert shape.shape == KERNEL.shape
