"""Data flow in a jaxpr from parameters to the convolutions that use them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

# fmt: off
# If these keep the shape, they keep the values, or flip them, like the spectrum.
_TRANSPARENT = frozenset({
    "broadcast_in_dim", "convert_element_type", "copy", "device_put", "dynamic_slice",
    "name", "optimization_barrier", "pvary", "reduce_precision", "reshape", "reshard",
    "rev", "sharding_constraint", "slice", "squeeze", "stop_gradient",
})
# fmt: on


class Kernel(NamedTuple):
    """A leaf, unchanged up to the order of its axes."""

    name: str
    axes: tuple[int, ...]  # of the leaf, in the order of the value's axes


class Value(NamedTuple):
    """The origin of a value of the jaxpr; a constant has none."""

    kernels: frozenset[Kernel] = frozenset()  # it may be any one of these
    changed: Mapping[str, str] = {}  # leaves it is computed from, and primitives
    from_x: bool = False  # whether it depends on the input


Record = Callable[[core.JaxprEqn, Value], None]


def _same_shape(a: Any, b: Any) -> bool:
    return getattr(a.aval, "shape", None) == getattr(b.aval, "shape", None)


def _either(a: Value, b: Value) -> Value:
    changed = {**b.changed, **a.changed}
    return Value(a.kernels | b.kernels, changed, a.from_x or b.from_x)


def _changed(values: Sequence[Value], primitive: str) -> Value:
    """Returns the origin of what a primitive computes from its operands."""
    if any(value.from_x for value in values):
        return Value(from_x=True)
    before = [item for value in values for item in value.changed.items()]
    # In k / |k|, name the division as what changed k, not the norm.
    now = [(kernel.name, primitive) for value in values for kernel in value.kernels]
    return Value(changed=dict(before + now))


def _crossing(
    values: Sequence[Value], there: Sequence[Any], here: Sequence[Any], primitive: str
) -> list[Value]:
    """Maps values into or out of a primitive that may slice or stack them."""
    return [
        value if _same_shape(a, b) else _changed([value], primitive)
        for value, a, b in zip(values, there, here, strict=True)
    ]


def walk(jaxpr: core.Jaxpr, values: Sequence[Value], record: Record) -> list[Value]:
    """Returns a jaxpr's outputs and calls `record` with each convolution's kernel."""
    known: dict[Any, Value] = dict(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Value:
        constant = Value()
        return constant if isinstance(atom, core.Literal) else known.get(atom, constant)

    for eqn in jaxpr.eqns:
        outputs = _apply(eqn, [read(atom) for atom in eqn.invars], record)
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(eqn: core.JaxprEqn, values: list[Value], record: Record) -> Sequence[Value]:
    """Returns the outputs of one equation."""
    name = eqn.primitive.name
    if name == "conv_general_dilated":
        record(eqn, values[1])
    if name == "transpose":
        return [_transposed(values[0], eqn.params["permutation"])]
    if name in _TRANSPARENT and _keeps_values(eqn):
        return values[: len(eqn.outvars)]
    if name == "scan":
        return _scan(eqn, values, record)
    if name == "while":
        return _while(eqn, values, record)
    skipped = 1 if name == "cond" else 0  # the index of the branch
    values, operands = values[skipped:], eqn.invars[skipped:]
    bodies = list(core.jaxprs_in_params(eqn.params))
    if not bodies or any(
        len(body.invars) != len(operands) or len(body.outvars) != len(eqn.outvars)
        for body in bodies
    ):
        return [_changed(values, name)] * len(eqn.outvars)
    outcomes = []
    for body in bodies:
        inside = _crossing(values, operands, body.invars, name)
        outputs = walk(body, inside, record)
        outcomes.append(_crossing(outputs, body.outvars, eqn.outvars, name))
    return [functools.reduce(_either, each) for each in zip(*outcomes, strict=True)]


def _transposed(value: Value, permutation: Sequence[int]) -> Value:
    kernels = (
        Kernel(name, tuple(axes[axis] for axis in permutation))
        for name, axes in value.kernels
    )
    return value._replace(kernels=frozenset(kernels))


def _keeps_values(eqn: core.JaxprEqn) -> bool:
    if eqn.primitive.name == "convert_element_type":
        return jnp.issubdtype(eqn.params["new_dtype"], jnp.floating)
    if eqn.primitive.name == "reshape" and eqn.params["dimensions"] is not None:
        return False
    return all(map(_same_shape, eqn.invars, eqn.outvars))


def _loop(
    body: core.Jaxpr,
    consts: Sequence[Value],
    carry: list[Value],
    xs: Sequence[Value],
    record: Record,
) -> list[Value]:
    """Returns the outputs of a loop's body, the carry after any number of steps."""
    n_carry = len(carry)
    while True:
        # Record only after all possible origins of the carry are known.
        outputs = walk(body, [*consts, *carry, *xs], lambda *_: None)
        grown = list(map(_either, carry, outputs[:n_carry]))
        if grown == carry:
            walk(body, [*consts, *carry, *xs], record)
            return [*carry, *outputs[n_carry:]]
        carry = grown


def _scan(eqn: core.JaxprEqn, values: list[Value], record: Record) -> list[Value]:
    [body] = core.jaxprs_in_params(eqn.params)
    # The parameters that count the operands differ between versions of jax.
    n_xs = len(values) - sum(map(_same_shape, eqn.invars, body.invars))
    n_carry = sum(map(_same_shape, eqn.outvars, body.outvars))
    i, j = len(values) - n_xs - n_carry, len(values) - n_xs
    values = _crossing(values, eqn.invars, body.invars, "scan")
    outputs = _loop(body, values[:i], values[i:j], values[j:], record)
    return _crossing(outputs, body.outvars, eqn.outvars, "scan")


def _while(eqn: core.JaxprEqn, values: list[Value], record: Record) -> list[Value]:
    i = eqn.params["cond_nconsts"]
    j = i + eqn.params["body_nconsts"]
    body, condition = eqn.params["body_jaxpr"].jaxpr, eqn.params["cond_jaxpr"].jaxpr
    carry = _loop(body, values[i:j], values[j:], [], record)
    walk(condition, [*values[:i], *carry], record)
    return carry
