"""Checks of arguments, shared by all public functions.

Only concrete values are checked: inside `jax.jit` and similar transformations a value
is unknown, and its check is skipped. A concrete value that a traced function closes
over is read outside of the trace.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

_RANGE_TOLERANCE = 1e-6
_LARGEST = np.iinfo(np.int32).max


def is_concrete(value: Any) -> bool:
    """Returns whether a value can be read now: not traced, nor on another host."""
    if isinstance(value, jax.core.Tracer):
        return False
    return not isinstance(value, jax.Array) or value.is_fully_addressable


def as_array(name: str, value: Any) -> Any:
    """Returns an array of numbers, of jax if the value contains one, else of NumPy.

    NumPy preserves 64-bit integers, which jax would wrap to 32 bits. Other byte orders
    become the machine's. A masked array is refused, as jax would use its hidden values.
    """
    array: Any = value if isinstance(value, jax.Array) else None
    if array is None and not isinstance(value, np.ma.MaskedArray):
        entries = jax.tree.leaves(value) if isinstance(value, list | tuple) else ()
        of_jax = any(
            isinstance(entry, jax.Array) or hasattr(entry, "__jax_array__")
            for entry in (value, *entries)
        )
        with contextlib.suppress(OverflowError, TypeError, ValueError):
            array = jnp.asarray(value) if of_jax else np.asarray(value)
    if array is None or not _is_number(array.dtype):
        raise ValueError(f"`{name}` must be an array of numbers, got {value!r}.")
    if isinstance(array, np.ndarray):
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return array


def _is_number(dtype: Any) -> bool:
    """Returns whether jax supports a dtype: no time spans or extended precision."""
    if not any(jnp.issubdtype(dtype, kind) for kind in (np.number, np.bool_)):
        return False
    is_complex = jnp.issubdtype(dtype, np.complexfloating)
    return dtype.kind != "m" and dtype.itemsize <= (16 if is_complex else 8)


def as_tuple(value: Any) -> tuple[Any, ...] | None:
    """Returns the entries of a list, tuple or array of one axis, otherwise None."""
    is_array = isinstance(value, np.ndarray | jax.Array) and value.ndim == 1
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if is_array and is_concrete(value) and _is_number(value.dtype):
        value = np.asarray(value)  # its entries count as integers, unlike jax arrays
    return tuple(value) if is_array or is_list else None


def is_integer(value: Any) -> bool:
    """Returns whether a value is an integer of Python or NumPy, and not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(
        value, bool | np.timedelta64
    )


def check_integers(name: str, value: Any, what: str = "integers") -> chex.Array:
    """Returns an array of integers; refuses those that jax would wrap."""
    array = as_array(name, value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"`{name}` must be {what}, got dtype {array.dtype}.")
    narrow = jnp.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
    if isinstance(array, np.ndarray) and array.size:
        low, high = array.min(), array.max()
        if low < narrow.min or high > narrow.max:
            raise ValueError(
                f"`{name}` must be {what} in the range of {narrow.dtype}, got values "
                f"from {low} to {high}."
            )
    return jnp.asarray(array)


def nan_if_negative(value: chex.Array, result: chex.Array) -> chex.Array:
    """Returns a result computed from a number, or NaN if the number is negative.

    A traced number cannot be refused, but NaN becomes visible in all later results. The
    NaN is a square root, because a constant NaN would trigger `jax_debug_nans`.
    """
    root = jax.lax.stop_gradient(jnp.sqrt(jnp.minimum(value, 0)))
    return jnp.where(value >= 0, result, root.astype(result.dtype))


def nonnegative(value: chex.Numeric, dtype: Any) -> chex.Array:
    """Converts a number to a dtype, a negative one to NaN."""
    array = jnp.asarray(value, dtype)
    return nan_if_negative(array, array)


def check_nonnegative(name: str, value: Any, *, finite: bool = False) -> chex.Numeric:
    """Returns a real scalar; refuses a concrete one that is negative or NaN.

    Args:
      name: the name of the argument.
      value: its value. If it is not from jax, a float is returned: jax would wrap
        integers beyond 32 bits, and NumPy would multiply in half precision.
      finite: whether to refuse values that are infinite in jax's default dtype.
    """
    number = _real_scalar(name, value)
    if not is_concrete(number):
        return number
    array = np.asarray(number)
    if not array >= 0:
        raise ValueError(f"`{name}` must be non-negative, got {value!r}.")
    with np.errstate(over="ignore"):
        if finite and not np.isfinite(array.astype(jnp.result_type(float))):
            raise ValueError(f"`{name}` must be finite, got {value!r}.")
    return number


def _real_scalar(name: str, value: Any) -> chex.Numeric:
    """Returns a real number as a float or a scalar of jax."""
    try:
        array = as_array(name, value)
    except ValueError:
        array = np.asarray(None)
    if array.ndim and hasattr(value, "ndim"):
        raise ValueError(f"`{name}` must be a scalar, got shape {array.shape}.")
    if array.ndim or not any(
        jnp.issubdtype(array.dtype, t) for t in (jnp.integer, jnp.floating)
    ):
        raise ValueError(f"`{name}` must be a real number, got {value!r}.")
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    if isinstance(array, jax.Array) and (is_float or not is_concrete(array)):
        return array
    return float(array)


def check_positive(name: str, value: Any) -> chex.Numeric:
    """Returns a real scalar; refuses a concrete one that is not positive."""
    value = check_nonnegative(name, value)
    if is_concrete(value) and not np.asarray(value) > 0:
        raise ValueError(f"`{name}` must be positive, got {value!r}.")
    return value


def check_positive_int(name: str, value: Any, most: int = _LARGEST) -> int:
    """Returns a Python or NumPy integer; refuses all but 1 to `most`."""
    if not is_integer(value) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}.")
    if value > most:
        raise ValueError(
            f"`{name}` must be an integer of at most {most}, got {value!r}."
        )
    return int(value)


def check_positive_ints(name: str, value: Any) -> int:
    """Returns the largest of a tuple of positive integers, or one such integer.

    Refuses an empty tuple and all other values.
    """
    if not isinstance(value, tuple):
        return check_positive_int(name, value)
    if not value:
        raise ValueError(f"`{name}` must hold at least one integer, got {value!r}.")
    return max(check_positive_int(name, each) for each in value)


def check_count(name: str, value: Any) -> None:
    """Refuses values that are not integers, and concrete ones below 1."""
    if isinstance(value, jax.core.Tracer):
        if value.ndim or not jnp.issubdtype(value.dtype, jnp.integer):
            raise ValueError(
                f"`{name}` must be an integer, got {value.dtype}{value.shape}."
            )
        return
    is_array = isinstance(value, jax.Array | np.ndarray) and not value.ndim
    check_positive_int(name, as_array(name, value).item() if is_array else value)


def check_bool(name: str, value: Any) -> bool:
    """Returns a bool; refuses all else, as a number or a list is likely a mistake."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False, got {value!r}.")
    return bool(value)


def check_nonnegative_list(name: str, value: Any) -> chex.Array:
    """Returns a scalar or a list (E,); refuses an empty one and negative values."""
    is_array = bool(getattr(value, "ndim", 0))
    entries = None if is_array else as_tuple(value)
    if entries is None and not is_array:
        return jnp.asarray(check_nonnegative(name, value))
    if entries is not None:
        for entry in entries:
            if isinstance(entry, list | tuple) or getattr(entry, "ndim", None):
                raise ValueError(
                    f"`{name}` must be a scalar or a list of scalars, got {value!r}."
                )
        value = [check_nonnegative(name, entry) for entry in entries]
    array = as_array(name, value)
    if array.ndim != 1 or not array.size:
        raise ValueError(
            f"`{name}` must be a scalar or a list of at least one, "
            f"got shape {array.shape}."
        )
    if is_concrete(array):
        array = np.asarray(array)
        for entry in array:
            check_nonnegative(name, entry)
        if jnp.issubdtype(array.dtype, jnp.integer):
            array = array.astype(float)
    return jnp.asarray(array)


def check_keys(key: Any, images: int | None = None) -> bool:
    """Returns whether a value is a single random key; refuses all but keys.

    Args:
      key: a typed key or an old-style one of uint32, or an array of them.
      images: the number of keys in an array, one for each image; None refuses arrays.
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        leading = shape
    else:
        leading = None
        if dtype == jnp.uint32 and shape:
            # It raises an error if the number of words is not that of a key.
            with contextlib.suppress(TypeError):
                leading = jax.random.wrap_key_data(key).shape
    if leading == () or (images is not None and leading == (images,)):
        return leading == ()
    seen = type(key).__name__ if dtype is None else f"{dtype} of shape {shape}"
    several = "" if images is None else f", or {images} of them, one for each image"
    raise ValueError(
        f"`key` must be a key, as `jax.random.key(0)` makes{several}, got {seen}."
    )


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuses a value that is not one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}."
        )


def check_real(name: str, array: Any, *, abstract: bool = False) -> chex.Array:
    """Returns an array; refuses any dtype but a real floating-point one.

    Args:
      name: the name of the argument.
      array: its value.
      abstract: whether a `jax.ShapeDtypeStruct` is accepted and returned, for
        parameters that are not initialized yet.
    """
    is_abstract = abstract and isinstance(array, jax.ShapeDtypeStruct)
    array = array if is_abstract else as_array(name, array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"`{name}` must have a real floating-point dtype, got {array.dtype}."
        )
    return array if is_abstract else jnp.asarray(array)


def check_numbers(name: str, value: Any) -> Any:
    """Returns an array of finite real numbers, of NumPy unless it was of jax."""
    array = as_array(name, value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"`{name}` must be real, got dtype {array.dtype}.")
    check_finite(name, array)
    return array


def check_finite(name: str, array: chex.Array) -> tuple[float, float] | None:
    """Returns the range of a concrete array; refuses NaN and infinite numbers."""
    if not array.size or not is_concrete(array):
        return None
    with jax.ensure_compile_time_eval():
        low, high = float(jnp.min(array)), float(jnp.max(array))
    if not np.isfinite([low, high]).all():
        raise ValueError(
            f"`{name}` must contain only finite numbers, got values from {low:g} to "
            f"{high:g}."
        )
    return low, high


def check_bounds(bounds: Any) -> tuple[Any, Any]:
    """Returns (low, high); refuses anything but two ordered numbers."""
    pair = as_tuple(bounds)
    if pair is None or len(pair) != 2:
        raise ValueError(f"`bounds` must be a pair (low, high), got {bounds!r}.")
    low, high = pair
    try:
        _real_scalar("bounds", low), _real_scalar("bounds", high)
    except ValueError:
        raise ValueError(
            f"`bounds` must be two real numbers, got {bounds!r}."
        ) from None
    if is_concrete(low) and is_concrete(high) and not float(low) < float(high):
        raise ValueError(f"`bounds` must satisfy low < high, got {bounds!r}.")
    return low, high


def check_params(params: Any) -> None:
    """Refuses None in place of parameters, the default of optax's `update`."""
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
    """Returns NHWC images; refuses integers, NaN and values outside the bounds.

    Args:
      x: images (..., height, width, channels).
      bounds: the range of concrete values, with a tolerance of 1e-6; None does not
        check it.
      batched: whether exactly one leading axis is required.
      name: the name of the argument.
    """
    x = as_array(name, x)
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
    if 0 in x.shape[-3:]:
        raise ValueError(
            f"`{name}` must hold images of at least one pixel, got shape {x.shape}."
        )
    x = jnp.asarray(x)
    seen = check_finite(name, x)
    if seen and bounds is not None and all(map(is_concrete, bounds)):
        low, high = (float(bound) for bound in bounds)
        if seen[0] < low - _RANGE_TOLERANCE or seen[1] > high + _RANGE_TOLERANCE:
            raise ValueError(
                f"`{name}` must lie within bounds={bounds}, got values from "
                f"{seen[0]:g} to {seen[1]:g}; normalization belongs inside the model."
            )
    return x


def check_labels(
    y: Any, x: chex.Array, rows: str = "images in `x`", name: str = "y"
) -> chex.Array:
    """Returns integer labels; refuses any number but one for each row of an array."""
    y = check_integers(name, y, "integer class labels")
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"`{name}` must hold one label for each of the {x.shape[0]} {rows}, "
            f"got shape {y.shape}."
        )
    if not y.size:
        raise ValueError("`x` and `y` must hold at least one image.")
    # The dtype of argmax and arange, with which labels are compared.
    return y.astype(int)


def check_label_range(
    y: chex.Array, classes: int, having: str, name: str = "y"
) -> None:
    """Refuses concrete labels beyond the classes, which `having` refers to."""
    if is_concrete(y):
        with jax.ensure_compile_time_eval():
            low, high = int(jnp.min(y)), int(jnp.max(y))
        if low < 0 or high >= classes:
            raise ValueError(
                f"`{name}` must lie in 0..{classes - 1}, as {having}, "
                f"got labels from {low} to {high}."
            )
