"""Any values: the right result, or a ValueError that names an argument.

One or two arguments of each public function are replaced by values of all kinds. What
the function returns must be what the reference of `calls.py` says of the same
arguments, wherever that has an answer.
"""

import functools
import inspect
import re
import warnings

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import calls
from hypothesis import strategies as st

import absum_jax

pytestmark = pytest.mark.slow

NAN, INF = float("nan"), float("inf")
NUMBERS = [
    *(NAN, INF, -INF, 0.0, -0.0, 1e-30, 0.01, 1.0, 1.5, 2.0, 1e39, -1.0, 1e-320),
    *(-1, 0, 1, 2, 3, 2**31, 2**40, 10**400, True, False, 1j),
    *(np.float16(0.1), np.int8(2), np.int64(2**40), np.uint8(1), np.bool_(True)),
]
OBJECTS = [
    *(None, "", "abc", "svd", "l2", b"x", object(), {}, {"a": 1.0}, set(), {1, 2}),
    *(lambda *_: 3, [None], ["a"], [[1.0], [1.0, 2.0]], np.array(["a", "b"])),
    np.array(["2020-01-01"], "M8[s]"),
]
DTYPES = [np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8, bool]
SHAPES = [(), (0,), (1,), (2,), (3, 2), (4, 4), (2, 3, 1), (3, 3, 2, 2), (2, 5, 4, 3)]


def arrays():
    """Small arrays of many types, some of them not finite, some of jax."""

    def array(shape, dtype, special, of_jax):
        values = np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
        if values.size and special is not None:
            values.flat[0] = special
        with np.errstate(invalid="ignore"):
            values = values.astype(dtype)
        return jnp.asarray(values) if of_jax else values

    return st.builds(
        array,
        st.sampled_from(SHAPES),
        st.sampled_from([*DTYPES, np.complex64, jnp.bfloat16]),
        st.sampled_from([None, NAN, INF, -1.0]),
        st.booleans(),
    )


def variants(value):
    """The same number or array in other types, most of them as good."""
    types = [jnp.asarray, np.asarray, np.float16, np.float64, jnp.bfloat16, list]

    def convert(to):
        try:
            return np.asarray(value).tolist() if to is list else to(value)
        except (TypeError, ValueError):
            return value

    return st.sampled_from(types).map(convert)


@functools.cache
def values():
    """Numbers and other objects, lists of numbers, and arrays."""
    numbers = st.sampled_from(NUMBERS)
    lists = st.lists(numbers, max_size=3)
    return st.one_of(
        numbers, numbers, st.sampled_from(OBJECTS), lists, lists.map(tuple), arrays()
    )


# The user's own functions and trees raise their own errors.
FREE = {"fn", "params"}
OF_FUNCTIONS_AND_TREES = {"canonical_convolutions", "conv_input_shapes", "conv_kernels"}
CALLS = {
    call.label: call
    for call in calls("small")
    if call.kind in ("array", "host") and call.name not in OF_FUNCTIONS_AND_TREES
}


@functools.cache
def parameters(label):
    call = CALLS[label]
    signature = inspect.signature(getattr(absum_jax, call.name)).parameters
    return sorted({*signature, *call.arguments} - FREE)


def result_or_none(call, arguments):
    """The result; None after a ValueError that names an argument."""
    try:
        with warnings.catch_warnings():
            # Futile attacks are warned of, and numbers that overflow.
            warnings.simplefilter("ignore")
            return jax.block_until_ready(call.function(**arguments))
    except ValueError as error:
        if {*re.findall(r"`([a-z_]+)", str(error))} & {*parameters(call.label), *FREE}:
            return None
        raise


def like(original, value):
    """A value in the form that references know, of the original one."""
    if isinstance(original, np.ndarray | list):
        array = np.asarray(value)
        if array.ndim != np.ndim(original):
            raise ValueError("references take no other axes")
        return np.asarray(array, np.float64) if array.dtype == jnp.bfloat16 else array
    if isinstance(original, tuple):
        return tuple(np.asarray(value).tolist())
    return type(original)(value) if isinstance(original, int | float) else value


def expected_or_none(call, arguments):
    """The reference's leaves; None where it has no answer to such arguments."""
    try:
        known = {n: like(call.arguments[n], value) for n, value in arguments.items()}
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [
                np.asarray(leaf) for leaf in jax.tree.leaves(call.reference(**known))
            ]
    except Exception:
        return None


@functools.cache
def strategies(label):
    """Names of one or two parameters, and the values of each.

    They are made once, as hypothesis analyses each strategy anew.
    """
    names = st.sampled_from(parameters(label))
    arguments = CALLS[label].arguments
    return st.lists(names, min_size=1, max_size=2, unique=True), {
        name: st.one_of(variants(arguments.get(name, 1)), values())
        for name in parameters(label)
    }


def compared(call, data):
    """Tries a call with other values; whether its result could be compared."""
    names, replacements = strategies(call.label)
    changed = {
        name: data.draw(replacements[name], label=name) for name in data.draw(names)
    }
    arguments = call.arguments | changed
    result = result_or_none(call, arguments)
    # References know no other arguments than their own.
    if result is None or not changed.keys() <= call.arguments.keys():
        return False
    expected = expected_or_none(call, arguments)
    if expected is None or not all(np.isfinite(leaf).all() for leaf in expected):
        return False
    leaves = [np.asarray(leaf, np.complex128) for leaf in jax.tree.leaves(result)]
    for ours, theirs in zip(leaves, expected, strict=True):
        assert ours.shape == theirs.shape
        scale = max(np.abs(theirs).max(initial=0), 1)
        # Half precision of what was replaced, or of what is returned.
        np.testing.assert_allclose(ours, theirs, atol=2e-2 * scale)
    return True


@pytest.mark.parametrize("label", CALLS)
def test_any_values(label):
    comparisons = []

    @hypothesis.settings(max_examples=40)
    @hypothesis.given(data=st.data())
    def try_values(data):
        comparisons.append(compared(CALLS[label], data))

    try_values()
    assert any(comparisons)
