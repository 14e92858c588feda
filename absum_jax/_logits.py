"""How a `logits_fn` passes through `jax.jit`.

A callable that is a pytree (`jax.tree_util.Partial`, a flax nnx or equinox module) is
passed as data: its arrays are arguments of the compiled program, so that new values do
not trigger recompilation. Its other contents become constants of the program if they
are functions, types, objects that are hashed and compared by value, members of an
`Enum`, or objects without attributes. So does what the user passes beside it, such as a
loss. What these functions read from elsewhere is not tracked, as users are told.
Anything else could change unnoticed, like the variables that a plain function closes
over. Such callables are compiled at each call, so that results are never stale.
"""

import dataclasses
import enum
import functools
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import jax
import numpy as np

from absum_jax._sharding import with_automatic_axes
from absum_jax.convolutions import canonical_convolutions

LogitsFn = Callable[[Any], Any]

# Attributes of flax and equinox modules, with the value that means training.
_TRAINING_FLAGS = {
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}


def compiled_with(
    *, static_argnames: tuple[str, ...] = (), like: int | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that compiles `function(logits_fn, *args, **static)`.

    Args:
      static_argnames: its keyword arguments that are compile-time constants.
      like: the index in `args` of an array with the sharding of the first of two
        results, of which the second is replicated; None replicates all results.

    Returns:
      A decorator of a jax-traceable function whose first argument is a `logits_fn`, or
      a tuple of them. The compiled function is called in the same way; its attribute
      `eval_shape` only computes the shape of the result, and `bind` returns a function
      of the other arguments, for several calls with a model that does not change.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def laid_out(whole: Callable[..., Any], arrays: list[Any], *args: Any) -> Any:
            layout = None if like is None else (args[like], None)
            fast = canonical_convolutions(whole)
            return with_automatic_axes(fast, arrays, *args, like=layout)

        def rebuilt(
            arrays: list[Any], *args: Any, tree: Any, rest: Hashable, **static: Any
        ) -> Any:
            structure, _ = tree

            def whole(arrays: list[Any], *args: Any) -> Any:
                constants = (leaf for *_, leaf in rest)  # type: ignore[attr-defined]
                leaves = [next(constants) if leaf is None else leaf for leaf in arrays]
                return function(jax.tree.unflatten(structure, leaves), *args, **static)

            return laid_out(whole, arrays, *args)

        static_names = ("tree", "rest", *static_argnames)
        as_data = jax.jit(rebuilt, static_argnames=static_names)

        def prepared(
            logits_fn: Any, args: tuple[Any, ...], static: dict[str, Any]
        ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
            """Returns a compiled function with its arguments."""
            leaves, structure = jax.tree.flatten(logits_fn)
            is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
            pairs = list(zip(leaves, is_array, strict=True))
            others = [leaf for leaf, yes in pairs if not yes]
            several = isinstance(logits_fn, tuple) and not callable(logits_fn)
            functions = logits_fn if several else (logits_fn,)
            static_data = tuple(_static(structure))
            if any(map(_is_leaf, functions)) or not _is_constant(
                (others, static_data, static)
            ):

                def fresh(*args: Any, **static: Any) -> Any:
                    def whole(_: list[Any], *args: Any) -> Any:
                        return function(logits_fn, *args, **static)

                    return laid_out(whole, [], *args)

                return (
                    jax.jit(fresh, static_argnames=static_argnames),
                    args,
                    static,
                )
            arrays = [leaf if yes else None for leaf, yes in pairs]
            rest = tuple((type(leaf), _numbers(leaf), leaf) for leaf in others)
            tree = structure, _numbers(static_data)
            static = static | {"tree": tree, "rest": rest}
            return as_data, (arrays, *args), static

        @functools.wraps(function)
        def call(logits_fn: Any, *args: Any, **static: Any) -> Any:
            compiled, args, static = prepared(logits_fn, args, static)
            return compiled(*args, **static)

        def eval_shape(logits_fn: Any, *args: Any, **static: Any) -> Any:
            compiled, args, static = prepared(logits_fn, args, static)
            return compiled.eval_shape(*args, **static)

        def bind(logits_fn: Any) -> Callable[..., Any]:
            compiled, args, static = prepared(logits_fn, (), {})
            return functools.partial(compiled, *args, **static)

        call.eval_shape = eval_shape  # type: ignore[attr-defined]
        call.bind = bind  # type: ignore[attr-defined]
        return call

    return decorate


def _is_leaf(function: Any) -> bool:
    """Returns whether a function is not a pytree, so that its contents are hidden."""
    structure = jax.tree.structure(function)
    return function is not None and jax.tree_util.treedef_is_leaf(structure)


def _static(structure: Any) -> Iterator[Any]:
    """Yields the static data of the nodes of a tree."""
    if (node := structure.node_data()) is not None:
        yield node[1]
        for child in structure.children():
            yield from _static(child)


def _numbers(value: Any) -> Hashable:
    """Returns what tells numbers apart that are equal: 1, 1.0 and True, 0.0 and -0.0.

    Numbers inside containers are those of the returned tuples.
    """
    if (contents := _contents(value)) is not None:
        return tuple(map(_numbers, contents))
    is_number = isinstance(value, int | float | complex | np.generic)
    return (type(value), repr(value)) if is_number else None


def _contents(value: Any) -> Iterable[Any] | None:
    """Returns what a container consists of, None for anything else."""
    if isinstance(value, tuple | list):
        return value
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return [getattr(value, field.name) for field in fields if field.compare]
    return None


def _is_value(value: Any) -> bool:
    """Returns whether an object is hashed and compared by its value."""
    if object.__eq__ is type(value).__eq__ or object.__hash__ is type(value).__hash__:
        return False
    try:
        hash(value)
    except (TypeError, ValueError):  # as a part has no hash
        return False
    return True


def _is_constant(value: Any) -> bool:
    """Returns whether a value cannot change unnoticed, and so may be a constant."""
    if isinstance(value, jax.Array):
        return False  # it cannot be part of the key of a compiled program
    is_data = dataclasses.is_dataclass(value) and not isinstance(value, type)
    if is_data and not _is_value(value):
        return False
    if (contents := _contents(value)) is not None:
        return all(map(_is_constant, contents))
    if hasattr(value, "__self__") and not isinstance(value.__self__, ModuleType):
        return _is_constant(value.__self__)
    if isinstance(value, FunctionType | ModuleType | type | enum.Enum | None):
        return True
    if _is_value(value):
        return True
    # Functions wrapped by jax or functools; and markers without attributes.
    return hasattr(value, "__wrapped__") or getattr(value, "__dict__", None) == {}


def _modules(root: Any, argument: str) -> list[tuple[str, Any]]:
    """Finds the objects with attributes inside a callable, with the path to each."""
    found, stack, seen = [], [(argument, root)], set()
    while stack:
        name, value = stack.pop()
        if id(value) in seen or isinstance(value, jax.Array | np.ndarray | type):
            continue
        seen.add(id(value))
        if isinstance(value, functools.partial):
            # Keywords such as `train=False` may override the flags of a module.
            function = [] if value.keywords else [("func", value.func)]
            children = [*function, *enumerate(value.args), *value.keywords.items()]
        elif isinstance(value, dict):
            children = list(value.items())
        elif isinstance(value, list | tuple):
            children = list(enumerate(value))
        elif hasattr(value, "__self__"):
            children = [("__self__", value.__self__)]
        elif hasattr(value, "__dict__") and not isinstance(value, ModuleType):
            children = list(vars(value).items())
            found.append((name, value))
        else:
            continue
        stack.extend((f"{name}.{key}", child) for key, child in children)
    return found


def check_logits_fn(logits_fn: Any, argument: str = "logits_fn") -> None:
    """Refuses objects that are not callable, and modules in training mode."""
    if not callable(logits_fn):
        raise ValueError(
            f"`{argument}` must be a callable from images to logits, "
            f"got {type(logits_fn).__name__}."
        )
    for name, module in _modules(logits_fn, argument):
        for flag, training in _TRAINING_FLAGS.items():
            if vars(module).get(flag) is training:
                raise ValueError(
                    f"`{argument}` must be in evaluation mode, but {name} "
                    f"({type(module).__name__}) has {flag}={training}; call `.eval()` "
                    "on a flax nnx module, `eqx.nn.inference_mode` on an equinox one."
                )


@compiled_with()
def _logits(logits_fn: LogitsFn, images: Any) -> Any:
    return logits_fn(images)


def check_logits(
    logits_fn: LogitsFn, x: Any, batch: int, argument: str = "logits_fn"
) -> int:
    """Returns the number of classes; refuses all but real logits (batch, classes)."""
    images = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    try:
        logits = _logits.eval_shape(logits_fn, images)  # type: ignore[attr-defined]
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        # Each library raises its own error, and jax raises several.
        if not re.search(r"Tracer|jax\.errors", f"{type(error)} {error}"):
            raise
        raise ValueError(
            f"`{argument}` must be traceable by jax, but fails on a traced array, as a "
            f"PyTorch or NumPy model does: {str(error).splitlines()[0]} Wrap such a "
            "model in `jax.pure_callback`, which has no gradient."
        ) from error
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != batch or not shape[1]:
        raise ValueError(
            f"`{argument}` must return logits of shape ({batch}, classes) for images "
            f"of shape {images.shape}, got {logits}."
        )
    if not jax.numpy.issubdtype(logits.dtype, jax.numpy.floating):
        raise ValueError(
            f"`{argument}` must return real floating-point logits, got {logits.dtype}."
        )
    return shape[1]
