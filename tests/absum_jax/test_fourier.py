"""fourier.py: radii and radial means against loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import absum_jax

SHAPES = [(4, 4), (5, 5), (3, 8), (28, 28), (1, 7), (1, 1)]


def signed(index, size):
    """The DFT's frequency of an index: negative in the upper half."""
    return index - size if index >= (size + 1) // 2 else index


def radius(l, m, shape):
    return math.hypot(signed(l, shape[0]), signed(m, shape[1]))


@pytest.mark.parametrize("shape", SHAPES)
def test_frequency_radius(shape):
    radii = absum_jax.frequency_radius(shape)
    assert radii.shape == shape
    for l, m in np.ndindex(*shape):
        assert radii[l, m] == pytest.approx(radius(l, m, shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_radial_mean(batch, shape):
    grid = np.random.default_rng(0).uniform(size=(*batch, *shape)).astype(np.float32)
    rings = {}
    for l, m in np.ndindex(*shape):
        rings.setdefault(round(radius(l, m, shape)), []).append(grid[..., l, m])
    assert sorted(rings) == list(range(len(rings)))
    expected = [np.mean(rings[r], axis=0) for r in sorted(rings)]
    result = absum_jax.radial_mean(grid)
    np.testing.assert_allclose(result, np.stack(expected, axis=-1), rtol=1e-5)


def test_radial_mean_under_jit_and_vmap():
    grids = np.random.default_rng(1).uniform(size=(3, 4, 6)).astype(np.float32)
    result = jax.jit(jax.vmap(absum_jax.radial_mean))(grids)
    np.testing.assert_allclose(result, absum_jax.radial_mean(grids), rtol=1e-6)


def test_radial_mean_of_integers():
    np.testing.assert_array_equal(
        absum_jax.radial_mean(jnp.eye(3, dtype=int)), [1.0, 0.25]
    )
