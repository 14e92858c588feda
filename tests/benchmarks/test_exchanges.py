"""What devices exchange, counted in programs whose exchanges are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from benchmarks.compiled import exchanges, programs
from benchmarks.compiled.exchanges import Array, Exchange
from experiments.data import DATASETS
from experiments.training import devices

_DEVICES = 4
_DIVIDED = PartitionSpec("data")


@pytest.fixture(autouse=True)
def _all_devices(monkeypatch):
    monkeypatch.setattr(devices, "available", jax.devices)
    assert len(jax.devices()) == _DEVICES


def _exchanges(work, rows, columns, dtype=jnp.float32, out=_DIVIDED):
    """Those of some work on the part (rows, columns) that each device has."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    divided = jax.shard_map(
        work, mesh=mesh, in_specs=_DIVIDED, out_specs=out, check_vma=False
    )
    x = jax.ShapeDtypeStruct((_DEVICES * rows, columns), dtype)
    return exchanges.exchanges_of(jax.jit(divided).lower(x).compile().as_text())


def _ring(x):
    around = [(i, (i + 1) % _DEVICES) for i in range(_DEVICES)]
    return jax.lax.ppermute(x, "data", around)


@pytest.mark.parametrize(
    ("kind", "work", "out"),
    [
        ("all-reduce", lambda x: jax.lax.psum(x, "data"), PartitionSpec()),
        ("all-reduce", lambda x: jax.lax.pmax(x, "data"), PartitionSpec()),
        ("all-gather", lambda x: jax.lax.all_gather(x, "data"), PartitionSpec()),
        (
            "reduce-scatter",
            lambda x: jax.lax.psum_scatter(x, "data", tiled=True),
            _DIVIDED,
        ),
        ("collective-permute", _ring, _DIVIDED),
    ],
)
def test_each_kind_counts_the_operand_of_a_device(kind, work, out):
    [exchange] = _exchanges(work, 8, 6, out=out)
    assert exchange.kind == kind
    # XLA may leave out or add axes of size one.
    [array] = exchange.operands
    assert sorted(size for size in array.shape if size > 1) == [6, 8]
    assert array.dtype == "f32"
    assert exchange.bytes == 8 * 6 * 4


@pytest.mark.parametrize(
    ("dtype", "width"), [(jnp.int8, 1), (jnp.int32, 4), (jnp.uint8, 1)]
)
def test_width_of_dtypes(dtype, width):
    [exchange] = _exchanges(_ring, 8, 6, dtype)
    assert exchange.bytes == 8 * 6 * width


def test_a_program_without_exchanges_has_none():
    assert _exchanges(lambda x: 2 * x, 8, 6) == []


def test_operands_of_one_exchange_are_summed():
    # As XLA writes it: several operands, their types where they are made, layouts of a
    # TPU, an exchange in two halves, a scalar, bfloat16 and a predicate.
    hlo = """
ENTRY %main (p0: f32[3,5]) -> f32[3,5] {
  %p0 = f32[3,5]{1,0:T(8,128)} parameter(0)
  %scalar.1 = bf16[] constant(0)
  %flags = pred[7]{0} constant({...})
  %sum.1 = (f32[3,5]{1,0}, /*index=1*/bf16[]) all-reduce(%p0, %scalar.1), channel_id=1
  %begun = ((pred[7]{0}), pred[28]{0}) all-gather-start(%flags), dimensions={0}
  %ended = pred[28]{0} all-gather-done(%begun)
  ROOT %out = f32[3,5]{1,0} get-tuple-element(%sum.1), index=0
}
"""
    assert exchanges.exchanges_of(hlo) == [
        Exchange(
            "all-reduce",
            (Array("f32", (3, 5), 3 * 5 * 4), Array("bf16", (), 2)),
        ),
        Exchange("all-gather", (Array("pred", (7,), 7),)),
    ]


@pytest.fixture
def small_imagenet(monkeypatch):
    """ImageNet of 32 x 32: what is exchanged does not depend on the size of images."""
    info = dataclasses.replace(DATASETS["imagenet2012"], image_shape=(32, 32, 3))
    monkeypatch.setitem(programs.DATASETS, "imagenet2012", info)
    return info.name


def _sizes(network, dataset):
    """The numbers of parameters, and of channels of normalized layers."""
    classifier = programs.classifier_of(network, dataset)
    params = jax.eval_shape(classifier.init, jax.random.key(0)).params
    leaves = jax.tree_util.tree_leaves_with_path(params)
    scales = [leaf.size for path, leaf in leaves if path[-1].key == "scale"]
    return sum(leaf.size for _, leaf in leaves), sum(scales)


def test_the_sizes_of_resnet18():
    sizes = _sizes("resnet18_224", "imagenet2012")
    assert sizes == (exchanges.PARAMETERS, exchanges.CHANNELS)


def _exchanged(program):
    return exchanges.exchanges_of(program.lower().compile().as_text())


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "waited_for"), [(1, True), (_DEVICES, False)])
def test_training_step_exchanges_what_the_formula_says(
    shallow, small_imagenet, groups, waited_for
):
    step = _exchanged(
        programs.training("resnet18_224", small_imagenet, batch=8, groups=groups)
    )
    assert sum(exchange.bytes for exchange in step) == exchanges.formula_bytes(
        *_sizes("resnet18_224", small_imagenet)
    )
    assert (not all(exchange.has_kernels for exchange in step)) == waited_for


def test_attacks_exchange_numbers_of_images_alone(shallow, small_imagenet):
    network = "resnet18_224", small_imagenet
    # Correct answers; the loop over frequencies goes round once for each.
    attacked = _exchanged(programs.single_fourier(*network, images=8))
    assert [exchange.bytes for exchange in attacked] == [4]
    # Correct answers, and NaNs; the numbers of passes are not used.
    attacked = _exchanged(programs.pgd("resnet18", "cifar10", images=8))
    assert sum(exchange.bytes for exchange in attacked) == 2 * 4
