"""Convolutions to trace, and the uses of their kernels."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax
from jax.extend import core

from absum_jax.tracing import ConvUse, conv_input_shapes

LAYOUTS = {3: ("NWC", "WIO"), 4: ("NHWC", "HWIO"), 5: ("NDHWC", "DHWIO")}


def abstract(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def conv(x, kernel, strides=1, padding="SAME", **options):
    """A convolution in flax's layout, of any rank."""
    data, weights = LAYOUTS[x.ndim]
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides,) * (x.ndim - 2),
        padding,
        dimension_numbers=(data, weights, data),
        **options,
    )


X = abstract(2, 8, 6, 4)
PARAMS = {"conv": {"kernel": abstract(3, 3, 4, 4), "bias": abstract(4)}}
# A 3x3 kernel, "SAME": one row and column of zeros on each side.
USE = ConvUse(
    input_shape=(8, 6),
    output_shape=(8, 6),
    strides=(1, 1),
    padding=((1, 1), (1, 1)),
    kernel_dilation=(1, 1),
    groups=1,
    kernel_axes=(0, 1, 2, 3),
)
but = dataclasses.replace
ONES = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))


def uses_of(kernel_fn, kernel=PARAMS["conv"]["kernel"], x=X):
    """The uses of a kernel in `kernel_fn(x, kernel)`."""
    params = {"conv": {"kernel": kernel}}
    found = conv_input_shapes(lambda p, x: kernel_fn(x, p["conv"]["kernel"]), params, x)
    assert list(found) == ["conv/kernel"]
    return found["conv/kernel"]


def call(model, x):
    return model(x)


TWO = {
    "conv": {"a": {"kernel": abstract(3, 3, 4, 4)}, "b": {"w": abstract(3, 3, 4, 4)}}
}


def with_program(fn, *args):
    """A primitive of somebody else's that runs `fn`, with its first two operands."""
    primitive = core.Primitive("somebody_elses")
    primitive.def_abstract_eval(lambda *avals, body: body.out_avals[0])
    return primitive.bind(*args, body=jax.make_jaxpr(fn)(*args[:2]))


class LinenBlock(linen.Module):
    """A step of linen.scan over shared parameters."""

    @linen.compact
    def __call__(self, x, _):
        return linen.Conv(4, (3, 3), padding="CIRCULAR")(x), None
