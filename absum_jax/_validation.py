"""Checks of arguments, shared by every public function.

Values are looked at only where they are concrete: inside `jax.jit` and its
kin a value is not known, and a check of it is skipped. A concrete value that a
traced function closes over is read outside of the trace.
"""

from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

_RANGE_TOLERANCE = 1e-6


def is_concrete(value: Any) -> bool:
    """Whether the value can be read now, without a trace or another host."""
    if isinstance(value, jax.core.Tracer):
        return False
    return not isinstance(value, jax.Array) or value.is_fully_addressable


def check_nonnegative(name: str, value: Any) -> None:
    """Refuses what is no scalar, and a concrete one that is negative, NaN or not real.

    A callable, such as a schedule, passes.
    """
    if callable(value):
        return
    if getattr(value, "ndim", 0):
        raise ValueError(f"`{name}` must be a scalar, got shape {value.shape}.")
    if not is_concrete(value):
        return
    array = np.asarray(value)
    real = jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(
        array.dtype, jnp.floating
    )
    if array.ndim or not real:
        raise ValueError(f"`{name}` must be a real number, got {value!r}.")
    if not np.all(array >= 0):
        raise ValueError(f"`{name}` must be non-negative, got {value!r}.")


def check_positive(name: str, value: Any) -> None:
    """Refuses what :func:`check_nonnegative` refuses, and a concrete zero."""
    check_nonnegative(name, value)
    if not callable(value) and is_concrete(value) and not np.asarray(value) > 0:
        raise ValueError(f"`{name}` must be positive, got {value!r}.")


def check_positive_int(name: str, value: Any) -> None:
    """Refuses what is not a Python or NumPy integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}.")


def check_positive_ints(name: str, value: Any) -> int:
    """Returns the largest of a tuple of integers of at least one, or such an integer.

    Refuses an empty tuple, and all else.
    """
    if not isinstance(value, tuple):
        check_positive_int(name, value)
        return value
    if not value:
        raise ValueError(f"`{name}` must hold at least one integer, got {value!r}.")
    for each in value:
        check_positive_int(name, each)
    return max(value)


def check_count(name: str, value: Any) -> None:
    """Refuses what is no integer, and a concrete one below one."""
    if isinstance(value, jax.core.Tracer):
        if value.ndim or not jnp.issubdtype(value.dtype, jnp.integer):
            raise ValueError(
                f"`{name}` must be an integer, got {value.dtype}{value.shape}."
            )
        return
    is_scalar = isinstance(value, jax.Array | np.ndarray) and not value.ndim
    check_positive_int(name, value.item() if is_scalar else value)


def check_nonnegative_list(name: str, value: Any) -> chex.Array:
    """Returns a scalar or a list (E,), refusing an empty one and negative values."""
    if callable(value):
        raise ValueError(f"`{name}` must be a real number, got {value!r}.")
    is_list = isinstance(value, list | tuple)
    if not is_list and not getattr(value, "ndim", 0):
        check_nonnegative(name, value)
        return jnp.asarray(value)
    if is_list and any(isinstance(entry, jax.Array) for entry in value):
        value = jnp.asarray(value)
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError:
        raise ValueError(
            f"`{name}` must be a scalar or a list of scalars, got {value!r}."
        ) from None
    if array.ndim != 1 or not array.size:
        raise ValueError(
            f"`{name}` must be a scalar or a list of at least one, "
            f"got shape {array.shape}."
        )
    for entry in np.asarray(array) if is_concrete(array) else ():
        check_nonnegative(name, entry)
    return jnp.asarray(array)


def check_keys(key: Any, images: int | None = None) -> bool:
    """Whether it is one random key, refusing all but that and one for each image.

    Args:
      key: a typed key or an old-style one of uint32, or an array of those.
      images: how many an array must have; None refuses arrays.
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        leading = shape
    elif dtype == jnp.uint32 and shape:
        leading = shape[:-1]
    else:
        leading = None
    if leading == () or (images is not None and leading == (images,)):
        return leading == ()
    seen = type(key).__name__ if dtype is None else f"{dtype} of shape {shape}"
    several = "" if images is None else f", or {images} of them, one for each image"
    raise ValueError(
        f"`key` must be a key, as `jax.random.key(0)` makes{several}, got {seen}."
    )


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuses a value that is none of the choices."""
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}."
        )


def check_real(name: str, array: Any) -> chex.Array:
    """Returns the array, refusing any dtype but a real floating-point one.

    An abstract one, such as those of parameters in `jax.eval_shape`, stays as it is.
    """
    known = isinstance(array, jax.Array | jax.ShapeDtypeStruct)
    array = array if known else jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"`{name}` must have a real floating-point dtype, got {array.dtype}."
        )
    return array


def check_bounds(bounds: Any) -> tuple[Any, Any]:
    """Returns (low, high), refusing anything but two ordered numbers."""
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise ValueError(
            f"`bounds` must be a pair (low, high), got {bounds!r}."
        ) from None
    for bound in (low, high):
        real = isinstance(bound, int | float | np.number | np.ndarray | jax.Array)
        if not real or np.ndim(bound):
            raise ValueError(f"`bounds` must be two real numbers, got {bounds!r}.")
    if is_concrete(low) and is_concrete(high) and not float(low) < float(high):
        raise ValueError(f"`bounds` must satisfy low < high, got {bounds!r}.")
    return low, high


def check_params(params: Any) -> None:
    """Refuses to update without parameters, which optax passes as None."""
    if params is None:
        raise ValueError(
            "`params` must be the parameters that the updates are for, got None: call "
            "`update(updates, state, params)`."
        )


def check_images(
    x: Any,
    bounds: tuple[Any, Any] | None = None,
    *,
    batched: bool = False,
    name: str = "x",
) -> chex.Array:
    """Returns NHWC images, refusing integers and values outside the bounds.

    Args:
      x: images (..., height, width, channels).
      bounds: the range that concrete values must lie in to 1e-6; None skips it.
      batched: whether exactly one leading axis is required.
      name: of the argument.
    """
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"`{name}` must be floating-point images, got dtype {x.dtype}; "
            "divide 8-bit images by 255."
        )
    if x.ndim < 3 or (batched and x.ndim != 4):
        axes = (
            "(batch, height, width, channels)"
            if batched
            else "(..., height, width, channels)"
        )
        raise ValueError(f"`{name}` must have the axes {axes}, got shape {x.shape}.")
    if bounds is not None and x.size and all(map(is_concrete, (x, *bounds))):
        with jax.ensure_compile_time_eval():
            low, high = float(jnp.min(x)), float(jnp.max(x))
        allowed_low = float(bounds[0]) - _RANGE_TOLERANCE
        allowed_high = float(bounds[1]) + _RANGE_TOLERANCE
        if not (low >= allowed_low and high <= allowed_high):
            raise ValueError(
                f"`{name}` must lie within bounds={bounds}, got values from {low:g} to "
                f"{high:g}; normalisation belongs inside the model."
            )
    return x


def check_labels(y: Any, x: chex.Array) -> chex.Array:
    """Returns integer labels, one for each image."""
    y = y if isinstance(y, jax.Array) else jnp.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(f"`y` must be integer class labels, got dtype {y.dtype}.")
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"`y` must hold one label for each of the {x.shape[0]} images in `x`, "
            f"got shape {y.shape}."
        )
    if not y.size:
        raise ValueError("`x` and `y` must hold at least one image.")
    # The type of argmax and arange, which labels are compared with.
    return y.astype(int)


def check_label_range(y: chex.Array, classes: int, model: str = "logits_fn") -> None:
    """Refuses concrete labels that are no index into `classes` logits."""
    if is_concrete(y):
        with jax.ensure_compile_time_eval():
            low, high = int(jnp.min(y)), int(jnp.max(y))
        if low < 0 or high >= classes:
            raise ValueError(
                f"`y` must lie in 0..{classes - 1}, as `{model}` returns {classes} "
                f"logits, got labels from {low} to {high}."
            )
