"""How models, batches and images are divided over devices."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli, train
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.jobs.errors import UsageError
from experiments.jobs.joining import HostOptions
from experiments.options import ModelOptions
from experiments.train import TrainOptions
from experiments.training import devices

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _four_devices(monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: jax.devices()[:4])


def _shape(placement):
    return tuple(placement.mesh.shape.values())


@pytest.mark.parametrize(
    ("models", "batch", "asked", "groups"),
    [
        (1, 16, None, [(1, 1, 4)]),
        (2, 16, None, [(1, 1, 2)] * 2),
        (3, 16, None, [(1, 1, 2)] * 2),
        (9, 16, None, [(1, 1, 1)] * 4),
        # Six images do not divide over four devices.
        (1, 6, None, [(1, 1, 2)] * 2),
        (9, 16, 4, [(1, 1, 4)]),
        (1, 16, 1, [(1, 1, 1)] * 4),
    ],
)
def test_groups_for_large_networks(models, batch, asked, groups):
    placements = devices.separate_placements(models, batch, asked)
    assert list(map(_shape, placements)) == groups
    used = [
        device for placement in placements for device in placement.mesh.devices.flat
    ]
    assert used == jax.devices()[:4]


@pytest.mark.parametrize(
    ("seeds", "settings", "asked", "shape", "padded"),
    [
        (1, 33, None, (1, 4, 1), 36),
        (1, 2, None, (1, 2, 1), 2),
        (1, 1, None, (1, 1, 1), 1),
        (1, 3, 2, (1, 2, 2), 4),
        (1, 3, 4, (1, 1, 4), 3),
        # Seeds are divided only if there are more devices than settings.
        (10, 33, None, (1, 4, 1), 36),
        (10, 4, None, (1, 4, 1), 4),
        (10, 2, None, (2, 2, 1), 2),
        (10, 1, None, (2, 1, 1), 1),
        (12, 1, None, (4, 1, 1), 1),
        (3, 1, None, (3, 1, 1), 1),
        (3, 2, None, (3, 1, 1), 2),
        (2, 1, 2, (2, 1, 2), 1),
    ],
)
def test_one_program_for_small_networks(seeds, settings, asked, shape, padded):
    placement = devices.joint_placement(seeds, settings, 64, asked)
    assert _shape(placement) == shape
    assert placement.shards == shape[:2]
    assert placement.padded(settings) == padded


@pytest.mark.parametrize("asked", [0, 3, 8])
def test_what_divides_neither_devices_nor_batch_is_refused(asked):
    with pytest.raises(UsageError, match=f"the 4 devices and the 16 .*, got {asked}"):
        devices.separate_placements(1, 16, asked)
    with pytest.raises(UsageError, match="--data-parallel"):
        devices.joint_placement(1, 1, 16, asked)


def test_padding_repeats_the_last():
    padded = devices.pad_settings({"a": jnp.arange(6).reshape(2, 3)}, 1, 5)["a"]
    np.testing.assert_array_equal(padded, [[0, 1, 2, 2, 2], [3, 4, 5, 5, 5]])


@pytest.mark.parametrize(
    ("examples", "is_cpu", "shared"),
    [(96, False, 4), (94, False, 2), (95, False, 1), (96, True, 1)],
)
def test_images_are_divided_for_evaluation(
    classifier, noise, examples, is_cpu, shared, monkeypatch
):
    monkeypatch.setattr(devices, "on_cpu", lambda: is_cpu)
    images = EvaluationSet(classifier, noise.take(np.arange(examples)), "test")
    x, y = images.arrays()
    assert len(x.sharding.device_set) == len(y.sharding.device_set) == shared
    np.testing.assert_allclose(x, images.split.images / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(y, images.split.labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "cores"),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5),
    ],
)
def test_each_core_is_a_device_unless_the_environment_says_otherwise(
    environment, expected
):
    program = """
import os, jax
from experiments.training import devices
devices.one_for_each_core()
print(jax.device_count(), len(os.sched_getaffinity(0)))
devices.one_for_each_core()  # too late, and harmless
"""
    clean = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS",)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean | environment, cwd=ROOT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    count, cores = map(int, done.stdout.split())
    assert count == (cores if expected == "cores" else expected)


@pytest.mark.parametrize(
    ("options", "calls"), [(["--dataset", "mnist5k"], 1), (["--dataset", "cifar10"], 0)]
)
def test_commands_ask_for_a_device_for_each_core(options, calls, monkeypatch):
    asked = []

    def run(options: TrainOptions) -> list[pathlib.Path]:
        assert len(asked) == calls  # before anything else runs
        return []

    monkeypatch.setattr(devices, "one_for_each_core", lambda: asked.append(True))
    monkeypatch.setattr(train, "run", run)
    assert cli.main(["train", *options]) == 0
    assert len(asked) == calls


def test_small_networks_of_one_process_have_a_device_for_each_core():
    assert ModelOptions().has_device_for_each_core
    assert not ModelOptions("cifar10").has_device_for_each_core
    several = HostOptions(distributed=True)
    assert not ModelOptions(hosts=several).has_device_for_each_core
