"""A small network with batch normalization that is trained as large ones are."""

import functools

import jax
import jax.numpy as jnp

import absum_jax
from experiments.models import Classifier, Variables


def _convolve(params, x, stride):
    return jax.lax.conv_general_dilated(
        x, params["conv"]["kernel"], (stride, stride), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _init(key, classes):
    conv, dense = jax.random.split(key)
    params = {
        "conv": {"kernel": 0.3 * jax.random.normal(conv, (3, 3, 3, 8))},
        "norm": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "dense": {"kernel": 0.3 * jax.random.normal(dense, (8, classes))},
    }
    return Variables(params, {"norm": {"mean": jnp.zeros(8), "var": jnp.ones(8)}})


def _forward(params, x, stride, statistics=None):
    """Logits, and the statistics of the batch where none are given."""
    x = _convolve(params, x - 0.5, stride)
    if statistics is None:
        statistics = {"mean": x.mean((0, 1, 2)), "var": x.var((0, 1, 2))}
    x = (x - statistics["mean"]) * jax.lax.rsqrt(statistics["var"] + 1e-5)
    x = jax.nn.relu(x * params["norm"]["scale"] + params["norm"]["bias"])
    return x.mean((1, 2)) @ params["dense"]["kernel"], statistics


def _train_logits(variables, x, key, stride):
    del key
    logits, batch = _forward(variables.params, x, stride)
    old = variables.batch_stats["norm"]
    return logits, {"norm": jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, old, batch)}


def _logits(variables, x, stride):
    return _forward(variables.params, x, stride, variables.batch_stats["norm"])[0]


def _uses(image_shape, stride):
    shapes = jax.eval_shape(lambda key: _init(key, 1), jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    convolve = functools.partial(_convolve, stride=stride)
    return absum_jax.conv_input_shapes(convolve, shapes.params, x)


@functools.lru_cache
def network(classes, stride=1):
    """The network of images of any size in color: one model at a time."""
    init = functools.partial(_init, classes=classes)
    functions = (
        functools.partial(function, stride=stride)
        for function in (_train_logits, _logits, _uses)
    )
    return Classifier(init, *functions, is_small=False)
