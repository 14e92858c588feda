"""Attacks in loops against the same passes outside of them, for two ResNet-18s.

One is the flax nnx network of the experiments, the other the same in plain jax with
images NCHW and kernels OIHW, as equinox networks and those ported from PyTorch have.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import absum_jax
from absum_jax.kernels import leaf_name
from benchmarks import torch_peer
from benchmarks.timing import median_seconds
from experiments.data import Split, load
from experiments.models import variables_of
from experiments.models.resnet import ResNet18

_BATCH, _STEPS = 64, 10
_EPS, _STEP_SIZE = 8 / 255, 2 / 255
_FREQUENCIES = np.array([(0, 1), (3, 16), (16, 16), (31, 2)])
_COMPARED = 1000  # images
NETWORKS = ("flax nnx, NHWC", "plain jax, NCHW")


class _Network(NamedTuple):
    """A network with its weights, and images with their labels."""

    logits_fn: Any
    x: jax.Array
    y: jax.Array


def _channels_first(weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """Returns logits of ResNet-18, for images NHWC, computed as NCHW throughout."""

    def convolved(name: str, x: jax.Array, stride: int = 1) -> jax.Array:
        kernel = weights[f"{name}/kernel"].transpose(3, 2, 0, 1)
        margin = kernel.shape[-1] // 2
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(margin, margin)] * 2
        )

    def normalized(name: str, x: jax.Array) -> jax.Array:
        mean, var, scale, bias = (
            weights[f"{name}/{part}"][:, None, None]
            for part in ("mean", "var", "scale", "bias")
        )
        return (x - mean) * (jax.lax.rsqrt(var + 1e-5) * scale) + bias

    x = x.transpose(0, 3, 1, 2)
    x = jax.nn.relu(normalized("stem_norm", convolved("stem", x)))
    for i in range(8):
        block, stride = f"blocks/{i}", 2 if i in (2, 4, 6) else 1
        out = convolved(f"{block}/conv1", x, stride)
        out = jax.nn.relu(normalized(f"{block}/norm1", out))
        out = normalized(f"{block}/norm2", convolved(f"{block}/conv2", out))
        if f"{block}/shortcut/kernel" in weights:
            x = convolved(f"{block}/shortcut", x, stride)
            x = normalized(f"{block}/shortcut_norm", x)
        x = jax.nn.relu(out + x)
    return x.mean((2, 3)) @ weights["dense/kernel"] + weights["dense/bias"]


@functools.cache
def networks() -> dict[str, _Network]:
    """The networks with one set of weights, and 1,000 real digits.

    Convolutions are those of initialization, which take as long as trained ones; the
    dense layer is fitted to the digits by least squares.
    """
    digits = load("mnist5k").test
    assert isinstance(digits, Split)
    images = digits.images[:_COMPARED] / np.float32(255)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    x, y = jnp.asarray(np.repeat(padded, 3, axis=-1)), jnp.asarray(digits.labels)
    model = ResNet18(mean=(0.0,) * 3, std=(1.0,) * 3, rngs=nnx.Rngs(0))
    model.eval()
    weights = {
        leaf_name(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(model))
    }
    features = _features(weights, x)
    mean, std = features.mean(axis=0), features.std(axis=0)
    scaled = np.concatenate([(features - mean) / std, np.ones((len(x), 1))], axis=1)
    targets = 10 * np.eye(10)[digits.labels]
    ridge = scaled.T @ scaled + 10 * np.eye(scaled.shape[1])
    *kernel, bias = np.linalg.solve(ridge, scaled.T @ targets)
    dense = np.asarray(kernel) / std[:, None]
    weights["dense/kernel"] = jnp.asarray(dense, jnp.float32)
    weights["dense/bias"] = jnp.asarray(bias - mean @ dense, jnp.float32)
    assert model.dense.bias is not None
    model.dense.kernel[...] = weights["dense/kernel"]
    model.dense.bias[...] = weights["dense/bias"]
    plain = jax.tree_util.Partial(_channels_first, weights)
    return {
        name: _Network(logits_fn, x, y)
        for name, logits_fn in zip(NETWORKS, (model, plain), strict=True)
    }


def _features(weights: Mapping[str, jax.Array], x: jax.Array) -> np.ndarray:
    """What the dense layer sees, in float64."""
    channels = weights["dense/kernel"].shape[0]
    seen = {
        **weights,
        "dense/kernel": jnp.eye(channels),
        "dense/bias": jnp.zeros(channels),
    }
    forward = jax.jit(_channels_first)
    parts = [forward(seen, part) for part in np.split(np.asarray(x), len(x) // 100)]
    return np.concatenate(parts).astype(np.float64)


@jax.jit
def input_gradient(logits_fn: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the gradient of the cross-entropy with respect to the images."""

    def loss(x: jax.Array) -> jax.Array:
        logits = logits_fn(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).sum()

    return jax.grad(loss)(x)


def _rows(
    benchmark: str, seconds: Mapping[str, float], images: Mapping[str, int], of: str
) -> list[dict[str, Any]]:
    rates = {name: images[name] / value for name, value in seconds.items()}
    return [
        {
            "benchmark": benchmark,
            "case": name,
            "images_per_s": rate,
            "ratio": rate / rates[of],
            "ratio_to": of,
        }
        for name, rate in rates.items()
    ]


def pgd_speed(name: str) -> list[dict[str, Any]]:
    """Images a second of PGD in a loop, and of as many gradients outside of one."""
    network = networks()[name]
    x, y = network.x[:_BATCH], network.y[:_BATCH]

    def ours() -> jax.Array:
        return absum_jax.pgd(
            network.logits_fn, x, y, key=jax.random.key(0), eps=_EPS,
            step_size=_STEP_SIZE, steps=_STEPS,
        )  # fmt: skip

    def gradients() -> list[jax.Array]:
        return [input_gradient(network.logits_fn, x, y) for _ in range(_STEPS)]

    cases: dict[str, Callable[[], Any]] = {
        "pgd": ours,
        f"{_STEPS} jitted gradients": gradients,
    }
    if torch_peer.has_foolbox():
        cases["foolbox, PyTorch"] = torch_peer.resnet_pgd(
            variables_of(networks()[NETWORKS[0]].logits_fn),
            np.asarray(x),
            np.asarray(y),
            _EPS,
            _STEP_SIZE,
            _STEPS,
            _BATCH,
        )
    seconds = median_seconds(cases, rounds=5)
    return _rows(
        f"PGD, {_STEPS} steps, ResNet-18 ({name}), batch {_BATCH}",
        seconds, dict.fromkeys(seconds, _BATCH), f"{_STEPS} jitted gradients",
    )  # fmt: skip


def grid_speed(name: str) -> list[dict[str, Any]]:
    """Images a second of the Single Fourier Attack, and of a forward pass alone."""
    network = networks()[name]
    x, y = network.x[:_BATCH], network.y[:_BATCH]
    forward = jax.jit(lambda f, x: f(x))

    def ours() -> jax.Array:
        return absum_jax.single_fourier_accuracy(
            network.logits_fn, x, y, _EPS, frequencies=_FREQUENCIES, batch_size=_BATCH
        ).accuracy

    cases: dict[str, Callable[[], Any]] = {
        "single_fourier_accuracy": ours,
        "jitted forward pass": lambda: forward(network.logits_fn, x),
    }
    seconds = median_seconds(cases, rounds=5)
    images = {
        "single_fourier_accuracy": len(_FREQUENCIES) * _BATCH,
        "jitted forward pass": _BATCH,
    }
    return _rows(
        f"Single Fourier Attack, ResNet-18 ({name}), batch {_BATCH}",
        seconds, images, "jitted forward pass",
    )  # fmt: skip


def agreement(name: str) -> list[dict[str, Any]]:
    """Gradients and accuracies in a loop, and outside of one."""
    network = networks()[name]
    x, y = network.x[:_BATCH], network.y[:_BATCH]
    plain = input_gradient(network.logits_fn, x, y)

    @jax.jit
    @absum_jax.canonical_convolutions
    def in_loop(logits_fn: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.lax.map(
            lambda pair: input_gradient(logits_fn, *pair), (x[None], y[None])
        )

    error = jnp.abs(in_loop(network.logits_fn, x, y)[0] - plain).max()
    attack: dict[str, Any] = {"eps": _EPS, "step_size": _EPS, "steps": 1}
    accuracy = absum_jax.pgd_accuracy(
        network.logits_fn, network.x, network.y, key=jax.random.key(0),
        init_radius=0.0, batch_size=100, **attack,
    ).accuracy  # fmt: skip
    correct = 0
    for start in range(0, _COMPARED, 100):
        part = slice(start, start + 100)
        x, y = network.x[part], network.y[part]
        step = _EPS * jnp.sign(input_gradient(network.logits_fn, x, y))
        logits = network.logits_fn(jnp.clip(x + step, 0, 1))
        correct += int((logits.argmax(-1) == y).sum())
    outside = correct / _COMPARED
    return [
        {
            "benchmark": f"in loops and outside, ResNet-18 ({name})",
            "case": case,
            "percent": 100 * value,
            "ratio": value / reference,
            "ratio_to": "outside",
        }
        for case, value, reference in (
            (
                "largest difference of a gradient",
                float(error / jnp.abs(plain).max()),
                1,
            ),
            (f"FGSM on {_COMPARED} images, in a loop", float(accuracy), outside),
            (f"FGSM on {_COMPARED} images, outside", outside, outside),
        )
    ]


BENCHMARKS: tuple[Callable[[], list[dict[str, Any]]], ...] = tuple(
    functools.partial(table, name)
    for name in NETWORKS
    for table in (pgd_speed, grid_speed, agreement)
)
