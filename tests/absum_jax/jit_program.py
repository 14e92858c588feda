"""Runs the array functions of `calls.py` in their own process and saves the results.

    python jit_program.py reference FILE     NumPy and eager execution, no operation of
                                             which may give NaN
    python jit_program.py jit FILE           jit on values, gradients and vmap

The caller sets `XLA_FLAGS`. The label of each call is printed before it runs: if the
program crashes, the last label is that of the culprit. JIT=all in the environment
includes the gradients and vmap of functions that take long to compile.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from calls import Call, calls
from jax._src.interpreters import mlir


def product_with_a_constant(x: jax.Array) -> jax.Array:
    """A batched product with a broadcast constant, multiplied and summed."""
    return jnp.sum((x @ jnp.full_like(x, 1.7)) * x, -1)


def norms_of_many_rows(x: jax.Array) -> jax.Array:
    """jax-ml/jax#39103: a product with each of more than 32,768 rows, and its norm."""
    return jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(x)


# Programs that YNNPACK fusions are known to compute wrongly, with the input's shape.
PATTERNS = {
    product_with_a_constant: (5, 60, 60),
    norms_of_many_rows: (32_769, 3),
}

# Values only: each further program takes seconds to compile, and its parts are those of
# a function that is compared in full.
SLOW = {
    "apgd",
    "apply_spectral_norm_constraint",
    "apply_spectral_normalization",
    "auto_attack",
    "clip_conv_spectral_norm",
    "conv_frequency_response (strided)",
    "conv_spectral_norm",
    "conv_zero_padded_norm_bound",
    "corruption_accuracy",
    "fourier_noise_accuracy",
    "high_pass_accuracy",
    "low_pass_accuracy",
    "pgd_accuracy",
    "spectral_norm_constraint",
    "spectral_normalization",
    "square",
}
if os.environ.get("JIT") == "all":
    SLOW = set()

Results = dict[str, Any]


class Variant:
    """A call as functions of arrays, and the arrays."""

    def __init__(self, call: Call, other: Call):
        self.call = call
        first, second = (
            tuple(jax.tree.map(jnp.asarray, c.arguments[name]) for name in call.traced)
            for c in (call, other)
        )
        self.first, self.second = first, second
        self.places = [call.traced.index(name) for name in call.differentiable]

    def value(self, *traced: Any) -> Any:
        """The result."""
        arrays = dict(zip(self.call.traced, traced, strict=True))
        return self.call.function(**(self.call.arguments | arrays))

    def parts(self, *traced: Any) -> list[jax.Array]:
        """The floating-point leaves of the result, complex ones as two."""
        leaves = jax.tree.leaves(self.value(*traced))
        halves = [
            (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,)
            for leaf in leaves
            if jnp.issubdtype(leaf.dtype, jnp.inexact)
        ]
        return [half for pair in halves for half in pair]

    @property
    def weights(self) -> list[jax.Array]:
        """One random weight for each number of the result."""
        shapes = jax.eval_shape(self.parts, *self.first)
        rng = np.random.default_rng(0)
        return [jnp.asarray(rng.normal(size=s.shape), s.dtype) for s in shapes]

    def gradients(self, weights: list[jax.Array], *traced: Any) -> Any:
        """The gradient of the sum, and of a weighted sum."""

        def total(*arrays: Any) -> jax.Array:
            return sum(map(jnp.sum, self.parts(*arrays)))

        def weighted(*arrays: Any) -> jax.Array:
            products = map(jnp.multiply, weights, self.parts(*arrays))
            return sum(map(jnp.sum, products))

        return tuple(jax.grad(f, self.places)(*traced) for f in (total, weighted))


def compiled(function: Callable[..., Any], *args: Any) -> Any:
    """Returns what a function returns under jit."""
    return jax.jit(function)(*args)


def stacked(*trees: Any) -> Any:
    """Stacks the leaves of trees, as `vmap` does with results."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def reference(variant: Variant) -> Results:
    """Computes a call by NumPy and without jit."""
    call = variant.call
    results = {"NumPy": call.reference(**call.arguments)}
    if call.label in SLOW:
        return results
    with jax.disable_jit():
        with jax.debug_nans(True):
            results["eager"] = variant.value(*variant.first)
            other = variant.value(*variant.second)
        results["vmap"] = stacked(results["eager"], other)
        if variant.places:
            weights = variant.weights
            _, pull = jax.vjp(variant.parts, *variant.first)
            both = pull(jax.tree.map(jnp.ones_like, weights)), pull(weights)
            results["gradients"] = [[g[i] for i in variant.places] for g in both]
    return results


def jit(variant: Variant) -> Results:
    """Computes a call under jit, with its gradients, and under vmap."""
    results = {"jit": compiled(variant.value, *variant.first)}
    if variant.call.label in SLOW:
        return results
    both = jax.tree.map(lambda *pair: stacked(*pair), variant.first, variant.second)
    results["vmap"] = compiled(jax.vmap(variant.value), *both)
    if variant.places:
        weights = variant.weights
        results["gradients"] = compiled(variant.gradients, weights, *variant.first)
    return results


def main(mode: str, file: str) -> None:
    """Saves all leaves by label, what was computed, and place."""
    run = {"reference": reference, "jit": jit}[mode]
    if mode == "reference" and hasattr(mlir, "make_ir_context"):
        # As in the other tests, jax makes no MLIR context for each of its programs.
        mlir.make_ir_context = functools.cache(mlir.make_ir_context)
    saved: dict[str, np.ndarray] = {}

    def save(label: str, computed: str, tree: Any) -> None:
        for i, leaf in enumerate(jax.tree.leaves(tree)):
            saved[f"{label}|{computed}|{i}"] = np.asarray(leaf)

    for pattern, shape in PATTERNS.items():
        print(pattern.__name__, flush=True)
        x = jax.random.normal(jax.random.key(0), shape)
        with jax.disable_jit():
            save(pattern.__name__, "eager", pattern(x))
        save(pattern.__name__, "jit", compiled(pattern, x))
    for call, other in zip(calls("large"), calls("large", seed=1), strict=True):
        if call.kind == "array":
            print(call.label, flush=True)
            for computed, result in run(Variant(call, other)).items():
                save(call.label, computed, result)
    np.savez(file, **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
