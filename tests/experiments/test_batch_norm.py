"""Batch normalization by products with ones beside the plain formula and flax's."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.models import batch_norm
from experiments.models.layers import norm

_EPSILON = 1e-5


def _arguments(shape):
    rng = np.random.default_rng(0)
    x = 2 * rng.normal(size=shape) + rng.normal(size=shape[-1])
    values = (x, rng.normal(size=shape[-1]), rng.normal(size=shape[-1]))
    return tuple(jnp.asarray(value, jnp.float32) for value in values)


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((8, 4, 4, 3), 1), ((3, 5, 7, 2), 1), ((2, 4, 3, 4, 3), 2), ((6, 5), 1)],
)
def test_products_give_what_the_plain_formula_and_its_derivative_give(shape, groups):
    arguments = _arguments(shape)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(
        lambda *a: batch_norm.plain(*a, _EPSILON, groups), *arguments
    )
    weights = [rng.normal(size=out.shape) for out in shapes]

    def results(normalize):
        def loss(*arguments):
            outputs = normalize(*arguments, _EPSILON, groups)
            return sum((w * o).sum() for w, o in zip(weights, outputs, strict=True))

        gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(*arguments)
        return *normalize(*arguments, _EPSILON, groups), *gradients

    for ours, expected in zip(
        results(batch_norm.by_products), results(batch_norm.plain), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_the_layer_is_flaxs():
    x, scale, bias = _arguments((8, 4, 4, 3))
    ours = norm(3, nnx.Rngs(0))
    flaxs = nnx.BatchNorm(3, momentum=0.9, epsilon=_EPSILON, rngs=nnx.Rngs(0))
    for layer in (ours, flaxs):
        layer.scale[...], layer.bias[...] = scale, bias
    np.testing.assert_allclose(ours(x), flaxs(x), atol=1e-5)
    np.testing.assert_allclose(ours.mean[...], flaxs.mean[...], rtol=1e-5)
    np.testing.assert_allclose(ours.var[...], flaxs.var[...], rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_float32_is_kept_where_64_bit_types_are_enabled(groups):
    arguments = _arguments((4, 3, 3, 2))
    normalize = functools.partial(
        batch_norm.normalized, epsilon=_EPSILON, groups=groups
    )
    expected = normalize(*arguments)
    with jax.enable_x64(True):
        got = normalize(*arguments)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_devices_compile_what_flax_gives_them(platform):
    def operations(layer):
        graphdef, state = nnx.split(layer)

        def loss(state, x):
            layer = nnx.merge(graphdef, state, copy=True)
            return jnp.square(layer(x)).sum(), nnx.state(layer, nnx.BatchStat)

        step = jax.jit(jax.value_and_grad(loss, has_aux=True, allow_int=True))
        traced = step.trace(state, jnp.ones((8, 4, 4, 3)))
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return collections.Counter(re.findall(r"stablehlo\.(\w+)", text))

    ours = operations(norm(3, nnx.Rngs(0)))
    flaxs = operations(
        nnx.BatchNorm(3, momentum=0.9, epsilon=_EPSILON, rngs=nnx.Rngs(0))
    )
    assert ours["dot_general"] == 0
    computing = ("multiply", "divide", "rsqrt", "reduce", "exponential", "power")
    assert {op: ours[op] for op in computing} == {op: flaxs[op] for op in computing}
