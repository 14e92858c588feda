"""Small data and sweeps for the tests of the experiments."""

import pathlib

import numpy as np
import pytest

from experiments.data import Split
from experiments.models import Classifier, build
from experiments.training.config import NONE, RunConfig


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    return build("small_cnn", (0.13,), (0.31,))


@pytest.fixture(scope="session")
def noise() -> Split:
    """96 images of noise with labels that their brightness tells."""
    rng = np.random.default_rng(0)
    labels = (np.arange(96) % 10).astype(np.int32)
    images = rng.integers(0, 80, (96, 28, 28, 1)) + 17 * labels[:, None, None, None]
    return Split(images.astype(np.uint8), labels)


@pytest.fixture
def make_config(noise):
    """Makes the configuration of a short run on the noise."""

    def make(setting=NONE, seed=0, **changes):
        return RunConfig(
            **{
                "dataset": "noise",
                "data_fingerprint": noise.fingerprint,
                "train_examples": len(noise),
                "validation_examples": 0,
                "method": setting.method,
                "strength": setting.strength,
                "seed": seed,
                "epochs": 3,
                "batch_size": 32,
                **changes,
            }
        )

    return make


@pytest.fixture(scope="session")
def prepared_fake(tmp_path_factory) -> pathlib.Path:
    """A TFDS data_dir with a small `mnist` in the format of a prepared one."""
    from fake_tfds import write_prepared_mnist

    return write_prepared_mnist(tmp_path_factory.mktemp("tfds"))
