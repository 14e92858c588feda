"""Convolutions as dense matrices in float64, by applying them to a basis in NumPy.

Nothing here knows of Fourier transforms: loops over taps alone, which a test compares
with `lax.conv_general_dilated`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

# LLVM's optimizations of such small programs cost more than they save.
QUICK = {"xla_backend_optimization_level": 0}

Padding = str | Sequence[tuple[int, int]]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal values in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution: the kernel's shape (spatial..., in / groups, out), and how."""

    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    strides: int | tuple[int, ...] = 1
    kernel_dilation: int | tuple[int, ...] = 1
    groups: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the library's functions after the kernel and the input."""
        return {
            "strides": self.strides,
            "kernel_dilation": self.kernel_dilation,
            "groups": self.groups,
        }

    @property
    def window(self) -> tuple[int, ...]:
        return self.kernel_shape[:-2]

    def per_axis(self, value: int | tuple[int, ...]) -> tuple[int, ...]:
        """Strides or dilations as a tuple."""
        return value if isinstance(value, tuple) else (value,) * len(self.window)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The spatial shape of the circular convolution's output."""
        strides = self.per_axis(self.strides)
        return tuple(n // s for n, s in zip(self.input_shape, strides, strict=True))

    def kernel(self, seed: int = 0) -> np.ndarray:
        """A random kernel in float32."""
        return random(*self.kernel_shape, seed=seed)

    def places(
        self, tap: tuple[int, ...], lengths: Sequence[int]
    ) -> tuple[np.ndarray, ...]:
        """Where on each axis the outputs 0..length find the input of a tap."""
        strides, dilation = map(self.per_axis, (self.strides, self.kernel_dilation))
        return tuple(
            s * np.arange(length) + d * t
            for s, length, d, t in zip(strides, lengths, dilation, tap, strict=True)
        )

    def apply(
        self, kernel: np.ndarray, x: np.ndarray, padding: Padding | None = None
    ) -> np.ndarray:
        """y_p = sum_t K_t^T x_(s p + d t) of x (batch, spatial..., in).

        On a circle, or with a padding by zeros.
        """
        lengths = self.output_shape
        if padding is not None:
            x, lengths = self._padded(x, padding)
        sizes = x.shape[1:-1]
        x = x.reshape(*x.shape[:-1], self.groups, -1)
        width = kernel.shape[-1] // self.groups
        y = np.zeros((len(x), *lengths, self.groups, width), x.dtype)
        for tap in np.ndindex(*self.window):
            places = [
                place % n
                for place, n in zip(self.places(tap, lengths), sizes, strict=True)
            ]
            weights = kernel[tap].reshape(-1, self.groups, width)
            part = x[(slice(None), *np.ix_(*places))]
            y += np.einsum("...gi,igo->...go", part, weights)
        return y.reshape(*y.shape[:-2], kernel.shape[-1])

    def _padded(self, x: np.ndarray, padding: Padding) -> tuple[np.ndarray, list[int]]:
        """The input with its zeros, and the size of the output."""
        strides, dilation = map(self.per_axis, (self.strides, self.kernel_dilation))
        extents = [d * (w - 1) + 1 for w, d in zip(self.window, dilation, strict=True)]
        if isinstance(padding, str):
            padding = jax.lax.padtype_to_pads(
                self.input_shape, extents, strides, padding
            )
        x = np.pad(x, [(0, 0), *padding, (0, 0)])
        lengths = [
            (n - extent) // s + 1
            for n, extent, s in zip(x.shape[1:-1], extents, strides, strict=True)
        ]
        return x, lengths

    @property
    def basis(self) -> np.ndarray:
        """All unit vectors of the input, (in total, spatial..., in)."""
        channels = self.kernel_shape[-2] * self.groups
        total = int(np.prod(self.input_shape)) * channels
        return np.eye(total).reshape(total, *self.input_shape, channels)

    def dense(self, kernel: np.ndarray, padding: Padding | None = None) -> np.ndarray:
        """The matrix, with rows (spatial..., out) and columns (spatial..., in)."""
        basis = self.basis
        y = self.apply(np.asarray(kernel, np.float64), basis, padding)
        return y.reshape(len(basis), -1).T

    def singular_values(self, kernel: np.ndarray) -> np.ndarray:
        """All singular values of the circular convolution, the largest first."""
        return np.linalg.svd(self.dense(kernel), compute_uv=False)

    def taps(self, matrix: np.ndarray) -> np.ndarray:
        """The kernel whose circular convolution is nearest to a matrix.

        The mean of the entries that belong to each tap; taps on one place share it.
        """
        *_, inputs, outputs = self.kernel_shape
        width = outputs // self.groups
        count = int(np.prod(self.output_shape))
        # (output place, out, input place, groups, in)
        matrix = matrix.reshape(count, outputs, -1, self.groups, inputs)
        columns = {}
        for tap in np.ndindex(*self.window):
            grid = np.meshgrid(*self.places(tap, self.output_shape), indexing="ij")
            index = np.ravel_multi_index(grid, self.input_shape, mode="wrap")
            columns[tap] = index.ravel()
        kernel = np.zeros(self.kernel_shape)
        outs = np.arange(outputs)
        for tap, column in columns.items():
            sharing = sum(other[0] == column[0] for other in columns.values())
            mean = matrix[np.arange(count), :, column].mean(axis=0) / sharing
            kernel[tap] = mean[outs, outs // width].T
        return kernel

    def clipped(self, kernel: np.ndarray, max_norm: float) -> np.ndarray:
        """One clip of the dense matrix, and the cut back to the kernel's support."""
        matrix = self.dense(kernel)
        return kernel - self.taps(matrix - clipped(matrix, max_norm))


def clipped(matrix: np.ndarray, max_norm: float) -> np.ndarray:
    """Matrices (..., rows, columns) with their singular values clipped."""
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    return (u * np.minimum(s, max_norm)[..., None, :]) @ vh


CASES = {
    "plain": Conv((3, 3, 3, 4), (4, 5)),
    "even kernel, odd input": Conv((2, 4, 3, 2), (3, 5)),
    "strides": Conv((3, 3, 2, 3), (6, 4), strides=2),
    "strides per axis": Conv((3, 2, 2, 5), (6, 4), strides=(3, 1)),
    "1x1 with strides": Conv((1, 1, 3, 4), (4, 4), strides=2),
    "dilation": Conv((3, 2, 2, 2), (5, 6), kernel_dilation=(2, 3)),
    "groups": Conv((3, 3, 2, 6), (4, 3), groups=3),
    "depthwise, strides": Conv((3, 3, 1, 4), (4, 4), strides=2, groups=4),
    "one filter": Conv((3, 2, 1, 1), (6, 5)),
    "one output": Conv((3, 3, 4, 1), (4, 3)),
    "1-d": Conv((5, 3, 4), (9,)),
    "1-d with everything": Conv(
        (4, 2, 4), (8,), strides=2, kernel_dilation=3, groups=2
    ),
    "3-d": Conv((2, 3, 1, 2, 3), (4, 3, 2)),
    "3-d with strides": Conv((3, 1, 2, 2, 2), (2, 3, 4), strides=(2, 1, 2)),
    "larger than the input": Conv((5, 4, 2, 3), (3, 4)),
    "dilated around the input": Conv(
        (3, 3, 3, 2), (4, 6), kernel_dilation=(2, 3), strides=(2, 3)
    ),
    "one pixel": Conv((3, 3, 2, 3), (1, 1)),
}
