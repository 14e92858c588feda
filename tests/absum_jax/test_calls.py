"""The table of calls covers the library, and the library agrees with it."""

import jax
import numpy as np
import pytest
from calls import KINDS, calls

import absum_jax

CALLS = calls("small")


def test_every_public_name_is_called():
    assert sorted({call.name for call in CALLS}) == absum_jax.__all__
    assert {call.kind for call in CALLS} == set(KINDS)
    assert len({call.label for call in CALLS}) == len(CALLS)


@pytest.mark.parametrize("size", ["small", "large"])
def test_arguments_keep_their_shapes(size):
    for call, other in zip(calls(size), calls(size, seed=1), strict=True):
        assert call.label == other.label
        assert set(call.differentiable) <= set(call.traced) <= set(call.arguments)
        for name in call.traced:
            first, second = (
                jax.tree.map(np.shape, each.arguments[name]) for each in (call, other)
            )
            assert first == second


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.label)
def test_result_is_that_of_the_reference(call):
    result = call.function(**call.arguments)
    if call.reference is None:
        assert call.kind in ("class", "picture")
        return
    expected = call.reference(**call.arguments)
    if call.name in ("conv_input_shapes", "conv_kernels"):
        assert result == expected
        return
    leaves = jax.tree.leaves(expected)
    for ours, theirs in zip(jax.tree.leaves(result), leaves, strict=True):
        limit = call.tolerance * np.abs(theirs).max(initial=0.1)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit)
