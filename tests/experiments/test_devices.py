"""How models, batches and images are divided over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import UsageError
from experiments.evaluation.kept import Images
from experiments.training import devices


@pytest.fixture(autouse=True)
def _four_devices(monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: jax.devices()[:4])


def _shape(placement):
    return placement.mesh.shape["sweep"], placement.mesh.shape["data"]


@pytest.mark.parametrize(
    ("models", "batch", "asked", "groups"),
    [
        (1, 16, None, [(1, 4)]),
        (2, 16, None, [(1, 2)] * 2),
        (3, 16, None, [(1, 2)] * 2),
        (9, 16, None, [(1, 1)] * 4),
        # Six images do not divide over four devices.
        (1, 6, None, [(1, 2)] * 2),
        (9, 16, 4, [(1, 4)]),
        (1, 16, 1, [(1, 1)] * 4),
    ],
)
def test_groups_for_large_networks(models, batch, asked, groups):
    placements = devices.apart(models, batch, asked)
    assert list(map(_shape, placements)) == groups
    used = [
        device for placement in placements for device in placement.mesh.devices.flat
    ]
    assert used == jax.devices()[:4]


@pytest.mark.parametrize(
    ("settings", "asked", "shape", "padded"),
    [
        (33, None, (4, 1), 36),
        (2, None, (2, 1), 2),
        (1, None, (1, 1), 1),
        (3, 2, (2, 2), 4),
        (3, 4, (1, 4), 3),
    ],
)
def test_one_program_for_small_networks(settings, asked, shape, padded):
    placement = devices.together(settings, 64, asked)
    assert _shape(placement) == shape
    assert placement.padded(settings) == padded


@pytest.mark.parametrize("asked", [0, 3, 8])
def test_what_divides_neither_devices_nor_batch_is_refused(asked):
    with pytest.raises(UsageError, match=f"the 4 devices and the 16 .*, got {asked}"):
        devices.apart(1, 16, asked)
    with pytest.raises(UsageError, match="--data-parallel"):
        devices.together(1, 16, asked)


def test_padding_repeats_the_last():
    padded = devices.pad_settings({"a": jnp.arange(6).reshape(2, 3)}, 1, 5)["a"]
    np.testing.assert_array_equal(padded, [[0, 1, 2, 2, 2], [3, 4, 5, 5, 5]])


@pytest.mark.parametrize(("examples", "shared"), [(96, 4), (94, 2), (95, 1)])
def test_images_are_divided_for_evaluation(classifier, noise, examples, shared):
    images = Images(classifier, noise.take(np.arange(examples)), "test")
    x, y = images.arrays()
    assert len(x.sharding.device_set) == len(y.sharding.device_set) == shared
    np.testing.assert_allclose(x, images.split.images / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(y, images.split.labels)
