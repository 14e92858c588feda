"""attacks/single_fourier.py: eq. 6 in complex arithmetic, and the theory behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import absum_jax

SCALES = ["linf", "l2", "coefficient"]


def fourier_basis(l, m, shape):
    """The Fourier basis function of (l, m): an outer product of DFT matrix columns."""
    columns = []
    for frequency, size in zip((l, m), shape, strict=True):
        index = np.arange(size)
        dft = np.exp(-2j * np.pi * np.outer(index, index) / size)
        columns.append(dft[:, frequency])
    return np.outer(*columns)


def eq_6(l, m, shape, eps):
    """Eq. 6 as printed: eps ((1 + j) f + (1 - j) conj f), a real image."""
    basis = fourier_basis(l, m, shape)
    pattern = eps * ((1 + 1j) * basis + (1 - 1j) * basis.conj())
    np.testing.assert_allclose(pattern.imag, 0, atol=1e-9)
    return pattern.real


def all_patterns(shape, eps, scale):
    """Patterns (h, w, h, w) of every (l, m), in one compiled program."""

    def pattern(l, m):
        return absum_jax.single_fourier_perturbation(l, m, shape, eps, scale=scale)

    over_m = jax.vmap(pattern, in_axes=(None, 0))
    over_both = jax.jit(jax.vmap(over_m, in_axes=(0, None)))
    return np.asarray(over_both(jnp.arange(shape[0]), jnp.arange(shape[1])))


@pytest.mark.parametrize("shape", [(4, 4), (5, 5), (3, 8), (6, 1), (7, 2)])
def test_coefficient_is_eq_6_for_every_frequency(shape):
    expected = [
        [eq_6(l, m, shape, 0.3) for m in range(shape[1])] for l in range(shape[0])
    ]
    result = all_patterns(shape, 0.3, "coefficient")
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(28, 28), (9, 9), (6, 10)])
def test_linf_norm_is_eps_for_every_frequency(shape):
    patterns = all_patterns(shape, 0.1, "linf")
    norms = np.abs(patterns).max(axis=(-2, -1))
    np.testing.assert_allclose(norms, 0.1, rtol=3e-7)  # two float32 roundings


@pytest.mark.parametrize("shape", [(28, 28), (5, 8)])
def test_l2_norm_is_eps_for_every_frequency(shape):
    patterns = all_patterns(shape, 0.7, "l2").astype(np.float64)
    norms = np.sqrt((patterns**2).sum(axis=(-2, -1)))
    np.testing.assert_allclose(norms, 0.7, rtol=1e-5)


@pytest.mark.parametrize("scale", ["linf", "l2"])
def test_scales_differ_by_a_positive_factor(scale):
    literal = all_patterns((6, 5), 0.2, "coefficient")
    scaled = all_patterns((6, 5), 0.2, scale)
    factor = (literal * scaled).sum(axis=(-2, -1)) / (literal**2).sum(axis=(-2, -1))
    assert factor.min() > 0
    np.testing.assert_allclose(scaled, factor[..., None, None] * literal, atol=1e-6)


def test_l_indexes_rows_and_m_columns():
    along_rows = absum_jax.single_fourier_perturbation(1, 0, (4, 6), 1.0)
    along_columns = absum_jax.single_fourier_perturbation(0, 1, (4, 6), 1.0)
    assert np.ptp(along_rows, axis=1).max() == 0
    assert np.ptp(along_rows, axis=0).min() > 1
    assert np.ptp(along_columns, axis=0).max() == 0
    assert np.ptp(along_columns, axis=1).min() > 1


def test_opposite_frequencies_are_different_patterns():
    one = absum_jax.single_fourier_perturbation(1, 2, (8, 8), 1.0)
    opposite = absum_jax.single_fourier_perturbation(7, 6, (8, 8), 1.0)
    assert np.abs(one - opposite).max() > 0.5
    spectra = np.abs(np.fft.fft2(one)), np.abs(np.fft.fft2(opposite))
    np.testing.assert_allclose(*spectra, atol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", [1, 3])
def test_attack_adds_the_pattern_to_every_channel_and_clips(channels, scale):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(2, 4, 6, channels)).astype(np.float32)
    attacked = absum_jax.single_fourier_attack(x, 1, 2, 0.8, scale=scale)
    pattern = eq_6(1, 2, (4, 6), 1.0)
    norms = {"linf": abs(pattern).max(), "l2": np.linalg.norm(pattern)}
    pattern = 0.8 * pattern / norms.get(scale, 1.0)
    expected = np.clip(x + pattern[..., None], 0, 1)
    np.testing.assert_allclose(attacked, expected, atol=1e-6)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 0.5), (0.1, 0.7)])
def test_attack_clips_to_the_bounds_exactly(bounds):
    low, high = (np.float32(bound) for bound in bounds)
    x = np.random.default_rng(1).uniform(low, high, (3, 5, 5, 2)).astype(np.float32)
    attacked = absum_jax.single_fourier_attack(x, 1, 1, 3.0, bounds=bounds)
    assert attacked.min() == low
    assert attacked.max() == high


@pytest.mark.parametrize("shape", [(4, 6, 3), (2, 4, 6, 1), (2, 3, 4, 6, 1)])
def test_attack_takes_any_leading_axes(shape):
    x = np.full(shape, 0.5, np.float32)
    attacked = np.asarray(absum_jax.single_fourier_attack(x, 3, 1, 0.25))
    assert attacked.shape == shape
    image = attacked.reshape(-1, *shape[-3:])[0]
    assert (attacked == image).all()
    assert (image == image[..., :1]).all()


def test_eps_zero_leaves_the_images():
    x = np.random.default_rng(2).uniform(size=(2, 4, 4, 1)).astype(np.float32)
    attacked = absum_jax.single_fourier_attack(x, 1, 1, 0.0)
    np.testing.assert_array_equal(attacked, x)


def circulant_matrix(kernel, n):
    """A of eq. 5, dense: (A x) is the circular cross-correlation of x with the kernel.

    A flattened pixel (p, q) of the output sums k[a, b] x[p + a, q + b], as does a
    convolution layer with circular padding.
    """
    matrix = np.zeros((n, n, n, n))
    for p, q in np.ndindex(n, n):
        for (a, b), weight in np.ndenumerate(kernel):
            matrix[p, q, (p + a) % n, (q + b) % n] += weight
    return matrix.reshape(n * n, n * n)


@pytest.mark.parametrize("n", [5, 6])
def test_complex_exponentials_are_eigenvectors_of_the_convolution(n):
    kernel = np.random.default_rng(n).normal(size=(3, 3))
    matrix = circulant_matrix(kernel, n)
    # A moves exp(-j theta(p + a)) = exp(-j theta(p)) exp(-j theta(a)) through the sum:
    # the eigenvalue is sum k[a] exp(-j theta(a)), the DFT of the padded kernel.
    eigenvalues = np.fft.fft2(kernel, (n, n))
    for l, m in np.ndindex(n, n):
        vector = fourier_basis(l, m, (n, n)).ravel()
        np.testing.assert_allclose(
            matrix @ vector, eigenvalues[l, m] * vector, atol=1e-10
        )


@pytest.mark.parametrize("n", [5, 6])
def test_real_patterns_are_right_singular_vectors_of_the_convolution(n):
    kernel = np.random.default_rng(n).normal(size=(3, 3))
    matrix = circulant_matrix(kernel, n)
    gains = np.abs(np.fft.fft2(kernel, (n, n))) ** 2
    with jax.enable_x64(True):
        patterns = all_patterns((n, n), 1.0, "linf")
    assert patterns.dtype == np.float64
    shifted = 0
    for l, m in np.ndindex(n, n):
        v = patterns[l, m].ravel()
        np.testing.assert_allclose(matrix.T @ (matrix @ v), gains[l, m] * v, atol=1e-10)
        shifted += abs(np.corrcoef(matrix @ v, v)[0, 1]) < 0.99 if l or m else 0
    # The pattern itself leaves A shifted in phase: it is no eigenvector of A.
    assert shifted > n


@pytest.mark.parametrize(
    ("l", "m", "shape"),
    [(1023, 511, (1024, 1024)), (7, 1021, (16, 1024)), (997, 1008, (1009, 1013))],
)
def test_large_images_lose_no_accuracy(l, m, shape):
    result = absum_jax.single_fourier_perturbation(
        l, m, shape, 1.0, scale="coefficient"
    )
    # The phase is reduced exactly, in the integers of Python's width.
    p, q = np.arange(shape[0])[:, None], np.arange(shape[1])
    turns = (l * p * shape[1] + m * q * shape[0]) % (shape[0] * shape[1])
    theta = 2 * np.pi * turns / (shape[0] * shape[1])
    np.testing.assert_allclose(result, 2 * (np.cos(theta) + np.sin(theta)), atol=1e-5)


def test_everything_but_shapes_can_be_traced():
    x = np.random.default_rng(3).uniform(size=(2, 4, 6, 1)).astype(np.float32)

    @jax.jit
    @jax.vmap
    def attacks(l, m, eps):
        return absum_jax.single_fourier_attack(x, l, m, eps)

    cases = [(0, 5, 0.1), (3, 0, 0.0), (2, 4, 0.6)]
    result = attacks(*map(jnp.array, zip(*cases, strict=True)))
    for attacked, (l, m, eps) in zip(result, cases, strict=True):
        expected = absum_jax.single_fourier_attack(x, l, m, eps)
        np.testing.assert_allclose(attacked, expected, atol=1e-6)


def test_traced_frequencies_are_integers():
    def pattern(l):
        return absum_jax.single_fourier_perturbation(l, 0, (4, 4), 1.0)

    with pytest.raises(ValueError, match="`l` must be an integer scalar, got"):
        jax.eval_shape(pattern, 0.5)


@pytest.mark.parametrize("integer", [int, np.int64, np.uint8, jnp.int32])
def test_frequencies_of_any_integer_type(integer):
    result = absum_jax.single_fourier_perturbation(
        integer(27), integer(20), (28, 28), 1.0, scale="coefficient"
    )
    np.testing.assert_allclose(result, eq_6(27, 20, (28, 28), 1.0), atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_attack_keeps_the_dtype(dtype):
    x = jnp.full((1, 4, 4, 1), 0.5, dtype)
    attacked = absum_jax.single_fourier_attack(x, 1, 2, jnp.float32(0.25))
    assert attacked.dtype == dtype
    expected = 0.5 + 0.25 * (p := eq_6(1, 2, (4, 4), 1.0)) / abs(p).max()
    np.testing.assert_allclose(
        np.asarray(attacked, float)[0, ..., 0], expected, atol=1e-6
    )


def test_float64_images():
    with jax.enable_x64(True):
        x = jnp.full((1, 5, 5, 1), 0.5, jnp.float64)
        attacked = absum_jax.single_fourier_attack(x, 1, 2, 1e-3, scale="coefficient")
    assert attacked.dtype == np.float64
    expected = 0.5 + eq_6(1, 2, (5, 5), 1e-3)
    np.testing.assert_allclose(attacked[0, ..., 0], expected, atol=1e-14)
