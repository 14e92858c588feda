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
def test_other_seeds_give_other_arrays_of_the_same_shapes(size):
    for call, other in zip(calls(size), calls(size, seed=1), strict=True):
        assert call.label == other.label
        assert set(call.differentiable) <= set(call.traced) <= set(call.arguments)
        for name in call.traced:
            ours, theirs = (
                jax.tree.leaves(each.arguments[name]) for each in (call, other)
            )
            assert [a.shape for a in ours] == [a.shape for a in theirs]
            assert not all(map(np.array_equal, ours, theirs))


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.label)
def test_arguments_are_valid_and_the_reference_fits(call):
    """Array functions are traced only: test_jit.py compares their values."""
    traced = {name: call.arguments[name] for name in call.traced}
    rest = {n: value for n, value in call.arguments.items() if n not in traced}
    if call.kind == "array":
        result = jax.eval_shape(lambda traced: call.function(**traced, **rest), traced)
    else:
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
        assert np.shape(ours) == np.shape(theirs)
        if call.kind == "host":
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
