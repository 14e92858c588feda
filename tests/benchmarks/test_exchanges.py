"""What devices exchange, counted in programs whose exchanges are known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from benchmarks.scaling import exchanges
from benchmarks.scaling.exchanges import Exchange
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
    [shape] = exchange.shapes
    assert sorted(size for size in shape if size > 1) == [6, 8]
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
        Exchange("all-reduce", ((3, 5), ()), 3 * 5 * 4 + 2),
        Exchange("all-gather", ((7,),), 7),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "waited_for"), [(1, True), (_DEVICES, False)])
def test_training_step_exchanges_what_the_formula_says(groups, waited_for):
    step = exchanges.step_of(exchanges.of_training(size=32, batch=8, groups=groups))
    assert step.bytes == exchanges.formula_bytes(
        exchanges.PARAMETERS, exchanges.CHANNELS
    )
    assert (step.layers.exchanges > 0) == waited_for


def test_attacks_exchange_numbers_of_images_alone():
    single_fourier, pgd = exchanges.of_attacks(size=32, batch=8)
    # Correct answers by one and by five logits; correct answers, NaNs, and passes
    # forward and backward.
    assert [sum(exchange.bytes for exchange in single_fourier)] == [2 * 4]
    assert [sum(exchange.bytes for exchange in pgd)] == [4 * 4]


def test_json_is_read_back():
    amounts = [exchanges.Amount(i, 10 * i) for i in range(6)]
    steps = [exchanges.Step(*amounts[:2]), exchanges.Step(*amounts[2:4])]
    expected = exchanges.Exchanged(*steps, *amounts[4:])
    assert exchanges.from_json(json.dumps(expected)) == expected
