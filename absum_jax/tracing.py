"""Where a network convolves with its parameters, found in its jaxpr."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax
import numpy as np
from jax.extend import core

from absum_jax._jaxprs import Kernel, Value, walk
from absum_jax.kernels import is_conv_kernel, leaf_name

_HOW_CHANGED = {
    "div": "changed by `div`, as by weight normalization",
    "mul": "changed by `mul`, as by weight normalization",
    "reshape": (
        "changed by `reshape`, as by `vmap` over parameters or spectral normalization"
    ),
    "scan": "stacked and sliced by `scan`",
}
_BY_HAND = "specify the uses of such a kernel, a tuple of `ConvUse`, by hand"


@dataclasses.dataclass(frozen=True)
class ConvUse:
    """The geometry of one convolution with a kernel.

    Spatial axes have the order of the convolution's input.

    Attributes:
      input_shape: spatial size of the input, before the convolution's own padding.
      output_shape: spatial size of the output.
      strides: one for each spatial axis.
      padding: (low, high) for each spatial axis.
      kernel_dilation: one for each spatial axis; 1 is a dense kernel.
      groups: groups of channels, the convolution's `feature_group_count`.
      kernel_axes: the permutation that takes the leaf to (spatial..., in / groups,
        out): (0, 1, 2, 3) for an HWIO leaf, (2, 3, 1, 0) for OIHW.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    kernel_dilation: tuple[int, ...]
    groups: int
    kernel_axes: tuple[int, ...]


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.dtype.kind not in "MOSTUm"
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


def _is_variable(node: Any) -> bool:
    """Returns whether this is a flax nnx Variable, which several modules may share."""
    return hasattr(type(node), "get_raw_value")


def _leaves(params: Any) -> tuple[list[Value], dict[str, bool]]:
    """Returns the arrays of a tree as values, and `is_conv_kernel` of each name."""
    values: list[Value] = []
    names: dict[Any, str] = {}
    marks: dict[str, bool] = {}
    nodes = jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_variable)
    for prefix, node in nodes:
        for suffix, leaf in jax.tree_util.tree_leaves_with_path(node):
            if not _is_array(leaf):
                continue
            path = (*prefix, *suffix)
            # A shared Variable has only its first name, as in nnx.state.
            identity = (id(node), suffix) if _is_variable(node) else path
            if identity not in names:
                names[identity] = name = leaf_name(path)
                if name in marks:
                    raise ValueError(f"`params` must not hold `{name}` twice.")
                marks[name] = is_conv_kernel(path, leaf.ndim)
            kernel = Kernel(names[identity], tuple(range(leaf.ndim)))
            values.append(Value(frozenset([kernel])))
    return values, marks


def _trace(fn: Callable[..., Any], params: Any, x: Any) -> core.Jaxpr:
    """Traces `fn` to a jaxpr of the arrays of params, followed by those of x."""
    leaves, structure = jax.tree.flatten((params, x))

    def traced(arrays: list[Any]) -> None:
        rest = iter(arrays)
        whole = [next(rest) if _is_array(leaf) else leaf for leaf in leaves]
        fn(*jax.tree.unflatten(structure, whole))

    return jax.make_jaxpr(traced)([leaf for leaf in leaves if _is_array(leaf)]).jaxpr


def _conv_use(eqn: core.JaxprEqn, axes: Sequence[int]) -> ConvUse:
    """Returns the geometry of a convolution with a kernel of these axes of a leaf."""
    lhs, rhs, out = eqn.params["dimension_numbers"]
    order = sorted(range(len(lhs) - 2), key=lambda i: lhs[2 + i])

    def ordered(of_axes: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(of_axes[i] for i in order)

    def size(atom: Any, spec: Sequence[int]) -> tuple[int, ...]:
        return tuple(atom.aval.shape[axis] for axis in ordered(spec[2:]))

    return ConvUse(
        input_shape=size(eqn.invars[0], lhs),
        output_shape=size(eqn.outvars[0], out),
        strides=tuple(map(int, ordered(eqn.params["window_strides"]))),
        padding=tuple((int(l), int(h)) for l, h in ordered(eqn.params["padding"])),
        kernel_dilation=tuple(map(int, ordered(eqn.params["rhs_dilation"]))),
        groups=int(eqn.params["feature_group_count"]),
        kernel_axes=tuple(axes[i] for i in (*ordered(rhs[2:]), rhs[1], rhs[0])),
    )


def _check(eqn: core.JaxprEqn, value: Value, marks: Mapping[str, bool]) -> None:
    """Refuses a kernel, or a convolution with it, that `ConvUse` cannot describe."""
    # A kernel computed from x is not a parameter.
    if value.changed and not value.from_x:
        names = [name for name in value.changed if marks[name]] or value.changed
        how = (
            f"`{name}` is {_HOW_CHANGED.get(by, f'changed by `{by}`')}"
            for name, by in value.changed.items()
            if name in names
        )
        raise ValueError(
            "`fn` must convolve with the leaves of `params` as they are, but "
            f"{', '.join(how)}; {_BY_HAND}."
        )
    transposed = any(dilation != 1 for dilation in eqn.params["lhs_dilation"])
    for kernel in value.kernels:
        if transposed or eqn.params["batch_group_count"] != 1:
            kind = "a transposed one" if transposed else "one with batch_group_count"
            raise ValueError(
                f"`fn` must use `{kernel.name}` in plain convolutions, got {kind}; "
                f"{_BY_HAND}."
            )


def conv_input_shapes(
    fn: Callable[[Any, Any], Any], params: chex.ArrayTree, x: chex.ArrayTree
) -> dict[str, tuple[ConvUse, ...]]:
    """Finds the sizes at which each convolution kernel is used, by tracing.

    Nothing is computed: `fn` is traced on shapes and dtypes. The trace is followed
    through jit, remat, scan, while, cond, custom derivatives and shard_map (where sizes
    are those on one device). Kernels may be cast, transposed and flipped before they
    are used, but not changed otherwise.

    For a layer that pads before it convolves, such as `nnx.Conv(padding="CIRCULAR")`,
    the input size is the padded size. Kernels that are constants or computed from `x`
    are ignored.

    Args:
      fn: `fn(params, x)`, jax-traceable: the forward pass. Its result is ignored.
      params: a tree of arrays or `jax.ShapeDtypeStruct`, such as a flax nnx module in
        evaluation mode; other leaves are passed to `fn` unchanged.
      x: the input with a batch axis, likewise.

    Returns:
      For each leaf that is used in convolutions, its distinct uses in order of
      appearance, by the names along its tree path joined by slashes.

    Raises:
      ValueError: if `fn` is not callable, or convolves with no leaf; if leaves have the
        same name; if a leaf is changed before use (weight normalization, `vmap` over
        parameters, layers stacked for `scan`) or used in a transposed convolution; if
        a leaf that :func:`conv_kernels` marks is not used in a convolution.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from absum_jax.tracing import conv_input_shapes
      >>> def fn(params, x):
      ...     return jax.lax.conv(x, params["conv"]["kernel"], (2, 2), "SAME")
      >>> params = {"conv": {"kernel": jnp.ones((8, 1, 3, 3))}}
      >>> x = jax.ShapeDtypeStruct((1, 1, 28, 28), jnp.float32)
      >>> [use] = conv_input_shapes(fn, params, x)["conv/kernel"]
      >>> use.input_shape, use.output_shape, use.padding, use.kernel_axes
      ((28, 28), (14, 14), ((0, 1), (0, 1)), (2, 3, 1, 0))
    """
    if not callable(fn):
        raise ValueError(
            f"`fn` must be a callable of params and x, got {type(fn).__name__}."
        )
    leaves, marks = _leaves(params)
    uses: dict[str, dict[ConvUse, None]] = {name: {} for name in marks}

    def record(eqn: core.JaxprEqn, value: Value) -> None:
        _check(eqn, value, marks)
        for kernel in sorted(value.kernels):
            uses[kernel.name][_conv_use(eqn, kernel.axes)] = None

    jaxpr = _trace(fn, params, x)
    data = [Value(from_x=True)] * (len(jaxpr.invars) - len(leaves))
    walk(jaxpr, [*leaves, *data], record)
    unused = [f"`{name}`" for name in marks if marks[name] and not uses[name]]
    if unused:
        raise ValueError(
            "`fn` must convolve with every convolution kernel of `params`, but no "
            f"convolution uses {', '.join(unused)}. Likely reasons: a product of "
            "patches in place of a convolution, a kernel computed from `x`, a branch "
            "not taken, a layer that is not a convolution, or a `fn` that closes over "
            f"its parameters. Leave such a leaf out of `params`, or {_BY_HAND}."
        )
    if not any(uses.values()):
        raise ValueError("`fn` must convolve with a leaf of `params`, found none.")
    return {name: tuple(found) for name, found in uses.items() if found}
