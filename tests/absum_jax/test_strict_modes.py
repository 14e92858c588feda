"""The strict modes of jax: they refuse no call, and change no dtype and no value.

What a mode refuses while a function is traced is found by tracing it, with its
gradients. Values are computed twice: without jit, where each operation is checked for
NaN, and compiled in float64. (`test_jit.py` does the first for functions that are not
`SLOW` to compile.)
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import calls
from jit_program import SLOW

import absum_jax

pytestmark = pytest.mark.slow


def falling(count):
    """A schedule."""
    return 1 / (1 + count)


TABLE = [call for call in calls("small") if call.kind == "array"]
# What the table leaves out, by the call whose arguments it changes.
OPTIONS = {
    "absum": [{"strength": falling, "learning_rate": jnp.float32(0.1)}],
    "accuracy": [{"top_k": (1, 2)}],
    "clip_conv_spectral_norm": [
        {"method": "svd", "projections": 2, "rescale": True},
        {"method": None, "strides": (1, 3), "groups": 2},
    ],
    "conv_singular_values": [{"strides": 2, "kernel_dilation": (2, 1)}],
    "conv_spectral_norm": [{"strides": (2, 1), "groups": 3}],
    "corrupt": [
        {"kind": kind, "severity": jnp.int8(3)}
        for kind in (
            "shot_noise",
            "impulse_noise",
            "speckle_noise",
            "contrast",
            "brightness",
        )
    ],
    "corruption_accuracy": [{"kind": "impulse_noise", "top_k": (1, 2)}],
    "fourier_sensitivity": [{"loss": absum_jax.margin_loss}],
    "fourier_noise_accuracy": [{"frequencies": None, "top_k": (1, 2)}],
    "l1": [{"strength": jnp.bfloat16(1), "learning_rate": falling}],
    "low_pass_accuracy": [{"bounds": (0.0, 1.0), "top_k": (1, 2)}],
    "pgd": [
        {"init_radius": None, "targeted": True, "loss": absum_jax.margin_loss},
        {"eps": [0.1, 0.2], "restarts": 2, "early_stop": True},
    ],
    "pgd_accuracy": [
        {"restarts": 2, "early_stop": True},
        {"restarts": 2, "top_k": (1, 2)},
    ],
    "single_fourier_accuracy": [{"frequencies": None, "scale": "l2", "top_k": (1, 2)}],
    "single_fourier_attack": [
        {"scale": "coefficient", "bounds": (0.0, jnp.float32(1))}
    ],
    "single_fourier_perturbation": [{"scale": "l2", "l": np.int8(1)}],
    "spectral_norm_constraint": [{"max_norm": falling, "method": "polar", "every": 3}],
}
CALLS = TABLE + [
    call._replace(arguments=call.arguments | changed, case=f"{', '.join(changed)}")
    for call in TABLE
    if not call.case
    for changed in OPTIONS.get(call.name, ())
]
OTHERS = [call for call in calls("small") if call.kind in ("host", "picture")]
# `test_jit.py` tries without jit how they change images, and how they count.
OF_TRIED_PARTS = {
    "corruption_accuracy",
    "high_pass_accuracy",
    "low_pass_accuracy",
    "pgd_accuracy",
}
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.label)
table = pytest.mark.parametrize("call", TABLE, ids=lambda call: call.label)


def arrays(call, dtype):
    """The traced arguments, floating-point ones in a dtype and labels as bytes."""
    dtypes = {np.dtype(np.float32): dtype, np.dtype(np.int32): np.uint8}
    return {
        name: jax.tree.map(
            lambda leaf: jnp.asarray(leaf, dtypes[leaf.dtype]), call.arguments[name]
        )
        for name in call.traced
    }


def is_real(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def total(call, rest, traced):
    """The sum of a result, with the absolute values of complex numbers."""
    leaves = jax.tree.leaves(call.function(**traced, **rest))
    reals = [leaf if is_real(leaf) else jnp.abs(leaf) for leaf in leaves]
    return sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in reals)


def trace(call, dtype, *, gradients):
    """The shapes and dtypes of a result; scalars are arrays, which have a dtype."""
    traced = arrays(call, dtype)
    rest = {
        name: jnp.float32(value) if isinstance(value, float) else value
        for name, value in call.arguments.items()
        if name not in traced
    }
    if gradients and call.differentiable:
        of = {name: traced.pop(name) for name in call.differentiable}
        jax.eval_shape(jax.grad(functools.partial(total, call, rest | traced)), of)
        traced |= of
    return jax.eval_shape(lambda traced: call.function(**traced, **rest), traced)


def raising():
    """Makes jax raise where it would broadcast a rank or promote a dtype."""
    stack = contextlib.ExitStack()
    stack.enter_context(jax.numpy_rank_promotion("raise"))
    stack.enter_context(jax.numpy_dtype_promotion("strict"))
    return stack


@every_call
def test_bfloat16_is_not_promoted(call):
    expected = trace(call, "bfloat16", gradients=False)
    with raising():
        assert trace(call, "bfloat16", gradients=True) == expected


@every_call
def test_float32_is_not_promoted_where_float64_exists(call):
    expected = trace(call, "float32", gradients=False)
    with jax.enable_x64(True), raising():
        found = trace(call, "float32", gradients=True)
    if isinstance(found, absum_jax.AttackAccuracy | absum_jax.AutoAttackResult):
        # Strengths are a list of numbers, and have the dtype of those.
        found, expected = found[1:], expected[1:]
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert ours.shape == theirs.shape
        if is_real(theirs) and call.name != "single_fourier_perturbation":
            assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("call", OTHERS, ids=lambda call: call.label)
def test_functions_of_concrete_values_promote_nothing(call):
    with raising():
        found = call.function(**call.arguments)
    if call.name in ("conv_input_shapes", "conv_kernels"):
        assert found == call.reference(**call.arguments)
    elif call.reference is not None:
        assert_near(found, call.reference(**call.arguments), 1e-6)


@table
def test_no_tracer_leaks(call):
    with jax.checking_leaks():
        trace(call, "float32", gradients=False)


def assert_near(found, expected, tolerance):
    expected = jax.tree.leaves(expected)
    for ours, theirs in zip(jax.tree.leaves(found), expected, strict=True):
        largest = np.abs(theirs).max(initial=np.finfo(float).tiny)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(
    "call",
    [call for call in TABLE if call.label in SLOW - OF_TRIED_PARTS],
    ids=lambda call: call.label,
)
def test_without_jit_no_operation_gives_nan(call):
    traced = {
        name: jax.tree.map(jnp.asarray, call.arguments[name]) for name in call.traced
    }
    with jax.disable_jit(), jax.debug_nans(True):
        found = call.function(**(call.arguments | traced))
    assert_near(found, call.reference(**call.arguments), call.tolerance)


@table
def test_float64_has_all_its_digits(call):
    with jax.enable_x64(True), raising(), jax.debug_nans(True):
        rest = {n: v for n, v in call.arguments.items() if n not in call.traced}
        compiled = jax.jit(lambda traced: call.function(**traced, **rest))
        found = jax.tree.map(np.asarray, compiled(arrays(call, "float64")))
    with jax.enable_x64(True):  # in which other signs of noise are drawn
        expected = call.reference(**call.arguments)
    shares = call.name.endswith("accuracy")
    assert_near(found, expected, 1e-6 if shares else 1e-13)
