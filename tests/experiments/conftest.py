"""Small data and sweeps for the tests of the experiments."""

import dataclasses
import io
import os
import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny_network import in_place_of_small_cnn

from experiments.config import NONE, Recipe, RunConfig, Setting
from experiments.data import Split
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.models import ARCHITECTURES, Classifier, build
from experiments.training import devices
from experiments.training.runs import Run

# What `make_config` changes of a recipe.
RECIPE = {field.name for field in dataclasses.fields(Recipe)}


@pytest.fixture(autouse=True, scope="session")
def _one_device():
    """Keeps to one of the virtual devices, as programs for several compile slowly."""
    with devices.using(jax.devices()[:1]):
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_sync():
    """Leaves files to the system's buffers, as thousands are written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _figures_alike_are_rendered_once():
    """Renders one figure of each kind, as each takes half a second.

    Figures of one kind have the same beginning of the title and the same axes. The png
    of each is drawn, without rendering: matplotlib warns and fails while it draws.
    """
    savefig, rendered = Figure.savefig, {}

    def save(figure, stream, *, format, **options):
        labels = ((ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes)
        kind = (format, figure.get_suptitle().split(",")[0], *labels)
        if kind not in rendered:
            file = io.BytesIO()
            savefig(figure, file, format=format, **options)
            rendered[kind] = file.getvalue()
        elif format == "png":
            figure.draw_without_rendering()
        stream.write(rendered[kind])

    with mock.patch.object(Figure, "savefig", save):
        yield


@pytest.fixture
def use_devices(monkeypatch):
    """Makes a function that sets how many of the virtual devices are used."""

    def use(number):
        monkeypatch.setattr(devices, "available", lambda: jax.devices()[:number])

    return use


@pytest.fixture(scope="module")
def tiny_network():
    """Replaces the small CNN in a module: commands, `build` and `classifier`."""
    with in_place_of_small_cnn():
        yield


@pytest.fixture(scope="module")
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
        recipe = {name: changes.pop(name) for name in RECIPE & changes.keys()}
        model = changes.pop("model", "small_cnn")
        return RunConfig(
            **{
                "dataset": "noise",
                "data_fingerprint": noise.fingerprint,
                "train_examples": len(noise),
                "validation_examples": 0,
                "method": setting.method,
                "strength": setting.strength,
                "seed": seed,
                "model": model,
                # As commands have it.
                "max_pool_ties": ARCHITECTURES[model].max_pool_ties,
                "recipe": Recipe(
                    **{
                        "epochs": 3,
                        "batch_size": 32,
                        "learning_rate": 0.01,
                        "momentum": 0.5,
                        **recipe,
                    }
                ),
                **changes,
            }
        )

    return make


@pytest.fixture(scope="session")
def prepared_fake(tmp_path_factory) -> pathlib.Path:
    """A TFDS data_dir with a small `mnist` in the format of a prepared one."""
    from fake_tfds import write_prepared

    data_dir = tmp_path_factory.mktemp("tfds")
    write_prepared(data_dir)
    return data_dir


@pytest.fixture(scope="session")
def prepared_imagenet(tmp_path_factory) -> pathlib.Path:
    """A TFDS data_dir with a small `imagenet2012` of three files for each split."""
    from fake_tfds import write_prepared

    data_dir = tmp_path_factory.mktemp("imagenet")
    write_prepared(data_dir, "imagenet2012", shards=3)
    return data_dir


@pytest.fixture(scope="session")
def prepared_cifar10(cifar10_sheets, tmp_path_factory) -> pathlib.Path:
    """A TFDS data_dir with 512 training and 256 test images of real CIFAR-10."""
    from fake_tfds import write_prepared
    from PIL import Image

    with np.load(cifar10_sheets / "labels.npz") as file:
        labels = dict(file)
    splits = {}
    for split, examples in (("train", 512), ("test", 256)):
        with Image.open(cifar10_sheets / f"{split}-0.webp") as sheet:
            # 100 images a row.
            rows = np.asarray(sheet.convert("RGB")).reshape(100, 32, 100, 32, 3)
        images = rows.transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
        splits[split] = images[:examples], labels[split][:examples]
    data_dir = tmp_path_factory.mktemp("cifar10")
    write_prepared(data_dir, "cifar10", splits)
    return data_dir


@pytest.fixture
def images(classifier, noise) -> EvaluationSet:
    """Twelve images of noise, to attack."""
    return EvaluationSet(classifier, noise.take(np.arange(12)), "test")


@pytest.fixture
def runs(classifier, make_config, tmp_path) -> list[Run]:
    """Two models that are trained by saying so; the second answers one class."""
    runs = []
    for seed in (0, 1):
        run = Run(tmp_path, make_config(Setting("absum", 0.1), seed))
        run.begin(0)
        variables = classifier.init(jax.random.key(seed))
        if seed == 1:
            variables.params["dense2"]["bias"] += 100.0 * jnp.eye(10)[3]
        run.finish(variables, {})
        runs.append(run)
    return runs
