"""Convolutions in the layout and form that XLA's CPU backend runs fast in loops."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.sharding import NamedSharding, PartitionSpec

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Only these have fast kernels; in float64 the canonical layout is three times slower.
_DTYPES = (jnp.float32, jnp.float16, jnp.bfloat16)


def canonical_convolutions(fn: Callable[_P, _T]) -> Callable[_P, _T]:
    """Rewrites a function so that its convolutions are fast inside loops on a CPU.

    XLA's CPU backend has fast kernels only for images NHWC, kernels HWIO and results
    NHWC. It converts other convolutions to that layout in the main body of a program,
    but not in the body of a `scan`, `map` or `while`: there the gradients of every
    convolution, and all convolutions of an NCHW network, fall back to a naive loop, ten
    to two hundred times slower. The rewritten function contains the transpositions::

        step = absum_jax.canonical_convolutions(step)  # with its gradients inside
        state, losses = jax.jit(lambda s, xs: jax.lax.scan(step, s, xs))(state, batches)

    The attacks and evaluations of this library rewrite any `logits_fn`. Use it for your
    own loops: training steps in a `scan`, attacks in a `fori_loop`. Results are equal
    up to rounding, and programs for a GPU or TPU do not change.

    The gradients of strided convolutions also get a form that multiplies by fewer
    zeros. Transpositions are not fused with the computation of their operand, which
    would repeat it in an order that is bad for caches.

    Wrap the whole function, gradients included. Differentiating the rewritten function
    is correct, but the reverse pass consists of new convolutions in other layouts:
    `canonical_convolutions(jax.grad(loss))`, not `jax.grad(canonical_convolutions(
    loss))`.

    Args:
      fn: a pure function of pytrees of arrays, which jax can trace. It may contain jit,
        loops, conditions, custom derivatives, `jax.checkpoint` and `jax.shard_map`.
        Bind static arguments with `functools.partial`. Pass the state of a flax nnx
        module, merge it inside, and return its new state.

    Returns:
      A function of the same arguments with the same results. Call it inside `jax.jit`;
      outside, its loops are compiled again at each call. Under `jax.disable_jit` it is
      `fn`.

    Raises:
      ValueError: when called, if `fn` changes an argument in place, such as an nnx
        module, and does not return what changed.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> def loss(kernel, x):  # NCHW, OIHW
      ...     return jnp.sum(jax.lax.conv(x, kernel, (1, 1), "SAME") ** 2)
      >>> gradient = absum_jax.canonical_convolutions(jax.grad(loss))
      >>> jax.jit(gradient)(jnp.full((1, 1, 1, 1), 2.0), jnp.ones((1, 1, 2, 2)))
      Array([[[[16.]]]], dtype=float32)
    """
    if not callable(fn):
        raise ValueError(f"`fn` must be a callable, got {type(fn).__name__}.")

    @functools.wraps(fn)
    def canonical(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return fn(*args, **kwargs)
        traced, shapes = jax.make_jaxpr(_pure(fn), return_shape=True)(*args, **kwargs)
        rewritten = _rewritten(traced, {})
        outputs = core.jaxpr_as_fun(rewritten)(*jax.tree.leaves((args, kwargs)))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return canonical


def _pure(fn: Callable[_P, _T]) -> Callable[_P, _T]:
    """Wraps a function to refuse changes of its arguments that it does not return.

    The function is traced on copies of its arguments, so such changes would be lost.
    """

    def pure(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        before = jax.tree.leaves((args, kwargs))
        result = fn(*args, **kwargs)
        after = jax.tree.leaves((args, kwargs))
        kept = {id(leaf) for leaf in (*before, *jax.tree.leaves(result))}
        if len(after) < len(before) or not all(id(leaf) in kept for leaf in after):
            raise ValueError(
                f"`fn` must return what it changes, but {getattr(fn, '__name__', fn)} "
                "changes its arguments in place; split a flax nnx module before the "
                "call, merge it inside, and return its new state."
            )
        return result

    return pure


def _rewritten(value: Any, known: dict[int, Any]) -> Any:
    """Rewrites a jaxpr, or all jaxprs in a parameter of an equation.

    Args:
      value: the jaxpr, a tuple of jaxprs, or another parameter.
      known: the jaxprs rewritten so far, by the identity of the original.

    Returns:
      The rewritten value, or `value` itself if there is nothing to rewrite, because jax
      caches programs by identity.
    """
    if isinstance(value, core.Jaxpr):
        if id(value) not in known:
            eqns = [_rewritten_equation(eqn, known) for eqn in value.eqns]
            is_same = all(map(operator.is_, eqns, value.eqns))
            known[id(value)] = value if is_same else value.replace(eqns=eqns)
        return known[id(value)]
    if isinstance(value, core.ClosedJaxpr):  # since jax 0.12 a Jaxpr
        body = _rewritten(value.jaxpr, known)
        return value if body is value.jaxpr else value.replace(jaxpr=body)
    if isinstance(value, tuple | list):
        parts = [_rewritten(part, known) for part in value]
        if all(map(operator.is_, parts, value)):
            return value
        # The constructor of a named tuple takes separate arguments.
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _rewritten_equation(eqn: core.JaxprEqn, known: dict[int, Any]) -> core.JaxprEqn:
    if eqn.primitive.name == "conv_general_dilated":
        return _canonical(eqn)
    if eqn.primitive.name == "shard_map" and _has_convolution(eqn.params["jaxpr"]):
        return _canonical_shard_map(eqn)
    params = {name: _rewritten(value, known) for name, value in eqn.params.items()}
    if all(params[name] is value for name, value in eqn.params.items()):
        return eqn
    return eqn.replace(params=params)


def _has_convolution(jaxpr: core.Jaxpr) -> bool:
    return any(
        eqn.primitive.name == "conv_general_dilated"
        or any(map(_has_convolution, core.jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _canonical_shard_map(eqn: core.JaxprEqn) -> core.JaxprEqn:
    """Retraces a `shard_map`, since types state only within it what varies over it."""
    params = eqn.params
    body = core.jaxpr_as_fun(core.ClosedJaxpr(params["jaxpr"], ()))
    mapped = jax.shard_map(
        canonical_convolutions(lambda *args: tuple(body(*args))),
        mesh=params["mesh"],
        in_specs=params["in_specs"],
        out_specs=params["out_specs"],
        axis_names=params["newly_manual_axes"],
        check_vma=params["check_vma"],
    )
    with eqn.ctx.manager:
        [new] = jax.make_jaxpr(mapped)(*(atom.aval for atom in eqn.invars)).eqns
    return eqn.replace(primitive=new.primitive, params=new.params)


def _canonical(eqn: core.JaxprEqn) -> core.JaxprEqn:
    """Rewrites an equation to convolve in the canonical layout on a CPU."""
    images, kernel = (atom.aval for atom in eqn.invars)
    if images.dtype not in _DTYPES:  # type: ignore[attr-defined]
        return eqn
    params = frozenset(eqn.params.items())
    call = _call(eqn.primitive, params, eqn.ctx, images, kernel)
    if call is None or call.outvars[0].aval != eqn.outvars[0].aval:
        return eqn
    return eqn.replace(primitive=call.primitive, params=call.params)


# Layers of the same shape share a program.
@functools.lru_cache(maxsize=1024)
def _call(
    primitive: core.Primitive,
    params: frozenset[tuple[str, Any]],
    context: Any,
    images: Any,
    kernel: Any,
) -> core.JaxprEqn | None:
    """Traces a convolution in the canonical layout, as one call of a jitted function.

    Args:
      primitive: the convolution.
      params: its parameters.
      context: of the equation.
      images: the abstract value of its first operand.
      kernel: the abstract value of its second operand.

    Returns:
      The equation; None if the convolution has the canonical layout already, or a
      sharding that cannot be permuted.
    """
    given = dict(params)
    layout = given["dimension_numbers"]
    last = images.ndim - 1
    image_axes = (0, last, *range(1, last))  # NHWC
    kernel_axes = (last, last - 1, *range(last - 1))  # HWIO
    canonical = jax.lax.ConvDimensionNumbers(image_axes, kernel_axes, image_axes)
    if layout == canonical:
        return None
    out_axes = _permutation(layout.out_spec, canonical.out_spec)
    sharding = given["out_sharding"]
    if sharding is not None:
        spec = sharding.spec
        if spec.unreduced or spec.reduced:
            return None
        every = (*spec, *[None] * (images.ndim - len(spec)))
        spec = PartitionSpec(*(every[axis] for axis in out_axes))
        sharding = NamedSharding(sharding.mesh, spec)

    def transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x, now = _sliced(x, kernel, given)
        now |= {"dimension_numbers": canonical, "out_sharding": sharding}
        image_axes = _permutation(layout.lhs_spec, canonical.lhs_spec)
        kernel_axes = _permutation(layout.rhs_spec, canonical.rhs_spec)
        if layout.lhs_spec == canonical.lhs_spec:
            kernel = _unfused_transpose(kernel, kernel_axes)
        else:
            # The gradient of a kernel swaps images and channels, whereas transpositions
            # from NCHW are faster if fused.
            keeps_images = layout.lhs_spec[0] == canonical.lhs_spec[0]
            move = jnp.transpose if keeps_images else _unfused_transpose
            x, kernel = move(x, image_axes), kernel.transpose(kernel_axes)
        out = _convolved(primitive, x, kernel, now)
        return out.transpose(_permutation(canonical.out_spec, layout.out_spec))

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return primitive.bind(x, kernel, **given)

    @jax.jit
    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(x, kernel, cpu=transposed, default=plain)

    with context.manager:
        [call] = jax.make_jaxpr(convolution)(images, kernel).eqns
    return call


def _permutation(layout: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Returns the axes to transpose by, from one layout to another."""
    return [layout[wanted.index(axis)] for axis in range(len(layout))]


def _unfused_transpose(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Transposes an array without letting XLA fuse the computation of the array.

    XLA fuses a transposition with all that its operand depends on, such as several
    normalizations and residuals, and then computes them element by element in an order
    that is bad for caches. It fuses nothing into a condition. Both branches are equal.
    """
    if list(axes) == list(range(x.ndim)):
        return x
    return jax.lax.cond(
        # XLA finds this to be constant only after it has simplified conditions.
        jax.lax.optimization_barrier(jnp.bool_(True)),
        lambda x: x.transpose(axes),
        lambda x: -(-x).transpose(axes),
        x,
    )


def _sliced(
    x: jax.Array, kernel: jax.Array, params: dict[str, Any]
) -> tuple[jax.Array, dict[str, Any]]:
    """Drops the rows of images that a dilated kernel skips.

    The gradient of a strided 1x1 kernel is such a convolution: dilated, with a single
    position, so that most of the image is skipped.

    Args:
      x: images, in any layout.
      kernel: the kernel, in any layout.
      params: the parameters of the convolution.

    Returns:
      The images and the parameters of a convolution with the same result.
    """
    layout = params["dimension_numbers"]
    padding, dilation = list(params["padding"]), list(params["rhs_dilation"])
    spatial = zip(layout.lhs_spec[2:], layout.rhs_spec[2:], strict=True)
    for i, (image_axis, kernel_axis) in enumerate(spatial):
        low, high = padding[i]
        size = x.shape[image_axis]
        reach = (kernel.shape[kernel_axis] - 1) * dilation[i] + 1
        is_plain = params["lhs_dilation"][i] == 1 and max(low, high) <= 0
        if dilation[i] > 1 and is_plain and reach == size + low + high:
            x = jax.lax.slice_in_dim(x, -low, size + high, dilation[i], image_axis)
            padding[i], dilation[i] = (0, 0), 1
    return x, params | {"padding": tuple(padding), "rhs_dilation": tuple(dilation)}


def _convolved(
    primitive: core.Primitive, x: jax.Array, kernel: jax.Array, params: dict[str, Any]
) -> jax.Array:
    """Convolves in the canonical layout; gradients of strided convolutions in phases.

    Every other row of such a gradient depends only on every other row of the kernel: it
    interleaves the convolutions of the image with parts of the kernel. XLA would
    multiply by the whole kernel and allocate memory for the products.

    Args:
      primitive: the convolution.
      x: images NHWC, with any number of spatial axes.
      kernel: the kernel HWIO, likewise.
      params: the parameters of the convolution.
    """
    dilation = params["lhs_dilation"]
    is_plain = (
        params["feature_group_count"] == params["batch_group_count"] == 1
        and params["out_sharding"] is None
        and all(one == 1 for one in params["window_strides"] + params["rhs_dilation"])
    )
    if not is_plain or all(factor == 1 for factor in dilation):
        return primitive.bind(x, kernel, **params)
    sizes = [
        (size - 1) * factor + 1 + sum(margins) - window + 1
        for size, factor, margins, window in zip(
            x.shape[1:-1], dilation, params["padding"], kernel.shape[:-2], strict=True
        )
    ]
    is_covered = all(map(operator.ge, kernel.shape, dilation))  # no phase is empty
    if min(sizes) < 1 or not is_covered:
        return primitive.bind(x, kernel, **params)
    undilated = params | {"lhs_dilation": (1,) * len(dilation)}

    def phases(axis: int, kernel: jax.Array, padding: tuple[Any, ...]) -> jax.Array:
        """Convolves in phases along an axis and those after it."""
        if axis == len(dilation):
            return primitive.bind(x, kernel, **undilated | {"padding": padding})
        factor, low = dilation[axis], params["padding"][axis][0]
        rows = -(-sizes[axis] // factor)
        parts = []
        for phase in range(factor):
            first = (low - phase) % factor
            part = kernel[(slice(None),) * axis + (slice(first, None, factor),)]
            before = (low - phase - first) // factor
            after = rows + part.shape[axis] - 1 - before - x.shape[1 + axis]
            parts.append(phases(axis + 1, part, (*padding, (before, after))))
        joined = jnp.stack(parts, axis=2 + axis)
        shape = list(parts[0].shape)
        shape[1 + axis] *= factor
        whole = joined.reshape(shape)
        return jax.lax.slice_in_dim(whole, 0, sizes[axis], axis=1 + axis)

    return phases(0, kernel, ())
