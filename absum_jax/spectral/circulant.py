"""The blocks of a circular convolution in the Fourier basis."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _validation as validation
from absum_jax.prox import accumulation_dtype

# Complex numbers to compute at a time: 64 MiB in single precision.
_CHUNK = 2**23
# The most places of an input such that 32 bits can number its frequencies.
_LARGEST_INPUT = 2**31 - 1


class Frequencies(NamedTuple):
    """Frequencies of the output that determine all others, as NumPy arrays.

    A real kernel has conjugate blocks at q and -q, and along an axis of kernel size 1
    all blocks are equal. One frequency of each such class is kept.
    """

    kept: np.ndarray  # (Q, d) integers
    counts: np.ndarray  # (Q,) how many frequencies each represents
    places: np.ndarray  # of the output's shape: the index of the kept frequency


@dataclasses.dataclass(frozen=True)
class CircularConv:
    """The geometry of a circular convolution with kernels (spatial..., in, out)."""

    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    strides: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Returns the spatial shape of the kernel, without dilation."""
        return self.kernel_shape[:-2]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Returns the spatial shape of the output."""
        return tuple(
            n // s for n, s in zip(self.input_shape, self.strides, strict=True)
        )

    @property
    def block_shape(self) -> tuple[int, int]:
        """Returns the inputs (channels times aliases) and outputs of a block."""
        inputs, outputs = self.kernel_shape[-2:]
        return inputs * math.prod(self.strides), outputs // self.groups

    @property
    def rank(self) -> int:
        """Returns the number of singular values of a block."""
        return min(self.block_shape)

    @functools.cached_property
    def frequencies(self) -> Frequencies:
        """Finds the output's frequencies, without those that others determine."""
        axes = np.indices(self.output_shape).reshape(len(self.output_shape), -1)
        flat = []
        for sign in (1, -1):
            classes = [
                np.zeros_like(q) if size == 1 else sign * q % n
                for q, n, size in zip(
                    axes, self.output_shape, self.kernel_size, strict=True
                )
            ]
            flat.append(np.ravel_multi_index(classes, self.output_shape))
        kept, places, counts = np.unique(
            np.minimum(*flat), return_inverse=True, return_counts=True
        )
        return Frequencies(
            np.stack(np.unravel_index(kept, self.output_shape), axis=-1),
            counts,
            places.reshape(self.output_shape),
        )

    def positions(self, axis: int) -> np.ndarray:
        """Returns the positions of the kernel's taps on the input's circle."""
        # Python's integers do not overflow for a large dilation.
        step = self.kernel_dilation[axis] % self.input_shape[axis]
        return np.arange(self.kernel_size[axis]) * step % self.input_shape[axis]

    @functools.cached_property
    def overlap(self) -> np.ndarray:
        """Counts the taps at the place of each tap, in the kernel's spatial shape."""
        overlap = np.ones(())
        for axis in range(len(self.input_shape)):
            positions = self.positions(axis)
            same = (positions[:, None] == positions).sum(axis=1)
            overlap = overlap[..., None] * same
        return overlap


def axis_values(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Returns a positive integer for each spatial axis; a single one is repeated."""
    several = validation.as_tuple(value)
    values = (value,) * ndim if several is None else several
    whole = all(validation.is_integer(v) and v >= 1 for v in values)
    if not whole or len(values) != ndim:
        raise ValueError(
            f"`{name}` must be positive integers, one for each of {ndim} spatial axes, "
            f"got {value!r}."
        )
    return tuple(map(int, values))


def circular_conv(
    kernel_shape: Sequence[int],
    input_shape: Sequence[int],
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> CircularConv:
    """Checks the geometry of a convolution and returns it.

    Raises:
      ValueError: if an argument does not fit the kernel, or a stride does not divide
        the input.
    """
    kernel_shape = tuple(kernel_shape)
    ndim = len(kernel_shape) - 2
    if ndim < 1 or 0 in kernel_shape:
        raise ValueError(
            "`kernel` must have the axes (spatial..., in, out), none of them empty, "
            f"got shape {kernel_shape}."
        )
    if validation.as_tuple(input_shape) is None:
        raise ValueError(
            f"`input_shape` must be the {ndim} spatial sizes of the input, "
            f"got {input_shape!r}."
        )
    input_shape = axis_values("input_shape", input_shape, ndim)
    strides = axis_values("strides", strides, ndim)
    kernel_dilation = axis_values("kernel_dilation", kernel_dilation, ndim)
    if math.prod(input_shape) > _LARGEST_INPUT:
        raise ValueError(
            f"`input_shape` must have at most {_LARGEST_INPUT} places, "
            f"got {input_shape}."
        )
    validation.check_positive_int("groups", groups)
    if any(n % s for n, s in zip(input_shape, strides, strict=True)):
        raise ValueError(
            "`strides` must divide `input_shape` for the convolution to be circular, "
            f"got strides {strides} and input_shape {input_shape}; the norm at stride "
            "1 is an upper bound."
        )
    if kernel_shape[-1] % groups:
        raise ValueError(
            f"`groups` must divide the {kernel_shape[-1]} output channels, "
            f"got {groups}."
        )
    return CircularConv(kernel_shape, input_shape, strides, kernel_dilation, groups)


def checked(
    kernel: Any,
    input_shape: Sequence[int],
    strides: int | Sequence[int],
    kernel_dilation: int | Sequence[int],
    groups: int,
) -> tuple[chex.Array, CircularConv]:
    """Checks a kernel and its geometry; returns the kernel in at least float32."""
    kernel = validation.check_real("kernel", kernel)
    conv = circular_conv(kernel.shape, input_shape, strides, kernel_dilation, groups)
    return kernel.astype(accumulation_dtype(kernel)), conv


def normalized(kernel: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Scales the largest value to [1/2, 1); returns also the power of two divided by.

    Spectra are homogeneous in the kernel, and a power of two causes no rounding.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(kernel)))
    _, exponent = jnp.frexp(jnp.where(jnp.isfinite(largest), largest, 0.0))
    # In two halves, as the full inverse could overflow where the kernel does not.
    half = exponent // 2
    one = jnp.ones((), kernel.dtype)
    scales = jnp.ldexp(one, half), jnp.ldexp(one, exponent - half)
    inverses = jnp.ldexp(one, -half), jnp.ldexp(one, half - exponent)
    return kernel * inverses[0] * inverses[1], scales[0] * scales[1]


def _phases(conv: CircularConv, frequencies: chex.Array, dtype: Any) -> chex.Array:
    """Computes exp(2 pi i k . t / n) in two real parts, (2, B, aliases, taps).

    The input's frequencies k = q + j n / s, j in {0..s-1}^d, alias to the output's
    frequency q.
    The angles are reduced in integers, so that no accuracy is lost on large inputs.
    """
    real = jnp.ones((len(frequencies), 1, 1), dtype)
    imaginary = jnp.zeros_like(real)
    for axis, (n, m) in enumerate(
        zip(conv.input_shape, conv.output_shape, strict=True)
    ):
        turns = np.arange(n)[:, None] * conv.positions(axis) % n
        angles = 2 * np.pi * turns / n
        aliases = m * jnp.arange(conv.strides[axis], dtype=frequencies.dtype)
        rows = frequencies[:, axis, None] + aliases[None]
        cosine = jnp.asarray(np.cos(angles), dtype)[rows]
        sine = jnp.asarray(np.sin(angles), dtype)[rows]

        def outer(a: chex.Array, b: chex.Array) -> chex.Array:
            product = a[:, :, None, :, None] * b[:, None, :, None, :]
            batch, aliases, more_aliases, taps, more_taps = product.shape
            return product.reshape(batch, aliases * more_aliases, taps * more_taps)

        real, imaginary = (
            outer(real, cosine) - outer(imaginary, sine),
            outer(real, sine) + outer(imaginary, cosine),
        )
    scale = math.prod(conv.strides) ** -0.5
    return scale * jnp.stack([real, imaginary])


def blocks(
    conv: CircularConv, kernel: chex.Array, frequencies: chex.Array
) -> chex.Array:
    r"""Computes the blocks of a convolution at some frequencies of its output.

    .. math:: B_q = s^{-d/2} [\hat K(q + j n / s)]_{j \in \{0..s-1\}^d}

    with :math:`\hat K(k) = \sum_t K_t e^{2\pi i k \cdot t / n}`.

    Args:
      conv: the geometry.
      kernel: real, (spatial..., in, out).
      frequencies: (B, d).

    Returns:
      Complex (B, groups, inputs, outputs), with inputs first, as in kernels.
    """
    inputs, outputs = conv.kernel_shape[-2:]
    taps = kernel.reshape(-1, inputs * outputs)
    phases = _phases(conv, frequencies, kernel.dtype)
    parts = jnp.tensordot(phases, taps, 1, precision="highest")
    parts = parts.reshape(*phases.shape[:3], inputs, conv.groups, -1)
    parts = jnp.moveaxis(parts, 4, 2)
    return jax.lax.complex(
        *parts.reshape(2, len(frequencies), conv.groups, *conv.block_shape)
    )


def kernel_of(
    conv: CircularConv, values: chex.Array, frequencies: chex.Array, counts: chex.Array
) -> chex.Array:
    """Computes what some blocks contribute to the kernel nearest to all blocks.

    The sum over all kept frequencies inverts :func:`blocks` and is cut to the kernel's
    support. Taps at the same place share its value.

    Args:
      conv: the geometry.
      values: complex blocks (B, groups, inputs, outputs).
      frequencies: (B, d).
      counts: (B,) how many frequencies each represents.
    """
    inputs = conv.kernel_shape[-2]
    weights = counts.astype(values.real.dtype) / math.prod(conv.output_shape)
    phases = _phases(conv, frequencies, values.real.dtype)
    parts = jnp.stack([values.real, values.imag])
    parts = parts.reshape(*parts.shape[:3], -1, inputs, parts.shape[-1])
    parts = jnp.moveaxis(parts, 2, 4).reshape(*phases.shape[:3], -1)
    total = jnp.tensordot(
        phases * weights[None, :, None, None],
        parts,
        ((0, 1, 2),) * 2,
        precision="highest",
    )
    overlap = jnp.asarray(conv.overlap, total.dtype)[..., None, None]
    return total.reshape(conv.kernel_shape) / overlap


def _chunks(conv: CircularConv) -> tuple[np.ndarray, np.ndarray]:
    """Splits frequencies (C, B, d) and counts (C, B); padding has the count 0."""
    kept, counts, _ = conv.frequencies
    inputs, outputs = conv.kernel_shape[-2:]
    elements = max(inputs * outputs, math.prod(conv.kernel_size))
    size = max(1, _CHUNK // (elements * math.prod(conv.strides)))
    size = min(size, len(kept))
    missing = -len(kept) % size
    kept = np.concatenate([kept, np.repeat(kept[:1], missing, axis=0)])
    counts = np.concatenate([counts, np.zeros(missing, counts.dtype)])
    return kept.reshape(-1, size, kept.shape[-1]), counts.reshape(-1, size)


def map_chunks(
    function: Callable[[chex.Array], chex.Array],
    conv: CircularConv,
    kernel: chex.Array,
) -> chex.Array:
    """Applies a function of blocks (B, groups, inputs, outputs) to all kept blocks.

    The blocks are computed in chunks, so that memory is bounded.

    Returns:
      The function's result for each chunk, along a new first axis. The last chunk is
      padded with blocks of the first frequency.
    """
    frequencies = jnp.asarray(_chunks(conv)[0])
    if len(frequencies) == 1:
        return function(blocks(conv, kernel, frequencies[0]))[None]
    return jax.lax.map(lambda part: function(blocks(conv, kernel, part)), frequencies)


def map_kernels(
    function: Callable[[chex.Array], chex.Array],
    conv: CircularConv,
    kernels: chex.Array,
) -> chex.Array:
    """Applies a function to the kept blocks of a stack of kernels, and converts them.

    Args:
      function: of blocks (layers, B, groups, inputs, outputs).
      conv: the geometry.
      kernels: real, (layers, spatial..., in, out).

    Returns:
      Kernels of the same shape.
    """
    frequencies, counts = map(jnp.asarray, _chunks(conv))

    def add(
        total: chex.Array, part: tuple[chex.Array, chex.Array]
    ) -> tuple[chex.Array, None]:
        values = function(jax.vmap(lambda k: blocks(conv, k, part[0]))(kernels))
        return total + jax.vmap(lambda v: kernel_of(conv, v, *part))(values), None

    zeros = jnp.zeros_like(kernels)
    if len(frequencies) == 1:
        return add(zeros, (frequencies[0], counts[0]))[0]
    return jax.lax.scan(add, zeros, (frequencies, counts))[0]


def one_by_one(function: Callable[[Any], chex.Array], layers: Any) -> chex.Array:
    """Applies a function of stacks to one layer of stacked arrays after the other."""

    def one(layer: Any) -> chex.Array:
        return function(jax.tree.map(lambda array: array[None], layer))[0]

    return jax.lax.map(one, layers)


def map_layers(
    function: Callable[[Any], chex.Array], conv: CircularConv, layers: Any
) -> chex.Array:
    """Applies a function of stacks to layers of stacked arrays.

    Layers are one stack if the blocks of one layer fit into a chunk; otherwise the
    function is applied to one layer after the other.
    """
    if len(_chunks(conv)[0]) == 1:
        return function(layers)
    return one_by_one(function, layers)
