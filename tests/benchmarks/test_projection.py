"""The projection of training on ImageNet, against steps that are counted by hand."""

import math

import pytest

from benchmarks.scaling import projection
from benchmarks.scaling.exchanges import Amount, Step
from benchmarks.scaling.projection import Assumptions
from experiments.jobs.errors import UsageError

_ASSUMED = Assumptions(
    tflops=10.0, host_gigabytes=100.0, network_gigabytes=10.0, hop_microseconds=2.0,
    accelerators_per_host=4, cores_per_host=10, images_per_core=100.0,
)  # fmt: skip
_STEP = Step(Amount(5, 1000), Amount(1, 4_000_000))


def _link_bytes(accelerators, size):
    """The most that a link carries while arrays are summed around a ring.

    Every part of the array goes round twice: to be summed, and to be told.
    """
    carried = [0.0] * accelerators
    for part in range(accelerators):
        for hop in range(2 * (accelerators - 1)):
            carried[(part + hop) % accelerators] += size / accelerators
    return max(carried)


@pytest.mark.parametrize("accelerators", [1, 2, 3, 4])
def test_ring_within_a_host(accelerators):
    seconds = projection.ring_seconds(accelerators, 6e9, _ASSUMED)
    assert seconds == pytest.approx(_link_bytes(accelerators, 6e9) / 100e9)


@pytest.mark.parametrize("accelerators", [5, 8, 64])
def test_ring_between_hosts_is_as_slow_as_the_network(accelerators):
    seconds = projection.ring_seconds(accelerators, 6e9, _ASSUMED)
    assert seconds == pytest.approx(_link_bytes(accelerators, 6e9) / 10e9)


def _rounds(accelerators):
    """How often pairs meet until one has heard of all."""
    heard, rounds = 1, 0
    while heard < accelerators:
        heard, rounds = 2 * heard, rounds + 1
    return rounds


@pytest.mark.parametrize("accelerators", [1, 2, 5, 8, 512])
def test_small_sums_take_as_many_hops_as_a_tree_is_deep(accelerators):
    seconds = projection.tree_seconds(accelerators, _ASSUMED)
    assert seconds == pytest.approx(2 * _rounds(accelerators) * 2e-6)


def test_a_step():
    step = projection.project(8, 80, _STEP, _ASSUMED)
    # Ten images of 3 x 3.63e9 operations at 1e13 a second.
    assert step.compute == pytest.approx(10.89e-3)
    # Five exchanges, each three hops there and back.
    assert step.layers == pytest.approx(5 * 6 * 2e-6)
    # 4 MB x 2 x 7/8 at 10 GB/s.
    assert step.gradients == pytest.approx(0.7e-3)
    assert step.hosts == 2
    # 80 images by 2 x 10 cores of 100 images a second.
    assert step.reading == pytest.approx(40e-3)
    assert step.step == pytest.approx(10.89e-3 + 0.06e-3 + 0.7e-3)
    # Backward takes 7.26 ms, in which 0.7 ms vanish.
    assert step.overlapped == pytest.approx(10.89e-3 + 0.06e-3)
    assert step.efficiency == pytest.approx(10.89 / 11.65)
    assert step.fed == step.reading
    assert step.steps == 16_014


def test_gradients_that_take_longer_than_the_backward_pass_are_waited_for():
    slow = Step(Amount(0, 0), Amount(1, 400_000_000))
    step = projection.project(8, 80, slow, _ASSUMED)
    assert step.gradients == pytest.approx(70e-3)
    assert step.overlapped == pytest.approx(10.89e-3 / 3 + 70e-3)


def test_alone_nothing_is_exchanged():
    step = projection.project(1, 32, _STEP, _ASSUMED)
    assert step.efficiency == 1
    assert step.overlapped == pytest.approx(step.compute)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="512 accelerators, got 256"):
        projection.project(512, 256, _STEP, _ASSUMED)


def test_attacks():
    # 50,000 images, 1,024 frequencies, 3.63e9 operations, 4e13 a second.
    seconds = projection.single_fourier_seconds(4, 1024, _ASSUMED)
    assert seconds == pytest.approx(50_000 * 1024 * 3.63e9 / 4e13)
    # Seven steps of a forward and a backward pass, and a forward pass.
    seconds = projection.pgd_seconds(4, 7, _ASSUMED)
    assert seconds == pytest.approx(50_000 * 15 * 3.63e9 / 4e13)


def test_clips():
    # 240 epochs of 5,004 steps.
    assert projection.clips() == sum(
        1 for i in range(1, 240 * (1_281_167 // 256) + 1) if i % 100 == 0
    )
    step = projection.project(8, 80, _STEP, _ASSUMED)
    # As long as the steps between two clips.
    assert projection.clip_share(step, 100 * step.step) == pytest.approx(0.5)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_assumptions_are_positive(value):
    with pytest.raises(UsageError, match="--network-gigabytes must be positive"):
        Assumptions(network_gigabytes=value)
