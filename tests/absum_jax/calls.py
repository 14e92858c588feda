"""One table of valid calls: every public name, with arguments and NumPy's answer.

`calls("small")` and `calls("large")` give the same calls on arrays of a few numbers
each, and on arrays of more rows than a CPU reduces in one piece (32,768). Another seed
gives other arrays of the same shapes. Tests that hold for all functions loop over them.

The references are float64 NumPy and never call the library. Where a result jumps (a
sign, an argmax, a threshold), the data keep their distance, and `_far` asserts it: the
float32 result is then the same to the last image.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import numpy_apgd
import optax
from jax.tree_util import Partial

import absum_jax
from absum_jax.evaluation.auto_attack_result import Problems

KINDS = {
    "array": "a function of arrays: works under jit, grad and vmap",
    "host": "reads concrete values or structure: returns NumPy or Python objects",
    "picture": "draws with matplotlib",
    "class": "a type of results, states or rows",
}


class Call(NamedTuple):
    """A public name with valid arguments.

    `function(**arguments)` is a float32 result; the leaves of `reference(**arguments)`
    are its leaves in float64.
    """

    name: str  # in `absum_jax.__all__`
    function: Callable[..., Any]  # for a transformation: one step of it
    arguments: dict[str, Any]
    reference: Callable[..., Any] | None = None  # None for pictures and classes
    kind: str = "array"  # one of KINDS
    traced: tuple[str, ...] = ()  # arguments that are arrays or trees of them
    differentiable: tuple[str, ...] = ()  # those of them with a gradient
    tolerance: float = 1e-5  # of the error relative to the largest entry of a leaf
    case: str = ""  # what tells calls of the same function apart

    @property
    def label(self) -> str:
        """The name, and the case if there is one."""
        return f"{self.name} ({self.case})" if self.case else self.name


class _Sizes(NamedTuple):
    images: tuple[int, int, int, int]  # (N, height, width, channels)
    filters: tuple[int, int]  # (in, out) of a kernel without a spectrum
    many: tuple[tuple[int, int], tuple[int, int]]  # many frequencies, few channels
    wide: tuple[tuple[int, int], tuple[int, int]]  # few frequencies, many channels
    grid: tuple[int, int]  # of frequencies
    rows: int


_SIZES = {
    "small": _Sizes(
        images=(6, 5, 4, 3),
        filters=(2, 3),
        many=((6, 4), (2, 3)),
        wide=((4, 3), (3, 2)),
        grid=(6, 5),
        rows=5,
    ),
    "large": _Sizes(
        images=(34, 36, 28, 3),
        filters=(130, 256),
        many=((260, 256), (2, 3)),
        wide=((12, 10), (24, 20)),
        grid=(180, 184),
        rows=33_000,
    ),
}


def _far(distances: Any, least: float = 1e-3) -> None:
    """Asserts that no value is so near to a jump that float32 may cross it."""
    assert np.abs(distances).min() > least


# Models: a 1x1 convolution, tanh, a product with a picture for each feature, a matrix.


class Weights(NamedTuple):
    """Parameters of the model."""

    kernel: Any  # (channels, features)
    bias: Any  # (features,)
    pictures: Any  # (height, width, features)
    head: Any  # (features, classes)


def apply(weights: Weights, x: jax.Array) -> jax.Array:
    """Returns the logits of the model, computed in the dtype of the weights."""
    hidden = jnp.matmul(x.astype(weights.kernel.dtype), weights.kernel)
    hidden = jnp.tanh(hidden + jnp.broadcast_to(weights.bias, hidden.shape))
    features = jnp.einsum("nhwf,hwf->nf", hidden, weights.pictures)
    return jnp.matmul(features, weights.head)


def _wide(weights: Weights) -> Weights:
    return Weights(*(np.asarray(array, np.float64) for array in weights))


def _logits(logits_fn: Partial, x: np.ndarray) -> np.ndarray:
    """The logits of the model, in float64."""
    kernel, bias, pictures, head = _wide(logits_fn.args[0])
    hidden = np.tanh(np.asarray(x, np.float64) @ kernel + bias)
    return (
        np.tensordot(hidden * pictures, np.ones(x.shape[1:3]), ((1, 2), (0, 1))) @ head
    )


def _gradient(logits_fn: Partial, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of the cross-entropy with respect to the images.

    Each channel feeds one feature, so that a gradient is a product, not a sum.
    """
    kernel, bias, pictures, head = _wide(logits_fn.args[0])
    hidden = np.tanh(x @ kernel + bias)
    weights = np.exp(_logits(logits_fn, x))
    shares = weights / weights.sum(axis=1, keepdims=True)
    slopes = (shares - np.eye(head.shape[1])[y]) @ head.T
    _far(slopes)
    towards = slopes[:, None, None] * pictures * (1 - hidden**2)
    return towards @ kernel.T


def _share_correct(logits_fn: Partial, x: np.ndarray, y: np.ndarray) -> float:
    logits = _logits(logits_fn, x)
    others = np.where(np.eye(logits.shape[1])[y] == 1, -np.inf, logits).max(axis=1)
    margins = logits[np.arange(len(y)), y] - others
    _far(margins)
    return np.mean(margins > 0)


def _model(rng: np.random.Generator, sizes: _Sizes) -> dict[str, Any]:
    """A model and images, of which it gets three of four right."""
    count, height, width, channels = sizes.images
    kernel = np.eye(channels)[rng.permutation(channels)]
    kernel *= rng.choice([-1, 1], channels) * rng.uniform(1, 2, channels)
    pictures = rng.choice([-1, 1], (height, width, channels)) * rng.uniform(
        0.5, 1, (height, width, channels)
    )
    weights = Weights(
        kernel,
        rng.uniform(-0.5, 0.5, channels),
        pictures / np.sqrt(height * width),
        rng.normal(size=(channels, 4)),
    )
    weights = Weights(*(array.astype(np.float32) for array in weights))
    logits_fn = Partial(apply, weights)
    # Between the bounds, and a little beyond their reach for some pixels.
    x = rng.uniform(0.05, 0.95, sizes.images).astype(np.float32)
    y = (_logits(logits_fn, x).argmax(axis=1) + (np.arange(count) % 4 == 3)) % 4
    return {"logits_fn": logits_fn, "x": x, "y": y.astype(np.int32)}


# Attacks.


def _pattern(l: int, m: int, shape: tuple[int, int], scale: str = "linf") -> np.ndarray:
    """The pattern of eq. 6 for eps = 1."""
    p, q = np.arange(shape[0])[:, None], np.arange(shape[1])
    angle = 2 * np.pi * (l * p / shape[0] + m * q / shape[1])
    pattern = np.cos(angle - np.pi / 4)
    return pattern / (
        np.abs(pattern).max() if scale == "linf" else np.linalg.norm(pattern)
    )


def _perturbation(l, m, shape, eps):
    return float(eps) * _pattern(l, m, shape)


def _attacked(x, l, m, eps, bounds=(0.0, 1.0)):
    pattern = float(eps) * _pattern(l, m, x.shape[-3:-1])[..., None]
    moved = np.asarray(x, np.float64) + pattern
    _far(np.stack([moved - bound for bound in bounds]), 1e-6)
    return np.clip(moved, *bounds)


def _radius(shape: tuple[int, int]) -> np.ndarray:
    return np.array(
        [
            [np.sqrt(min(l, shape[0] - l) ** 2 + min(m, shape[1] - m) ** 2)
             for m in range(shape[1])]
            for l in range(shape[0])
        ]
    )  # fmt: skip


def _filtered(x: np.ndarray, radius: float, low: bool, inner: float = -1) -> np.ndarray:
    distance = _radius(x.shape[1:3])
    _far([distance - radius, distance - inner])
    kept = ((distance > inner) & (distance <= radius)) == low
    spectrum = np.fft.fft2(np.asarray(x, np.float64), axes=(1, 2))
    return np.fft.ifft2(spectrum * kept[..., None], axes=(1, 2)).real


def _noisy(x, kind, severity, key, benchmark):
    """With the library's noise, which a key draws for each image."""
    noise = [
        jax.random.normal(jax.random.fold_in(key, i), x.shape[1:])
        for i in range(len(x))
    ]
    scale = {"cifar10-c": 0.04, "mnist-c": 0.08}[benchmark]  # of severity 1
    moved = np.asarray(x, np.float64) + scale * np.array(noise, np.float64)
    _far([moved, moved - 1], 1e-7)
    return np.clip(moved, 0, 1)


def _blurred(x, kind, severity, key, benchmark):
    """The blur of severity 2 of MNIST-C, along columns, by its definition."""
    taps = np.exp(-(np.arange(-8, 9) ** 2) / 8)
    taps /= taps.sum()
    padded = np.pad(np.float64(x), ((0, 0), (8, 8), (0, 0), (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 17, axis=1)
    return windows @ taps


def _contrast(x, factor):
    x = np.asarray(x, np.float64)
    means = x.mean(axis=(1, 2), keepdims=True)
    return means + factor * (x - means)


def _power(perturbation):
    spectrum = np.fft.fft2(np.asarray(perturbation, np.float64), axes=(1, 2))
    power = np.mean(np.abs(spectrum) ** 2, axis=(0, 3)) / spectrum[0, ..., 0].size
    return np.fft.fftshift(power)


def _radial_mean(grid):
    rings = np.rint(_radius(grid.shape)).astype(int)
    grid = np.asarray(grid, np.float64)
    return np.array([grid[rings == ring].mean() for ring in range(rings.max() + 1)])


def _margin(logits, y):
    logits = np.asarray(logits, np.float64)
    is_own = np.eye(logits.shape[1])[y] == 1
    return np.where(is_own, -np.inf, logits).max(axis=1) - logits[is_own]


def _dlr(logits, y):
    largest = np.sort(np.asarray(logits, np.float64), axis=1)
    return _margin(logits, y) / (largest[:, -1] - largest[:, -3] + 1e-12)


def _targeted_dlr(logits, y, target):
    rows, logits = np.arange(len(y)), np.asarray(logits, np.float64)
    largest = np.sort(logits, axis=1)
    scale = largest[:, -1] - (largest[:, -3] + largest[:, -4]) / 2
    return (logits[rows, target] - logits[rows, y]) / (scale + 1e-12)


def _descended(logits_fn, x, y, eps, step_size, steps):
    start = np.asarray(x, np.float64)
    low, high = np.maximum(start - eps, 0), np.minimum(start + eps, 1)
    moved = start
    for _ in range(steps):
        moved = moved + step_size * np.sign(_gradient(logits_fn, moved, y))
        moved = np.clip(moved, low, high)
    return moved


def _fgsm(logits_fn, x, y, eps):
    return _descended(logits_fn, x, y, eps, eps, 1)


def _pgd(logits_fn, x, y, key, eps, step_size, steps, init_radius):
    assert init_radius == 0
    return _descended(logits_fn, x, y, eps, step_size, steps)


def _cross_entropy(logits_fn, x, y):
    logits = _logits(logits_fn, x)
    largest = logits.max(axis=1)
    own = logits[np.arange(len(y)), y]
    return largest - own + np.log(np.exp(logits - largest[:, None]).sum(axis=1))


def _margins(logits_fn, x, y):
    margins = _margin(_logits(logits_fn, x), y)
    _far(margins, 1e-5)
    return margins


def _auto_descended(logits_fn, x, y, keys, eps, steps):
    """Images, evaluations and which are broken; from the library's random starts."""
    attacked, evaluations = [], []
    for own, image, label in zip(keys, x, y, strict=True):

        def oracle(z, label=label):
            arguments = logits_fn, z[None], np.array([label])
            return _cross_entropy(*arguments)[0], np.sign(_gradient(*arguments)[0])

        def is_broken(z, label=label):
            return _margins(logits_fn, z[None], np.array([label]))[0] > 0

        image = np.asarray(image, np.float64)
        noise = jax.random.uniform(
            jax.random.fold_in(own, 0), image.shape, float, -1, 1
        )
        noise = np.asarray(noise, np.float64)
        start = np.clip(image + eps * noise / np.abs(noise).max(), 0, 1)
        found = numpy_apgd.ascend(oracle, is_broken, image, start, eps, steps, "linf")
        attacked.append(found[0])
        evaluations.append(found[1])
    attacked = np.array(attacked)
    return attacked, np.array(evaluations), _margins(logits_fn, attacked, y) > 0


def _keys(key, images):
    return [jax.random.fold_in(key, i) for i in range(images)]


def _apgd(logits_fn, x, y, key, eps, steps):
    return _auto_descended(logits_fn, x, y, _keys(key, len(x)), eps, steps)[0]


def _searched(logits_fn, x, y, key, eps, queries):
    """The Square attack, with the library's windows and colors."""
    attacked = []
    height, width, channels = x.shape[1:]
    side = min(round(np.sqrt(0.8 * height * width)), height, width)
    assert queries <= 10
    for own, image, label in zip(_keys(key, len(x)), x, y, strict=True):
        image = np.asarray(image, np.float64)
        low, high = np.maximum(image - eps, 0), np.minimum(image + eps, 1)

        def margin(z, label=label):
            return _margins(logits_fn, z[None], np.array([label]))[0]

        stripes = jax.random.rademacher(own, (1, width, channels))
        best = np.clip(image + eps * np.asarray(stripes), low, high)
        for query in range(1, queries + 1):
            if margin(best) > 0:
                break
            draws = jax.random.split(jax.random.fold_in(own, query), 3)
            top = jax.random.randint(draws[0], (), 0, height - side + 1)
            left = jax.random.randint(draws[1], (), 0, width - side + 1)
            window = np.zeros(image.shape)
            window[top : top + side, left : left + side] = jax.random.rademacher(
                draws[2], (channels,)
            )
            moved = np.clip(best + 2 * eps * window, low, high)
            if margin(moved) > margin(best):
                best = moved
        attacked.append(best)
    return np.array(attacked)


def _auto_attacked(logits_fn, x, y, key, eps, components, steps):
    assert components == ("apgd-ce",)
    assert list(eps) == sorted(eps)
    own = [jax.random.fold_in(each, 1) for each in _keys(key, len(x))]
    images = np.asarray(x, np.float64)
    broken_by = np.where(_margins(logits_fn, images, y) > 0, 1, 0)
    of_eps = []
    for radius in eps:
        left = broken_by == 0
        found, passes, broken = _auto_descended(logits_fn, x, y, own, radius, steps)
        images = np.where((left & broken)[:, None, None, None], found, images)
        broken_by = np.where(left & broken, 2, broken_by)
        passes = np.where(left, passes, 0)[:, None] * np.eye(4, dtype=int)[0]
        of_eps.append((images, broken_by, passes, passes))
    fields = map(np.array, zip(*of_eps, strict=True))
    problems = [np.zeros((), int)] * 5
    settings = np.arange(4) < 1, np.array(steps), np.array(5000)
    return np.array(eps), *fields, *problems, *settings


# Accuracies.


def _pgd_accuracy(logits_fn, x, y, key, eps, step_size, steps, init_radius):
    shares = [
        _share_correct(logits_fn, _pgd(logits_fn, x, y, key, e, step_size, steps, 0), y)
        for e in eps
    ]
    passes = np.full(len(eps), steps * len(x))
    return np.array(eps), np.array(shares), np.zeros(len(eps)), passes, passes


def _passed(low: bool) -> Callable[..., Any]:
    def passed(logits_fn, x, y, radius):
        shares = [_share_correct(logits_fn, _filtered(x, r, low), y) for r in radius]
        return np.array(radius), np.array(shares), np.zeros(len(radius))

    return passed


def _corruption_accuracy(logits_fn, x, y, kind, severity, key):
    factors = np.array([0.75, 0.5, 0.4, 0.3, 0.15])[np.array(severity) - 1]
    shares = [_share_correct(logits_fn, _contrast(x, c), y) for c in factors]
    return np.array(severity), np.array(shares), np.zeros(len(severity))


def _sensitivity(logits_fn, x, y):
    return _power(_gradient(logits_fn, x, y))


def _summary(accuracy, frequencies):
    flat = np.asarray(accuracy, np.float64)
    worst = frequencies[int(flat.argmin())]
    return flat, flat.mean(), flat.min(), flat.max(), worst


def _single_fourier_accuracy(logits_fn, x, y, eps, frequencies):
    shares = [
        _share_correct(logits_fn, _attacked(x, l, m, eps), y) for l, m in frequencies
    ]
    return *_summary(shares, frequencies), np.zeros(len(shares))


def _noise_accuracy(logits_fn, x, y, norm, key, frequencies):
    """With the library's signs, which a key draws for each frequency and image."""
    shares = []
    for l, m in frequencies:
        own = jax.random.fold_in(key, int(l) * x.shape[2] + int(m))
        signs = [
            jax.random.rademacher(jax.random.fold_in(own, i), x.shape[3:])
            for i in range(len(x))
        ]
        pattern = norm * _pattern(l, m, x.shape[1:3], "l2")
        noisy = x + pattern[..., None] * np.array(signs)[:, None, None]
        shares.append(_share_correct(logits_fn, np.clip(noisy, 0, 1), y))
    return *_summary(shares, frequencies), np.zeros(len(shares))


def report_accuracies(**arguments: Any) -> list[float]:
    """The accuracies of a report, row by row."""
    return [row.accuracy for row in absum_jax.robustness_report(**arguments).rows]


def _report(
    logits_fn, x, y, key, single_fourier_eps, eps, step_size, steps, init_radius,
    radii, frequencies,
):  # fmt: skip
    model = logits_fn, x, y
    fourier = _single_fourier_accuracy(*model, single_fourier_eps, frequencies)
    pgd = _pgd_accuracy(*model, key, eps, step_size, steps, init_radius)
    passed = [_passed(low)(*model, radii)[1] for low in (True, False)]
    parts = [_share_correct(*model)], fourier[1:3], pgd[1], *passed
    return list(itertools.chain(*parts))


# Proximal operators.


def _tree(function: Callable[..., Any], *trees: Any) -> Any:
    """A function of float64 leaves."""
    return jax.tree.map(lambda *leaves: function(*map(np.float64, leaves)), *trees)


def _prox_absum(kernel, threshold):
    kernel = np.asarray(kernel, np.float64)
    mean = kernel.mean(axis=(0, 1))
    _far(np.abs(mean) - threshold, 1e-5)
    return kernel - np.clip(mean, -threshold, threshold)


def _prox_l1(kernel, threshold):
    kernel = np.asarray(kernel, np.float64)
    _far(np.abs(kernel) - threshold)
    return np.sign(kernel) * np.maximum(np.abs(kernel) - threshold, 0)


def _penalty(kernel):
    return np.abs(np.asarray(kernel, np.float64).sum(axis=(0, 1))).sum()


def _moved_by(prox: Callable[..., np.ndarray]) -> Callable[..., Any]:
    """The parameters after an update and an operator on the kernels."""

    def moved(params, updates, threshold):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: prox(leaf, threshold) if leaf.ndim == 4 else leaf,
            _tree(np.add, params, updates),
        )

    return moved


def _stepped_by(prox: Callable[..., np.ndarray]) -> Callable[..., Any]:
    def stepped(params, updates, strength, learning_rate, **options):
        return _moved_by(prox)(params, updates, strength * learning_rate)

    return stepped


def step(factory: Callable[..., optax.GradientTransformation]) -> Callable[..., Any]:
    """One step: from parameters, updates and the factory's arguments to parameters."""

    def stepped(params: Any, updates: Any, **options: Any) -> Any:
        transformation = factory(**options)
        state = transformation.init(params)
        updates, _ = transformation.update(updates, state, params)
        return optax.apply_updates(params, updates)

    return stepped


# Spectra, by the FFT and the SVD.


def _blocks(kernel: np.ndarray, shape: tuple[int, int], strides: int = 1) -> np.ndarray:
    """(h / s, w / s, in * s * s, out): sum_t K_t exp(2 pi i q . t / n), aliases too."""
    kernel = np.asarray(kernel, np.float64)
    inputs, outputs = kernel.shape[2:]
    padded = np.zeros((*shape, inputs, outputs))
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    transform = np.fft.fft2(padded, axes=(0, 1)).conj() / strides
    height, width = shape[0] // strides, shape[1] // strides
    folded = transform.reshape(strides, height, strides, width, inputs, outputs)
    return folded.transpose(1, 3, 0, 2, 4, 5).reshape(height, width, -1, outputs)


def _values(kernel, input_shape, strides=1, method="svd"):
    return np.linalg.svd(_blocks(kernel, input_shape, strides), compute_uv=False)


def _response(kernel, input_shape, strides=1):
    return np.swapaxes(_blocks(kernel, input_shape, strides), -1, -2)


def _norm(kernel, input_shape):
    return _values(kernel, input_shape).max()


def _padded_norm(kernel, input_shape):
    extent = np.subtract(kernel.shape[:2], 1)
    return _norm(kernel, tuple(np.add(input_shape, extent)))


def _inf_norm(kernel):
    return np.abs(np.asarray(kernel, np.float64)).sum(axis=(0, 1, 2)).max()


def _rescaled(kernel, input_shape, max_norm):
    return kernel / max(1, _norm(kernel, input_shape) / max_norm)


def _clipped(kernel, input_shape, max_norm, method="polar", rescale=False):
    kernel = np.asarray(kernel, np.float64)
    left, values, right = np.linalg.svd(
        _blocks(kernel, input_shape), full_matrices=False
    )
    _far(values - max_norm, 1e-7)
    excess = (left * np.maximum(values - max_norm, 0)[..., None, :]) @ right
    taps = np.fft.fft2(excess, axes=(0, 1)).real / np.prod(input_shape)
    kernel = kernel - taps[: kernel.shape[0], : kernel.shape[1]]
    return _rescaled(kernel, input_shape, max_norm) if rescale else kernel


def _constrained_by(constrain: Callable[..., np.ndarray]) -> Callable[..., Any]:
    """The parameters, each kernel constrained at the size that it is used at."""

    def constrained(params, max_norm, input_shapes, **options):
        return {
            module: {
                name: constrain(leaf, input_shapes[f"{module}/{name}"], max_norm)
                if leaf.ndim == 4
                else leaf
                for name, leaf in _tree(np.positive, leaves).items()
            }
            for module, leaves in params.items()
        }

    return constrained


def _constraining_step(constrain: Callable[..., np.ndarray]) -> Callable[..., Any]:
    def stepped(params, updates, max_norm, input_shapes, **options):
        moved = _tree(np.add, params, updates)
        return _constrained_by(constrain)(moved, max_norm, input_shapes)

    return stepped


# Convolutions.


def _channels_first(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves images NCHW, mapped over the batch in a loop."""
    return jax.lax.map(
        lambda image: jax.lax.conv(image[None], kernel, (1, 1), "VALID")[0], x
    )


def canonical(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Calls what `canonical_convolutions` makes of a convolution in a loop."""
    return absum_jax.canonical_convolutions(_channels_first)(x, kernel)


def _convolved(x, kernel):
    windows = np.lib.stride_tricks.sliding_window_view(
        np.asarray(x, np.float64), kernel.shape[2:], (2, 3)
    )
    return np.einsum("ncpqij,ocij->nopq", windows, np.asarray(kernel, np.float64))


# Functions of concrete values.


def _interval(share, images, z=1.96):
    """The two p whose distance from the share is z standard deviations of it."""
    square = z * z / images
    ends = np.roots([1 + square, -2 * share - square, share * share])
    return tuple(sorted(ends))


def _normalized_log(spectrum):
    logarithm = np.log10(np.asarray(spectrum, np.float64))
    logarithm = logarithm - logarithm.min()
    return logarithm / logarithm.max()


def convolve(params: Any, x: jax.Array) -> jax.Array:
    """A network of one strided convolution."""
    return jax.lax.conv_general_dilated(
        x, params["conv1"]["kernel"], (2, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _conv_uses(fn, params, x):
    height, width = x.shape[1:3]
    taps = params["conv1"]["kernel"].shape[:2]
    use = absum_jax.ConvUse(
        input_shape=(height, width),
        output_shape=(-(-height // 2), width),
        strides=(2, 1),
        padding=(((taps[0] - 1 - (height + 1) % 2) // 2, 1), (1, 1)),
        kernel_dilation=(1, 1),
        groups=1,
        kernel_axes=(0, 1, 2, 3),
    )
    return {"conv1/kernel": (use,)}


def _marks(params):
    return {
        module: {name: leaf.ndim == 4 for name, leaf in leaves.items()}
        for module, leaves in params.items()
    }


# The table.


def _coarse(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Multiples of 1/64: sums are exact in float32, and thresholds of 0.1 not met."""
    return np.float32(rng.integers(-100, 101, shape) / 64)


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def _two_kernels(
    make: Callable[..., np.ndarray], rng: np.random.Generator, channels: tuple[int, int]
) -> dict[str, Any]:
    return {
        "conv1": {"bias": make(rng, channels[1]), "kernel": make(rng, 3, 3, *channels)},
        "conv2": {"kernel": make(rng, 3, 3, *channels)},
    }


def _array_calls(sizes: _Sizes, seed: int) -> list[Call]:
    def rng() -> np.random.Generator:
        return np.random.default_rng(seed)

    model = _model(rng(), sizes)
    images, shape = model["x"], model["x"].shape[1:3]
    key = jax.random.key(1)
    some = np.array([[0, 0], [1, 2], [2, 0], [3, 3]], np.int32)
    reach = 1 / float(np.sqrt(np.prod(shape)))
    pgd = {"key": key, "eps": [0.3 * reach, 0.6 * reach], "step_size": 0.25 * reach}
    pgd |= {"steps": 3, "init_radius": 0.0}
    evaluated = {"traced": ("logits_fn", "x", "y")}
    kernel = {"traced": ("kernel",), "differentiable": ("kernel",)}
    params = {"traced": ("params",), "differentiable": ("params",)}
    update = {"traced": ("params", "updates"), "differentiable": ("params", "updates")}
    pixels = {"traced": ("x",), "differentiable": ("x",)}

    corruption = {
        "x": images, "severity": 1, "key": key, "benchmark": "cifar10-c",
    }  # fmt: skip

    filters = _coarse(rng(), 3, 3, *sizes.filters)
    moves = {
        "params": _two_kernels(_coarse, rng(), sizes.filters),
        "updates": _two_kernels(
            _coarse, np.random.default_rng(seed + 10), sizes.filters
        ),
    }
    rates = {"strength": 1.0, "learning_rate": 0.1}
    used, wide = (
        {"kernel": _normal(rng(), 3, 3, *channels), "input_shape": input_shape}
        for input_shape, channels in (sizes.many, sizes.wide)
    )
    above = 0.99 * float(np.median(_values(**wide)))
    layers = {
        "params": _two_kernels(_normal, rng(), sizes.wide[1]),
        "max_norm": above,
        "input_shapes": {f"conv{i}/kernel": sizes.wide[0] for i in (1, 2)},
    }
    first = {
        "params": layers["params"],
        "updates": _tree(np.negative, layers["params"]),
    }
    first["updates"] = jax.tree.map(lambda u: np.float32(u / 16), first["updates"])
    each = (
        first
        | {key: layers[key] for key in ("max_norm", "input_shapes")}
        | {"every": 1}
    )

    pattern = {"shape": sizes.grid, "eps": np.float32(0.3 + 0.1 * seed)}

    losses = {
        "logits": _normal(rng(), sizes.rows, 10),
        "y": rng().integers(0, 10, sizes.rows, np.int32),
    }

    a = absum_jax
    return [
        Call("absum", step(a.absum), moves | rates, _stepped_by(_prox_absum), **update),
        Call("l1", step(a.l1), moves | rates, _stepped_by(_prox_l1), **update),
        Call(
            "proximal", step(a.proximal),
            moves | rates | {"prox": a.prox_l1, "mask": a.conv_kernels},
            _stepped_by(_prox_l1), **update,
        ),
        Call(
            "apply_proximal_updates", a.apply_proximal_updates,
            moves | {"prox": a.prox_absum, "threshold": 0.1},
            lambda prox, **arguments: _moved_by(_prox_absum)(**arguments), **update,
        ),
        Call("prox_absum", a.prox_absum, {"kernel": filters, "threshold": 0.1},
             _prox_absum, **kernel),
        Call("prox_l1", a.prox_l1, {"kernel": filters, "threshold": 0.1},
             _prox_l1, **kernel),
        Call("absum_penalty", a.absum_penalty, {"kernel": filters}, _penalty, **kernel),

        Call("conv_singular_values", a.conv_singular_values, used, _values, **kernel),
        Call("conv_singular_values", a.conv_singular_values, used | {"method": "gram"},
             _values, **kernel, case="gram"),
        Call("conv_frequency_response", a.conv_frequency_response, used, _response,
             **kernel),
        Call("conv_frequency_response", a.conv_frequency_response,
             used | {"strides": 2}, _response, **kernel, case="strided"),
        Call("conv_spectral_norm", a.conv_spectral_norm, used, _norm, **kernel),
        Call("conv_zero_padded_norm_bound", a.conv_zero_padded_norm_bound, used,
             _padded_norm, **kernel),
        Call("conv_induced_inf_norm", a.conv_induced_inf_norm, {"kernel": filters},
             _inf_norm, **kernel),
        Call("clip_conv_spectral_norm", a.clip_conv_spectral_norm,
             wide | {"max_norm": above, "method": "polar"}, _clipped, **kernel),
        Call("clip_conv_spectral_norm", a.clip_conv_spectral_norm,
             used | {"max_norm": 5.0, "method": "eigh"},
             _clipped, **kernel, case="eigh"),
        Call("spectral_norm_constraint", step(a.spectral_norm_constraint),
             each | {"method": "eigh"},
             _constraining_step(_clipped), **update),
        Call("apply_spectral_norm_constraint", a.apply_spectral_norm_constraint,
             layers | {"method": "eigh"}, _constrained_by(_clipped), **params),
        Call("spectral_normalization", step(a.spectral_normalization), each,
             _constraining_step(_rescaled), **update),
        Call("apply_spectral_normalization", a.apply_spectral_normalization, layers,
             _constrained_by(_rescaled), **params),

        Call("canonical_convolutions", canonical,
             {"x": images.transpose(0, 3, 1, 2),
              "kernel": _normal(rng(), 8, images.shape[-1], 3, 3)},
             _convolved, traced=("x", "kernel"), differentiable=("x", "kernel")),
        Call("low_pass", a.low_pass, {"x": images, "radius": 1.7},
             lambda x, radius: _filtered(x, radius, True), **pixels),
        Call("high_pass", a.high_pass, {"x": images, "radius": 1.7},
             lambda x, radius: _filtered(x, radius, False), **pixels),
        Call("band_pass", a.band_pass, {"x": images, "low": 0.7, "high": 1.7},
             lambda x, low, high: _filtered(x, high, True, low), **pixels),
        Call("band_stop", a.band_stop, {"x": images, "low": 0.7, "high": 1.7},
             lambda x, low, high: _filtered(x, high, False, low), **pixels),
        Call("corrupt", a.corrupt, corruption | {"kind": "gaussian_noise"}, _noisy,
             **pixels),
        Call("corrupt", a.corrupt,
             corruption | {"kind": "gaussian_blur", "severity": 2,
                           "benchmark": "mnist-c"},
             _blurred, **pixels, case="blur"),
        Call("power_spectrum", a.power_spectrum,
             {"perturbation": _normal(rng(), *images.shape)}, _power,
             traced=("perturbation",), differentiable=("perturbation",)),
        Call("radial_mean", a.radial_mean, {"grid": _normal(rng(), *sizes.grid)},
             _radial_mean, traced=("grid",), differentiable=("grid",)),
        Call("single_fourier_perturbation", a.single_fourier_perturbation,
             pattern | {"l": 1, "m": 2}, _perturbation, traced=("eps",)),
        Call("single_fourier_perturbation", a.single_fourier_perturbation,
             pattern | {"l": 0, "m": 0}, _perturbation, traced=("eps",),
             differentiable=("eps",), case="constant"),
        Call("single_fourier_attack", a.single_fourier_attack,
             {"x": images, "l": 1, "m": 2, "eps": 0.31}, _attacked, **pixels),
        *(
            Call(name, getattr(a, name), losses | more, reference,
                 traced=("logits", "y"), differentiable=("logits",))
            for name, reference, more in (
                ("margin_loss", _margin, {}),
                ("dlr_loss", _dlr, {}),
                ("targeted_dlr_loss", _targeted_dlr,
                 {"target": rng().integers(0, 10, sizes.rows, np.int32)}),
            )
        ),
        Call("summarize_frequencies", a.summarize_frequencies,
             {"accuracy": np.float32(rng().permutation(sizes.rows) / sizes.rows),
              "frequencies": rng().integers(0, 99, (sizes.rows, 2), np.int32)},
             _summary, traced=("accuracy",), differentiable=("accuracy",)),

        Call("accuracy", a.accuracy, model, _share_correct, **evaluated),
        Call("single_fourier_accuracy", a.single_fourier_accuracy,
             model | {"eps": 0.4, "frequencies": some}, _single_fourier_accuracy,
             **evaluated),
        Call("fourier_noise_accuracy", a.fourier_noise_accuracy,
             model | {"norm": 0.3 / reach, "key": key, "frequencies": some},
             _noise_accuracy, **evaluated),
        Call("low_pass_accuracy", a.low_pass_accuracy, model | {"radius": [0.5, 1.7]},
             _passed(True), **evaluated),
        Call("high_pass_accuracy", a.high_pass_accuracy, model | {"radius": [0.5, 1.7]},
             _passed(False), **evaluated),
        Call("corruption_accuracy", a.corruption_accuracy,
             model | {"kind": "contrast", "severity": [1, 4], "key": key},
             _corruption_accuracy, **evaluated),
        Call("fourier_sensitivity", a.fourier_sensitivity, model, _sensitivity,
             **evaluated),
        Call("pgd_accuracy", a.pgd_accuracy, model | pgd, _pgd_accuracy, **evaluated),
        Call("pgd", a.pgd, model | pgd | {"eps": 0.6 * reach}, _pgd, **evaluated),
        Call("fgsm", a.fgsm, model | {"eps": 0.3 * reach}, _fgsm, **evaluated),
        Call("apgd", a.apgd,
             model | {"key": key, "eps": 0.6 * reach, "steps": 3}, _apgd, **evaluated),
        Call("square", a.square,
             model | {"key": key, "eps": 0.6 * reach, "queries": 4}, _searched,
             **evaluated),
        Call("auto_attack", a.auto_attack,
             model | {"key": key, "eps": [0.3 * reach, 0.6 * reach],
                      "components": ("apgd-ce",), "steps": 3},
             _auto_attacked, **evaluated),
    ]  # fmt: skip


def _other_calls(sizes: _Sizes, seed: int) -> list[Call]:
    rng = np.random.default_rng(seed)
    model = _model(rng, sizes)
    grid = rng.uniform(size=sizes.grid)
    params = {
        "conv1": {"bias": _normal(rng, 2), "kernel": _normal(rng, 3, 3, 3, 2)},
        "dense": {"kernel": _normal(rng, 2, 4)},
    }
    row = absum_jax.ReportRow("clean", None, 0.5, 0.25, 0.75, 0.0, None)
    attacked = row._replace(attack="PGD", strength=0.1, measure="eps")
    report = {
        "images": 4,
        "rows": (
            row,
            attacked,
            attacked._replace(attack="low-pass", strength=1.0, measure="radius"),
        ),
        "grid": grid,
        "conditions": {"frequencies": grid.size},
    }
    pgd = {"key": jax.random.key(1), "eps": [0.05, 0.1], "step_size": 0.04, "steps": 3}
    passes = np.zeros((6, 4), np.int32)
    result = absum_jax.AutoAttackResult(
        eps=np.float32(0.1), images=model["x"], broken_by=np.arange(6) % 4,
        forward=passes, backward=passes, problems=Problems(0, 0, 0, 0, 0),
        components=np.full(4, True), steps=np.int32(100), queries=np.int32(5000),
    )  # fmt: skip
    (use,) = _conv_uses(None, params, model["x"])["conv1/kernel"]
    a = absum_jax
    return [
        Call("robustness_report", report_accuracies,
             model | pgd | {"single_fourier_eps": 0.4, "init_radius": 0.0,
                            "radii": [0.5, 1.7],
                            "frequencies": np.array([[0, 0], [1, 2]])},
             _report, "host"),
        Call("wilson_interval", a.wilson_interval, {"share": 0.9, "images": 100},
             _interval, "host"),
        Call("frequency_radius", a.frequency_radius, {"shape": sizes.grid}, _radius,
             "host"),
        Call("normalized_log", a.normalized_log, {"spectrum": grid}, _normalized_log,
             "host"),
        Call("conv_input_shapes", a.conv_input_shapes,
             {"fn": convolve, "params": params, "x": model["x"]}, _conv_uses, "host"),
        Call("conv_kernels", a.conv_kernels, {"params": params}, _marks, "host"),
        *(
            Call(name, getattr(a, name),
                 {values: grid, "ax": matplotlib.figure.Figure().subplots()},
                 kind="picture")
            for name, values in (
                ("plot_frequency_heatmap", "grid"),
                ("plot_power_spectrum", "spectrum"),
                ("plot_radial_mean", "grid"),
            )
        ),
        Call("plot_report", a.plot_report, {"report": a.RobustnessReport(**report)},
             kind="picture"),
        *(
            Call(kind.__name__, kind, fields, kind="class")
            for kind, fields in (
                (a.AttackAccuracy,
                 {"strength": 0.1, "accuracy": 0.5, "nan_logits": 0.0}),
                (a.AutoAttackResult, result._asdict()),
                (a.ConvUse, vars(use)),
                (a.ProximalState, {"count": np.int32(3)}),
                (a.ReportRow, row._asdict()),
                (a.RobustnessReport, report),
                (a.SingleFourierAccuracy,
                 {"accuracy": grid, "mean": grid.mean(), "min": grid.min(),
                  "max": grid.max(), "worst": np.array([1, 2])}),
                (a.SpectralNormState, {"count": np.int32(3)}),
            )
        ),
    ]  # fmt: skip


def calls(size: str, seed: int = 0) -> tuple[Call, ...]:
    """Every public name with valid arguments, "small" or "large"."""
    sizes = _SIZES[size]
    return (*_array_calls(sizes, seed), *_other_calls(sizes, seed))
