"""TFDS data sets: read, cached, prepared from upstream files, and what is wrong."""

import json
import subprocess
import sys

import fake_tfds
import numpy as np
import pytest
import upstream

from experiments import cli
from experiments.data import DATASETS, DataOptions, cache, load, prepared
from experiments.figures import figure1
from experiments.jobs.errors import UsageError


@pytest.mark.parametrize("name", fake_tfds.CLASSES)
def test_prepared_set_is_read_by_tfds_once(name, tmp_path, monkeypatch):
    fake_tfds.write_prepared(tmp_path, name)
    options = DataOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    dataset = load(name, options)
    # From the metadata: in 130 images not every class of a hundred occurs.
    assert dataset.classes == fake_tfds.CLASSES[name]
    expected = fake_tfds.fake_splits(name)
    for split, part in ((dataset.train, "train"), (dataset.test, "test")):
        images, labels = expected[part]
        assert split.images.dtype == np.uint8
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
    monkeypatch.setattr(prepared, "read", lambda folder: pytest.fail("read again"))
    again = load(name, options)
    np.testing.assert_array_equal(again.train.images, dataset.train.images)
    assert again.classes == dataset.classes


@pytest.mark.parametrize("name", fake_tfds.COLOR)
def test_statistics_of_each_channel(name, tmp_path):
    fake_tfds.write_prepared(tmp_path, name)
    dataset = load(name, DataOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache"))
    assert dataset.image_shape == (32, 32, 3)
    mean, std = np.zeros(3), np.ones(3)
    if DATASETS[name].is_standardized:
        pixels = dataset.train.images / 255
        mean, std = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    np.testing.assert_allclose(dataset.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(dataset.std, std, rtol=1e-12)


def test_real_cifar10(prepared_cifar10, tmp_path):
    dataset = load("cifar10", DataOptions(prepared_cifar10, tmp_path))
    assert (len(dataset.train), len(dataset.test)) == (512, 256)
    # Of all 50,000 images: 0.4914, 0.4822, 0.4465 and 0.2470, 0.2435, 0.2616.
    np.testing.assert_allclose(dataset.mean, (0.4914, 0.4822, 0.4465), atol=0.02)
    np.testing.assert_allclose(dataset.std, (0.2470, 0.2435, 0.2616), atol=0.02)
    # Sky and water are bluer than grass, in airplanes and ships than in deer and frogs.
    blueness = dataset.train.images.mean(axis=(1, 2)) @ (-1, 0, 1)
    blue, green = (
        blueness[np.isin(dataset.train.labels, classes)].mean()
        for classes in ((0, 8), (4, 6))
    )
    assert blue > green + 10


def test_figure1_of_real_cifar10(prepared_cifar10, tmp_path):
    arguments = ["figure1", "--dataset=cifar10", "--data-dir", str(prepared_cifar10),
                 "--cache-dir", str(tmp_path), "--images=2", "--frequencies", "0", "8",
                 "--results-dir", str(tmp_path)]  # fmt: skip
    assert cli.main(arguments) == 0
    assert (tmp_path / "figure1" / "cifar10.png").stat().st_size > 1000


@pytest.mark.parametrize("name", fake_tfds.CLASSES)
def test_figure1_as_published_for_each_set(name, tmp_path, monkeypatch):
    fake_tfds.write_prepared(tmp_path, name)
    drawn = []
    monkeypatch.setattr(figure1, "draw", lambda *given: drawn.append(given))
    monkeypatch.setattr(figure1, "save", lambda figure, title, stem: [stem])
    arguments = ["figure1", "--dataset", name, "--data-dir", str(tmp_path),
                 "--cache-dir", str(tmp_path / "cache"), "--images", "2",
                 "--results-dir", str(tmp_path / "results")]  # fmt: skip
    assert cli.main(arguments) == 0
    ((images, frequencies, eps),) = drawn
    # P, experimental conditions.
    size, expected = (32, 10 / 255) if name in fake_tfds.COLOR else (28, 80 / 255)
    assert eps == expected
    assert images.shape[:3] == (2, size, size)
    quarter, half = size // 4, size // 2
    assert frequencies == (
        (0, 1), (1, 1), (0, quarter), (quarter, quarter), (half, half),
    )  # fmt: skip


def test_another_set_of_the_same_name_has_its_own_cache(prepared_fake, tmp_path):
    other = fake_tfds.write_prepared(tmp_path / "other")
    one = cache.folder_key(prepared_fake / "mnist" / other.name)
    assert one != cache.folder_key(other)


def test_svhn_is_read_without_its_extra_images(tmp_path):
    folder = fake_tfds.write_prepared(tmp_path, "svhn_cropped")
    next(folder.glob("*-extra.*")).unlink()
    options = DataOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert len(load("svhn_cropped", options).train) == fake_tfds.TRAIN


@pytest.mark.parametrize("lengths", [{}, {"shardLengths": []}])
def test_a_split_without_examples_is_damaged(lengths, tmp_path):
    path = fake_tfds.write_prepared(tmp_path) / "dataset_info.json"
    info = json.loads(path.read_text())
    del info["splits"][0]["shardLengths"]
    info["splits"][0] |= lengths
    path.write_text(json.dumps(info))
    options = DataOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(UsageError, match=f"{path} is damaged: the train split has no"):
        load("mnist", options)


def test_the_newest_version_is_found(tmp_path):
    for version in ("3.0.1", "10.0.0", "2.9.9"):
        folder = fake_tfds.write_prepared(tmp_path / version)
        target = tmp_path / "all" / "mnist" / version
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    for other in ("11..2", "12.0.²", "13.0.0-copy"):
        (tmp_path / "all" / "mnist" / other).mkdir()
        (tmp_path / "all" / "mnist" / other / "file").touch()
    (tmp_path / "all" / "mnist" / "14.0.0").touch()
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


def _another_set(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"name": "cifar100"}))


def _tfrecord(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["fileFormat"]
    (folder / "dataset_info.json").write_text(json.dumps(info))


def _no_test_split(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(
        json.dumps(info | {"splits": info["splits"][:1]})
    )


def _no_test_file(folder):
    next(folder.glob("*-test.*")).unlink()


def _half_a_file(folder):
    file = next(folder.glob("*-train.*"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _no_features(folder):
    (folder / "features.json").unlink()


def _features_without_label(folder):
    features = json.loads((folder / "features.json").read_text())
    del features["featuresDict"]["features"]["label"]
    (folder / "features.json").write_text(json.dumps(features))


def _half_the_metadata(folder):
    (folder / "dataset_info.json").write_text('{"name": ')


def _no_metadata(folder):
    (folder / "dataset_info.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _another_set,
            "dataset_info.json is that of data set cifar100, not of cifar10",
        ),
        (_tfrecord, "3.0.2 is prepared as tfrecord, which only TensorFlow reads"),
        (_no_test_split, "3.0.2 has no test split."),
        (_no_test_file, "cifar10-test.array_record-00000-of-00001 is missing"),
        (_half_a_file, "cifar10-train.array_record-00000-of-00001 is damaged"),
        (_no_features, "features.json is missing"),
        (_features_without_label, "KeyError 'label'"),
        (_half_the_metadata, "dataset_info.json is damaged"),
        (_no_metadata, "dataset_info.json is missing"),
    ],
)
def test_wrong_data_is_said_shortly(damage, message, tmp_path, capsys):
    damage(fake_tfds.write_prepared(tmp_path, "cifar10"))
    arguments = ["figure1", "--dataset=cifar10", "--data-dir", str(tmp_path),
                 "--cache-dir", str(tmp_path / "cache"),
                 "--results-dir", str(tmp_path / "results")]  # fmt: skip
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err.splitlines()
    errors = [line for line in said if line.startswith("experiments ")]
    assert errors == said[-1:]
    assert message in errors[0]
    assert not any((tmp_path / "cache").glob("*"))


def _another_class(features):
    features["pythonClassName"] = "evil_class.Feature"


def _another_class_of_a_feature(features):
    features["featuresDict"]["features"]["image"]["python_class_name"] = "evil_class.A"


def _another_class_in_json_in_json(features):
    inner = {"label": {"type": "evil_class.Feature", "content": {}}}
    label = features["featuresDict"]["features"]["label"]
    label["jsonFeature"] = {"json": json.dumps(inner)}


@pytest.mark.parametrize(
    "change",
    [_another_class, _another_class_of_a_feature, _another_class_in_json_in_json],
)
def test_no_foreign_class_is_imported(change, tmp_path, monkeypatch):
    (tmp_path / "evil_class.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = fake_tfds.write_prepared(tmp_path) / "features.json"
    features = json.loads(path.read_text())
    change(features)
    path.write_text(json.dumps(features))
    options = DataOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(
        UsageError, match=r"features.json is damaged: evil_class\."
    ) as e:
        load("mnist", options)
    assert "is no class of tensorflow_datasets" in str(e.value)


@pytest.mark.parametrize("label", [-1, 10, 2**33])
def test_labels_of_no_class_are_refused(label, tmp_path):
    images, labels = fake_tfds.fake_images(4, 0)
    labels = labels.astype(np.int64)
    splits = {"train": (images, labels.copy()), "test": (images, labels)}
    labels[3] = label
    fake_tfds.write_prepared(tmp_path, splits=splits, shards=2)
    options = DataOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(
        UsageError, match=r"mnist-test.array_record-00001-of-00002 is damaged: .*; copy"
    ):
        load("mnist", options)


@pytest.mark.parametrize("name", ["mnist", "imagenet2012"])
def test_other_numbers_of_examples_are_refused(name, tmp_path):
    folder = fake_tfds.write_prepared(tmp_path, name)
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    [length] = info["splits"][0]["shardLengths"]
    info["splits"][0]["shardLengths"] = [str(int(length) - 1)]
    path.write_text(json.dumps(info))
    options = DataOptions(tmp_path, tmp_path / "cache", workers=0)
    with pytest.raises(UsageError, match=rf"-train.*: {length} examples in place of"):
        load(name, options)


def test_images_of_another_shape_are_refused(tmp_path):
    images, labels = fake_tfds.fake_images(4, 0)
    # Of one row, which NumPy would repeat.
    splits = {"train": (images, labels), "test": (images[:, :1], labels)}
    fake_tfds.write_prepared(tmp_path, splits=splits)
    options = DataOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(UsageError, match=r"mnist-test.* is damaged: .*28, 28, 1"):
        load("mnist", options)


def test_labels_of_no_class_are_refused_of_pictures(tmp_path):
    pictures, labels = fake_tfds.fake_pictures(3, 0)
    labels[1] = 1000
    splits = {"train": (pictures, labels), "validation": (pictures, labels)}
    fake_tfds.write_prepared(tmp_path, "imagenet2012", splits)
    dataset = load("imagenet2012", DataOptions(tmp_path, workers=0))
    with pytest.raises(UsageError, match=r"record 1 of .* label 1000 in place of"):
        next(dataset.test.read([(0, 3)]))


def test_preparing_without_tensorflow_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
    options = DataOptions(data_dir=tmp_path, download=True)
    with pytest.raises(
        UsageError, match=r"needs TensorFlow.*pip install tensorflow-cpu"
    ):
        load("mnist", options)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "mnist",
            "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz, "
            "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz",
        ),
        ("cifar10", "cifar-10-binary.tar.gz"),
        ("cifar100", "cifar-100-binary.tar.gz"),
        ("svhn_cropped", "extra_32x32.mat, test_32x32.mat, train_32x32.mat"),
    ],
)
def test_manual_dir_without_the_files_is_refused(name, files, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: object())
    present = files.split(", ")[1:2]
    for file in present:
        (tmp_path / file).touch()
    options = DataOptions(data_dir=tmp_path / "tfds", manual_dir=tmp_path)
    with pytest.raises(UsageError, match=rf"of {name}: {files}; missing: ") as error:
        load(name, options)
    missing = str(error.value).split("missing: ")[1].rstrip(".").split(", ")
    assert set(missing) == set(files.split(", ")) - set(present)


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


def _as_set(images, labels):
    pixels = (image.tobytes() for image in images)
    return sorted(zip(pixels, labels.tolist(), strict=True))


@pytest.mark.parametrize("name", upstream.NAMES)
def test_upstream_files_are_prepared_without_a_network(name, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow", reason="preparing a set needs tensorflow-cpu")
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    contents = upstream.write_upstream(name, tmp_path / "manual")
    options = DataOptions(
        tmp_path / "tfds", tmp_path / "cache", False, tmp_path / "manual"
    )
    with pytest.raises(
        UsageError, match=rf"^{name} could not be prepared: .*wrong checksum"
    ):
        load(name, options)
    builder_class = tfds.builder_cls(name)
    infos = {
        url: checksums.compute_url_info(tmp_path / "manual" / info.filename)
        for url, info in builder_class.url_infos.items()
    }
    monkeypatch.setattr(builder_class, "url_infos", infos)
    dataset = load(name, options)
    assert dataset.classes == fake_tfds.CLASSES[name]
    # TFDS shuffles what it prepares.
    for split, part in ((dataset.train, "train"), (dataset.test, "test")):
        assert _as_set(split.images, split.labels) == _as_set(*contents[part])
