"""Convolutions in the layout that XLA's CPU backend runs fast inside loops."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.sharding import NamedSharding, PartitionSpec

from absum_jax import _convolution_forms as forms

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Those that have fast kernels. In float64 the canonical layout is three times slower.
_DTYPES = (jnp.float32, jnp.float16, jnp.bfloat16)


def canonical_convolutions(fn: Callable[_P, _T]) -> Callable[_P, _T]:
    """Rewrites a function so that its convolutions are fast inside loops on a CPU.

    XLA's CPU backend has fast kernels only for images NHWC, kernels HWIO and results
    NHWC. It brings other convolutions into that layout in the main body of a program,
    but not in the body of a `scan`, `map` or `while`: there the gradients of every
    convolution, and all convolutions of an NCHW network, fall back to a naive loop, ten
    to two hundred times slower. The rewritten function transposes them itself::

        step = absum_jax.canonical_convolutions(step)  # with its gradients inside
        state, losses = jax.jit(lambda s, xs: jax.lax.scan(step, s, xs))(state, batches)

    The attacks and evaluations of this library do this for any `logits_fn`. Use it for
    loops of your own: training steps in a `scan`, attacks in a `fori_loop`. A loop then
    computes what the function gives outside of one, up to rounding. What is compiled
    for a GPU or TPU stays as it is.

    Gradients of strided convolutions take other forms, too, which multiply by fewer
    zeros, and XLA cannot fuse a transposition with the computation of its operand,
    which would repeat that in an order that caches do not like.

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
      A function of the same arguments with the same results. Call it inside `jax.jit`:
      outside, its loops are compiled anew at each call. Under `jax.disable_jit` it is
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
    """Makes a function refuse changes of its arguments that it does not return.

    It is traced on copies of its arguments, so such changes would be lost.
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
    """Rewrites a jaxpr, or all of those in a parameter of an equation.

    Args:
      value: the jaxpr, a tuple of several, or another parameter.
      known: the jaxprs rewritten so far, by the identity of the original.

    Returns:
      The value itself if there is nothing to rewrite, as programs are cached by it.
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
        # A named tuple takes its parts one by one.
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
    """Traces a `shard_map` anew, as only within it types tell what varies over it."""
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
    """Returns an equation that convolves in the canonical layout on a CPU."""
    images, kernel = (atom.aval for atom in eqn.invars)
    if images.dtype not in _DTYPES:  # type: ignore[attr-defined]
        return eqn
    params = frozenset(eqn.params.items())
    call = _call(eqn.primitive, params, eqn.ctx, images, kernel)
    if call is None or call.outvars[0].aval != eqn.outvars[0].aval:
        return eqn
    return eqn.replace(primitive=call.primitive, params=call.params)


# Layers of one shape share a program.
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
      kernel: that of the second.

    Returns:
      The equation; None if the convolution has the canonical layout, or a sharding
      that cannot be permuted.
    """
    asked = dict(params)
    layout = asked["dimension_numbers"]
    last = images.ndim - 1
    image_axes = (0, last, *range(1, last))  # NHWC
    kernel_axes = (last, last - 1, *range(last - 1))  # HWIO
    canonical = jax.lax.ConvDimensionNumbers(image_axes, kernel_axes, image_axes)
    if layout == canonical:
        return None
    out_axes = _permutation(layout.out_spec, canonical.out_spec)
    sharding = asked["out_sharding"]
    if sharding is not None:
        spec = sharding.spec
        if spec.unreduced or spec.reduced:
            return None
        every = (*spec, *[None] * (images.ndim - len(spec)))
        spec = PartitionSpec(*(every[axis] for axis in out_axes))
        sharding = NamedSharding(sharding.mesh, spec)

    def transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x, now = forms.sliced(x, kernel, asked)
        now |= {"dimension_numbers": canonical, "out_sharding": sharding}
        image_axes = _permutation(layout.lhs_spec, canonical.lhs_spec)
        kernel_axes = _permutation(layout.rhs_spec, canonical.rhs_spec)
        if layout.lhs_spec == canonical.lhs_spec:
            kernel = forms.transposed(kernel, kernel_axes)
        else:
            # The gradient of a kernel exchanges images and channels; the transposition
            # from NCHW is better fused.
            keeps_images = layout.lhs_spec[0] == canonical.lhs_spec[0]
            move = jnp.transpose if keeps_images else forms.transposed
            x, kernel = move(x, image_axes), kernel.transpose(kernel_axes)
        out = forms.convolved(primitive, x, kernel, now)
        return out.transpose(_permutation(canonical.out_spec, layout.out_spec))

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return primitive.bind(x, kernel, **asked)

    @jax.jit
    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(x, kernel, cpu=transposed, default=plain)

    with context.manager:
        [call] = jax.make_jaxpr(convolution)(images, kernel).eqns
    return call


def _permutation(layout: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Returns the axes to transpose by, from one layout to another."""
    return [layout[wanted.index(axis)] for axis in range(len(layout))]
