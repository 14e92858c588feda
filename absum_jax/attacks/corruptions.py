"""Common corruptions in closed form: those of CIFAR-10-C and MNIST-C without files."""

import functools
import types
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _validation as validation
from absum_jax._sharding import with_automatic_axes
from absum_jax.attacks._descent import image_keys
from absum_jax.prox import accumulation_dtype

# The parameter of each kind at severities 1 to 5, from the programs that made the
# benchmarks:
#   https://github.com/hendrycks/robustness, ImageNet-C/create_c/make_cifar_c.py
#     at commit ca360085d57889288c4143fddd8a707bbcae01bd
#   https://github.com/google-research/mnist-c, corruptions.py
#     at commit aa075693016b6c8b616271a979854dacbcb45e22
SEVERITIES: Mapping[str, Mapping[str, tuple[float, ...]]] = types.MappingProxyType(
    {
        "cifar10-c": {
            "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
            "shot_noise": (500, 250, 100, 75, 50),
            "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
            "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
            "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
            "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
            "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        },
        "mnist-c": {
            "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
            "shot_noise": (60, 25, 12, 5, 3),
            "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
            "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
            "gaussian_blur": (1, 2, 3, 4, 6),
            "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
            "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        },
    }
)
MOST_SEVERE = 5

# The axes of images (height, width, channels) that are blurred. The program of MNIST-C
# passes images (height, width) to a filter that takes the last axis for channels.
_BLURRED_AXES = {"cifar10-c": (0, 1), "mnist-c": (0,)}


def _gaussian_noise(x: chex.Array, scale: chex.Array, key: chex.PRNGKey) -> chex.Array:
    return x + scale * jax.random.normal(key, x.shape, x.dtype)


def _shot_noise(x: chex.Array, photons: chex.Array, key: chex.PRNGKey) -> chex.Array:
    # jax draws from Poisson distributions only with keys of this kind.
    words = jax.random.bits(key, (2,), jnp.uint32)
    own = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.random.poisson(own, x * photons).astype(x.dtype) / photons


def _impulse_noise(x: chex.Array, amount: chex.Array, key: chex.PRNGKey) -> chex.Array:
    draws = jax.random.uniform(key, x.shape, x.dtype)
    extreme = (draws < amount / 2).astype(x.dtype)
    return jnp.where(draws < amount, extreme, x)


def _speckle_noise(x: chex.Array, scale: chex.Array, key: chex.PRNGKey) -> chex.Array:
    return x + x * scale * jax.random.normal(key, x.shape, x.dtype)


def _contrast(x: chex.Array, factor: chex.Array, key: chex.PRNGKey) -> chex.Array:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * factor + mean


def _brightness(x: chex.Array, added: chex.Array, key: chex.PRNGKey) -> chex.Array:
    """Adds to the value of HSV, the largest channel; hue and saturation remain."""
    value = x.max(axis=-1, keepdims=True)
    is_black = value == 0
    shares = jnp.where(is_black, 1, x / jnp.where(is_black, 1, value))
    return shares * jnp.minimum(value + added, 1)


_POINTWISE = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "speckle_noise": _speckle_noise,
    "contrast": _contrast,
    "brightness": _brightness,
}


def _blur_matrix(size: int, scale: float) -> np.ndarray:
    """Computes the matrix (size, size) of a Gaussian blur along an axis.

    The Gaussian ends at four standard deviations, and the pixels at the borders are
    continued beyond them: the defaults of scikit-image, which both benchmarks use.
    """
    reach = int(4 * scale + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-((offsets / scale) ** 2) / 2)
    sources = np.clip(np.arange(size)[:, None] + offsets, 0, size - 1)
    return np.eye(size)[sources].transpose(0, 2, 1) @ (weights / weights.sum())


def _blurred(
    x: chex.Array, index: chex.Array, scales: tuple[float, ...], axes: tuple[int, ...]
) -> chex.Array:
    for axis in (axis + 1 for axis in axes):
        matrices = np.stack([_blur_matrix(x.shape[axis], scale) for scale in scales])
        matrix = jnp.asarray(matrices, x.dtype)[index]
        product = jnp.tensordot(x, matrix, ((axis,), (1,)), precision="highest")
        x = jnp.moveaxis(product, -1, axis)
    return x


def corrupted(
    x: chex.Array,
    severity: chex.Array,
    keys: chex.PRNGKey,
    *,
    kind: str,
    benchmark: str,
) -> chex.Array:
    """Corrupts images by one kind, unchecked.

    Args:
      x: images (batch, height, width, channels).
      severity: an integer scalar, possibly traced. One that is not in 1..5, which
        cannot be refused if it is traced, gives NaN.
      keys: of the images (batch,).
      kind: as in :func:`corrupt`.
      benchmark: as in :func:`corrupt`.
    """
    dtype, values = accumulation_dtype(x), SEVERITIES[benchmark][kind]
    images = jnp.clip(x.astype(dtype), 0, 1)
    index = jnp.clip(severity, 1, MOST_SEVERE) - 1
    if kind == "gaussian_blur":
        result = _blurred(images, index, values, _BLURRED_AXES[benchmark])
    else:
        value = jnp.asarray(values, dtype)[index]
        result = jax.vmap(_POINTWISE[kind], (0, None, 0))(images, value, keys)
    result = jnp.clip(result, 0, 1).astype(x.dtype)
    margin = jnp.minimum(severity - 1, MOST_SEVERE - severity)
    return validation.nan_if_negative(margin.astype(jnp.float32), result)


@functools.partial(jax.jit, static_argnames=("kind", "benchmark"))
def _corrupt(
    x: chex.Array, severity: chex.Array, keys: chex.PRNGKey, *, kind: str,
    benchmark: str,
) -> chex.Array:  # fmt: skip
    function = functools.partial(corrupted, kind=kind, benchmark=benchmark)
    return with_automatic_axes(function, x, severity, keys, like=x)


def check_kind(kind: Any, benchmark: Any) -> None:
    """Refuses benchmarks and kinds that are not in the table."""
    validation.check_choice("benchmark", benchmark, [*SEVERITIES])
    validation.check_choice("kind", kind, [*SEVERITIES[benchmark]])


def check_severity(value: Any, *, several: bool = False) -> chex.Array:
    """Returns an integer, or with `several` a list of them if that is given.

    Refuses concrete ones that are not in 1..5.
    """
    array = validation.check_integers(
        "severity", value, f"an integer from 1 to {MOST_SEVERE}"
    )
    shape = array.shape
    if shape and (not several or len(shape) != 1 or not array.size):
        what = "a scalar or a list of at least one" if several else "a scalar"
        raise ValueError(f"`severity` must be {what}, got shape {shape}.")
    if validation.is_concrete(array):
        numbers = np.asarray(array)
        if not ((numbers >= 1) & (numbers <= MOST_SEVERE)).all():
            raise ValueError(f"`severity` must lie in 1..{MOST_SEVERE}, got {value!r}.")
    return array.astype(jnp.int32)


def corrupt(
    x: chex.Array,
    kind: str,
    severity: chex.Numeric,
    *,
    key: chex.PRNGKey,
    benchmark: str = "cifar10-c",
) -> chex.Array:
    r"""Corrupts images by noise, blur, contrast or brightness, as in CIFAR-10-C.

    With c the published parameter of the severity, each value x of a pixel becomes

    - `"gaussian_noise"`: x + c n with n standard normal,
    - `"shot_noise"`: k / c with k from the Poisson distribution of mean c x,
    - `"impulse_noise"`: 0 or 1, each with probability c / 2, or else x,
    - `"speckle_noise"`: x + c x n with n standard normal,
    - `"gaussian_blur"`: a mean of its surroundings with the weights of a Gaussian of
      standard deviation c, truncated at 4 c; pixels at borders are continued,
    - `"contrast"`: m + c (x - m) with m the mean of the channel of this image,
    - `"brightness"`: x with c added to the value of the pixel in HSV, up to 1,

    clipped to [0, 1]. The noise of each value is independent, channels included, and
    depends only on `jax.random.fold_in(key, i)` for image i, so that images have the
    same noise in any batch.

    These are not the published arrays: they have the same distribution, but other
    random numbers, and are not quantized. The programs of the benchmarks truncate
    results to 8 bits; `jnp.floor(255 * corrupted) / 255` does the same. Kinds that
    need files or other programs (fog, frost, motion blur, JPEG and others) are missing.
    The program of MNIST-C has all seven kinds, but its published arrays only shot
    noise, impulse noise and brightness. Its blur acts along columns only, and so does
    this one: the program passes the columns of gray images as channels.

    Args:
      x: images (batch, height, width, channels), floating-point, in [0, 1].
      kind: one of the kinds above.
      severity: 1 to 5, possibly traced.
      key: random key, from `jax.random.key`; or a key for each image, (batch,), so that
        images have the same noise in any batch.
      benchmark: whose severities: `"cifar10-c"` or `"mnist-c"`.

    Returns:
      The corrupted images, of the shape and dtype of `x`, in [0, 1]; computed in at
      least float32.

    Raises:
      ValueError: if the images are integers, not finite, outside of [0, 1] by more than
        1e-6 or have other axes, `kind` or `benchmark` is unknown, `severity` is not an
        integer from 1 to 5, or `key` is not a key.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> x = jnp.array([0.0, 0.25, 0.5, 0.75]).reshape(1, 1, 4, 1)
      >>> absum_jax.corrupt(x, "brightness", 5, key=jax.random.key(0)).ravel()
      Array([0.3 , 0.55, 0.8 , 1.  ], dtype=float32)
      >>> noisy = absum_jax.corrupt(x, "shot_noise", 3, key=jax.random.key(0))
      >>> noisy.shape  # of means 0, 25, 50 and 75 photons
      (1, 1, 4, 1)

    References:
      Hendrycks and Dietterich, `Benchmarking Neural Network Robustness to Common
      Corruptions and Perturbations <https://arxiv.org/abs/1903.12261>`_, 2019; Mu and
      Gilmer, `MNIST-C: A Robustness Benchmark for Computer Vision
      <https://arxiv.org/abs/1906.02337>`_, 2019; severities of their programs
      `make_cifar_c.py <https://github.com/hendrycks/robustness>`_ and `corruptions.py
      <https://github.com/google-research/mnist-c>`_
    """
    check_kind(kind, benchmark)
    severity = check_severity(severity)
    x = validation.check_images(x, (0.0, 1.0), batched=True)
    keys = image_keys(key, x.shape[0])
    return _corrupt(x, severity, keys, kind=kind, benchmark=benchmark)
