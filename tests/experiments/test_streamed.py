"""ImageNet's pictures: their order, crops, divisions and errors, and the processes."""

import contextlib
import dataclasses
import io
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import fake_tfds
import numpy as np
import pytest
import upstream
from batch_norm_network import network
from PIL import Image

from experiments import cli
from experiments.data import DataOptions, Split, load, pictures, prepared
from experiments.jobs import machine
from experiments.jobs.errors import UsageError
from experiments.training import step, sweep

TRAIN, TEST = fake_tfds.TRAIN_PICTURES, fake_tfds.VALIDATION_PICTURES


@pytest.fixture(scope="module")
def dataset(prepared_imagenet):
    return load("imagenet2012", DataOptions(prepared_imagenet, workers=0))


@pytest.fixture
def whole(monkeypatch):
    """Training images that are the middle of their pictures, whatever is drawn."""
    monkeypatch.setattr(
        pictures, "augmented", lambda image, rng: pictures.centre(image)
    )


def batches(split, steps, first=0, *, seed=0, batch_size=6, part=(0, 1)):
    """The images and labels of some steps, step by step."""
    with contextlib.closing(
        split.training_batches(seed, batch_size, first, part=part)
    ) as endless:
        images, labels = zip(*itertools.islice(endless, steps), strict=True)
    return np.stack(images), np.stack(labels)


def evaluated(split, *ranges):
    with contextlib.closing(split.read(ranges or [(0, len(split))])) as read:
        return list(read)


def expected_image(jpeg):
    """What torchvision's evaluation makes of a JPEG, in Pillow's terms."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    shorter = min(image.size)
    width, height = (int(256 * side / shorter) for side in image.size)
    left, upper = round((width - 224) / 2), round((height - 224) / 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)[upper : upper + 224, left : left + 224]


def assert_equal(batches, others):
    for ours, theirs in zip(batches, others, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_data_set(dataset):
    assert (len(dataset.train), len(dataset.test)) == (TRAIN, TEST)
    assert dataset.image_shape == dataset.test.image_shape == (224, 224, 3)
    # Of 30 images; the classes are those of the metadata.
    assert dataset.classes == 1000
    # PyTorch's ImageNet example.
    assert dataset.mean == (0.485, 0.456, 0.406)
    assert dataset.std == (0.229, 0.224, 0.225)


def test_each_epoch_is_another_permutation_of_all(dataset):
    _, expected = fake_tfds.fake_splits("imagenet2012")["train"]
    _, labels = batches(dataset.train, 2 * TRAIN // 6)
    epochs = labels.reshape(2, TRAIN)
    for epoch in epochs:
        assert sorted(epoch) == sorted(expected)
    # 30! orders.
    assert not np.array_equal(*epochs)
    _, other = batches(dataset.train, TRAIN // 6, seed=1)
    # Not the next epoch either, as where seed and epoch are added.
    assert not any(np.array_equal(other.ravel(), epoch) for epoch in epochs)


def test_the_remainder_of_an_epoch_sits_out(dataset):
    _, labels = batches(dataset.train, 6, batch_size=8)
    epochs = labels.reshape(2, 24)
    assert [len(set(epoch)) for epoch in epochs] == [24, 24]
    assert set(epochs[0]) != set(epochs[1])


def test_images_belong_to_their_labels(dataset, whole):
    jpegs, labels = fake_tfds.fake_splits("imagenet2012")["train"]
    expected = {
        label: expected_image(jpeg) for jpeg, label in zip(jpegs, labels, strict=True)
    }
    images, labels = batches(dataset.train, TRAIN // 6)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    for image, label in zip(
        images.reshape(-1, 224, 224, 3), labels.ravel(), strict=True
    ):
        np.testing.assert_array_equal(image, expected[label])


def test_crops_are_drawn_for_the_seed_the_epoch_and_the_example(dataset):
    def of_label(split, epoch, seed=0):
        (images,), (labels,) = batches(
            split, 1, epoch, seed=seed, batch_size=len(split)
        )
        return dict(zip(labels.tolist(), images, strict=True))

    one = of_label(dataset.train, 0)
    # The same examples in another order and number.
    few = dataset.train.take(np.arange(20)[::-1])
    for label, image in of_label(few, 0).items():
        np.testing.assert_array_equal(image, one[label])
    for other in (of_label(dataset.train, 1), of_label(dataset.train, 0, seed=1)):
        for label, image in other.items():
            assert not np.array_equal(image, one[label])


def test_a_run_resumes_with_the_next_batch(dataset):
    # Four batches an epoch, so that the second epoch is reached.
    expected = batches(dataset.train, 7, batch_size=7)
    for first in range(1, 7):
        rest = batches(dataset.train, 7 - first, first, batch_size=7)
        assert_equal(rest, [array[first:] for array in expected])


@pytest.mark.parametrize("hosts", [2, 4])
def test_the_parts_of_hosts_are_the_whole_batch(dataset, hosts, monkeypatch):
    expected = batches(dataset.train, 4, batch_size=12)
    parts = [
        batches(dataset.train, 4, batch_size=12, part=(host, hosts))
        for host in range(hosts)
    ]
    joined = [np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)]
    assert_equal(joined, expected)


def test_batches_of_several_pieces(dataset, monkeypatch):
    expected = batches(dataset.train, 4, 1, batch_size=12)
    ranges = [(0, 7), (3, 5), (5, TEST)]
    read = evaluated(dataset.test, *ranges)
    # Five images at a time, and two in the last piece.
    monkeypatch.setattr("experiments.data.streamed.PIECE", 5)
    assert_equal(batches(dataset.train, 4, 1, batch_size=12), expected)
    for one, other in zip(evaluated(dataset.test, *ranges), read, strict=True):
        assert_equal(one, other)


def test_evaluated_images_come_range_by_range(dataset):
    jpegs, labels = fake_tfds.fake_splits("imagenet2012")["validation"]
    expected = np.stack([expected_image(jpeg) for jpeg in jpegs])
    ranges = [(4, TEST), (0, 5), (2, 3)]
    read = evaluated(dataset.test, *ranges)
    assert len(read) == len(ranges)
    for limits, batch in zip(ranges, read, strict=True):
        part = slice(*limits)
        assert [array.dtype for array in batch] == [np.uint8, np.int32]
        assert_equal(batch, (expected[part], labels[part]))


@pytest.mark.slow
def test_processes_give_the_same_images_and_end(dataset):
    several = [
        dataclasses.replace(split, workers=2) for split in (dataset.train, dataset.test)
    ]
    train, test = several
    assert_equal(batches(train, 4, 3), batches(dataset.train, 4, 3))
    assert multiprocessing.active_children() == []
    # More processes than ranges, of which all are read.
    ((images, labels),) = evaluated(test)
    assert type(images) is np.ndarray
    assert_equal((images, labels), *evaluated(dataset.test))
    assert multiprocessing.active_children() == []


def test_parts_of_the_data_set(dataset):
    labels = np.concatenate([labels for _, labels in evaluated(dataset.train)])
    held = Split(np.zeros((TRAIN, 1, 1, 1), np.uint8), labels)
    for part, of_held in (
        (dataset.train.subset(10, "--train-examples"), held.subset(10, "--x")),
        (dataset.train.subset(None, "--train-examples"), held),
        (dataset.train.take(np.array([7, 3])), held.take(np.array([7, 3]))),
    ):
        ((_, labels),) = evaluated(part)
        np.testing.assert_array_equal(labels, of_held.labels)
    train, validation = dataset.with_validation()
    assert (len(train), len(validation)) == (27, 3)
    assert not set(train.examples) & set(validation.examples)
    with pytest.raises(UsageError, match=r"--train-examples must lie in 1\.\.30"):
        dataset.train.subset(31, "--train-examples")


def test_fingerprint_tells_splits_apart(dataset, prepared_imagenet, tmp_path):
    again = load("imagenet2012", DataOptions(prepared_imagenet, workers=3))
    assert again.train.fingerprint == dataset.train.fingerprint
    splits = fake_tfds.fake_splits("imagenet2012")
    jpegs, labels = splits["train"]
    splits["train"] = (
        [fake_tfds.fake_picture(np.random.default_rng(9)), *jpegs[1:]],
        labels,
    )
    fake_tfds.write_prepared(tmp_path / "other", "imagenet2012", splits, shards=3)
    fake_tfds.write_prepared(tmp_path / "whole", "imagenet2012", shards=1)
    seen = {
        dataset.train.fingerprint,
        dataset.test.fingerprint,
        dataset.train.subset(10, "").fingerprint,
        dataset.train.subset(11, "").fingerprint,
        *(
            load("imagenet2012", DataOptions(tmp_path / name)).train.fingerprint
            for name in ("other", "whole")
        ),
    }
    assert len(seen) == 6
    assert all(len(fingerprint) == 12 for fingerprint in seen)


def test_as_many_processes_as_cores(prepared_imagenet, monkeypatch):
    monkeypatch.setattr(machine, "available_cores", lambda: 5)
    split = load("imagenet2012", DataOptions(prepared_imagenet)).train
    assert split.workers == 5
    monkeypatch.undo()
    assert machine.available_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("arguments", "part", "message"),
    [
        ((0, 6, 0), (0, 4), "a batch of 6 images cannot be divided among 4 hosts"),
        ((0, 6, 0), (2, 2), r"part must be a host .*got \(2, 2\)"),
        ((0, 31, 0), (0, 1), r"batch_size must lie in 1\.\.30, .*got 31"),
        ((-1, 6, 0), (0, 1), "must not be negative: -1, 0"),
        ((0, 6, -1), (0, 1), "must not be negative: 0, -1"),
    ],
)
def test_wrong_batches_are_refused_at_once(dataset, arguments, part, message):
    with pytest.raises(ValueError, match=message):
        dataset.train.training_batches(*arguments, part=part)


@pytest.mark.parametrize("limits", [(-1, 3), (3, 3), (0, TEST + 1)])
def test_wrong_ranges_are_refused_at_once(dataset, limits):
    with pytest.raises(ValueError, match=r"is no range in 0\.\.12"):
        dataset.test.read([limits])


def damaged(tmp_path, encoded, number=17):
    """A data set with one picture replaced."""
    splits = fake_tfds.fake_splits("imagenet2012")
    splits["train"][0][number] = encoded
    fake_tfds.write_prepared(tmp_path, "imagenet2012", splits, shards=3)
    return load("imagenet2012", DataOptions(tmp_path, workers=0)).train


# Ten pictures a file.
DAMAGED = (
    r"record 7 of /.*/imagenet2012-train\.array_record-00001-of-00003 \(example 17 "
    r"of the train split, train_00000017\.JPEG\) cannot be read: "
)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 1])
def test_a_damaged_picture_is_named(tmp_path, processes):
    jpeg = fake_tfds.fake_picture(np.random.default_rng(0))
    split = damaged(tmp_path, jpeg[: len(jpeg) // 2])
    with pytest.raises(UsageError, match=DAMAGED) as error:
        batches(dataclasses.replace(split, workers=processes), TRAIN // 6)
    assert "truncated" in str(error.value)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_killed_process_is_said_shortly(dataset):
    split = dataclasses.replace(dataset.train, workers=1)
    with contextlib.closing(split.training_batches(0, 6, 0)) as endless:
        next(endless)
        (process,) = multiprocessing.active_children()
        process.kill()
        with pytest.raises(UsageError, match=r"has ended .* fewer --workers"):
            for _ in endless:
                pass
    assert multiprocessing.active_children() == []


def test_a_damaged_file_is_named(tmp_path):
    split = damaged(tmp_path, b"no picture")
    with pytest.raises(UsageError, match=DAMAGED):
        evaluated(split)
    file = next(tmp_path.rglob("*-train*-00002-of-00003"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=r"record 0 of /.*-00002-of-00003 \(ex"):
        evaluated(split, (20, TRAIN))


def _no_file(folder):
    next(folder.glob("*-validation*-00001-of-*")).unlink()


def _tfrecord(folder):
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))


def _another(folder):
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"imagenet2012"', '"imagenette"'))


def _no_features(folder):
    (folder / "features.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_file, "validation.array_record-00001-of-00003 is missing; copy it"),
        (_tfrecord, "is prepared as tfrecord, which only TensorFlow reads"),
        (_another, "is that of data set imagenette, not of imagenet2012"),
        (_no_features, "features.json is missing"),
    ],
)
def test_wrong_data_is_said_shortly(damage, message, tmp_path):
    damage(fake_tfds.write_prepared(tmp_path, "imagenet2012", shards=3))
    with pytest.raises(UsageError, match=message):
        load("imagenet2012", DataOptions(tmp_path))


def test_a_set_without_validation_is_refused(tmp_path):
    fake_tfds.write_prepared(
        tmp_path, "imagenet2012", {"train": fake_tfds.fake_pictures(6, 0)}
    )
    with pytest.raises(UsageError, match="has no validation split"):
        load("imagenet2012", DataOptions(tmp_path))


def test_a_file_that_goes_away_is_named(tmp_path):
    fake_tfds.write_prepared(tmp_path, "imagenet2012")
    split = load("imagenet2012", DataOptions(tmp_path, workers=0)).train
    next(tmp_path.rglob("*-train*-00000-of-*")).unlink()
    with pytest.raises(UsageError, match=r"-00000-of-00001 is missing"):
        split.training_batches(0, 6, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"imagenet2012 is not prepared in .*\. Register at https://image-net\.org",
        ),
        ({"download": True}, r"imagenet2012 cannot be downloaded\. Register at "),
    ],
)
def test_what_to_put_where_is_said(options, message, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        load("imagenet2012", DataOptions(tmp_path, **options))
    for part in ("ILSVRC2012_img_train.tar", "_img_val.tar", "--manual-dir FOLDER"):
        assert part in str(error.value)


def test_manual_dir_without_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: object())
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    options = DataOptions(tmp_path / "tfds", manual_dir=tmp_path)
    with pytest.raises(UsageError, match=r"missing: ILSVRC2012_img_train\.tar\.$"):
        load("imagenet2012", options)


def test_workers_must_not_be_negative(capsys):
    assert cli.main(["figure1", "--workers", "-1"]) == 2
    assert (
        capsys.readouterr().err
        == "experiments figure1: --workers must not be negative, got -1.\n"
    )


@pytest.mark.slow
def test_as_many_files_may_be_open_as_there_are(tmp_path):
    code = f"""
import contextlib, pathlib, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 4096))
from experiments.data import DataOptions, load
data = load("imagenet2012", DataOptions(pathlib.Path({str(tmp_path)!r}), workers=0))
with contextlib.closing(data.train.read([(0, 30)])) as read:
    print(len(next(read)[1]))
"""
    fake_tfds.write_prepared(tmp_path, "imagenet2012", shards=TRAIN)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout == "30\n", done.stderr


def _is_running(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_stopped_one(prepared_imagenet, tmp_path, sent):
    script = tmp_path / "train.py"
    script.write_text(f"""
import pathlib, signal
from experiments.data import DataOptions, load
if __name__ == "__main__":
    # A shell has its background jobs ignore it, as would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = DataOptions(pathlib.Path({str(prepared_imagenet)!r}), workers=1)
    try:
        for _ in load("imagenet2012", options).train.training_batches(0, 6, 0):
            print("trains", flush=True)
    except KeyboardInterrupt:
        print("stopped")
""")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "trains\n"
        if sent == signal.SIGINT:
            # As a terminal does, to every process.
            os.killpg(process.pid, sent)
        else:
            process.send_signal(sent)
        out, err = process.communicate()
        if sent == signal.SIGINT:
            assert out.endswith("stopped\n")
            assert "Traceback" not in err
        while _is_running(process.pid):
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_upstream_archives_are_prepared_and_streamed(tmp_path):
    pytest.importorskip("tensorflow", reason="preparing a set needs tensorflow-cpu")
    import tensorflow_datasets as tfds

    contents = upstream.write_imagenet(tmp_path / "manual")
    options = DataOptions(tmp_path / "tfds", manual_dir=tmp_path / "manual", workers=0)
    dataset = load("imagenet2012", options)
    assert dataset.classes == 1000
    lists = tfds.core.tfds_path("datasets/imagenet2012")
    synsets = (lists / "labels.txt").read_text().split()
    validation_labels = (lists / "validation_labels.txt").read_text().split()
    for split, name in ((dataset.train, "train"), (dataset.test, "validation")):
        pictures = contents[name]
        ((images, labels),) = evaluated(split)
        assert len(images) == len(pictures)
        stored = prepared.encoded(split.folder, name)
        for example, image, label in zip(stored, images, labels, strict=True):
            file = example["file_name"].decode()
            synset = file.split("_")[0]
            if name == "validation":
                synset = validation_labels[sorted(pictures).index(file)]
            assert label == synsets.index(synset)
            difference = np.abs(image - expected_image(pictures[file]).astype(int))
            # What TFDS converts, it encodes anew.
            converted = file in (upstream.PNG, upstream.CMYK)
            assert difference.mean() <= (3 if converted else 0)


def test_a_broken_archive_is_said_shortly(tmp_path):
    pytest.importorskip("tensorflow", reason="preparing a set needs tensorflow-cpu")
    upstream.write_imagenet(tmp_path / "manual")
    file = tmp_path / "manual" / "ILSVRC2012_img_train.tar"
    file.write_bytes(b"<html>403 Forbidden</html>" * 100)
    options = DataOptions(tmp_path / "tfds", manual_dir=tmp_path / "manual")
    with pytest.raises(UsageError, match=r"^imagenet2012 could not be prepared: "):
        load("imagenet2012", options)


def test_metrics_of_training_are_means_over_its_steps(dataset, make_config, tmp_path):
    classifier = network(1_000, stride=8)
    # So small a rate that the model stays what it was at first.
    fields = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-30}
    config = make_config(model="resnet18", **fields)
    [run] = sweep.train_missing(classifier, dataset.train, [config], tmp_path)
    variables = classifier.init(step._stream(0, step._INIT))
    losses = []
    for images, labels in zip(*batches(dataset.train, 3, batch_size=8), strict=True):
        x = images / np.float32(255)
        logits, _ = classifier.train_logits(variables, x, None)
        logits = np.asarray(logits, np.float64)
        own = logits[np.arange(8), labels]
        losses += [np.log(np.exp(logits).sum(axis=1)) - own]
    [line] = run.metrics()
    assert line["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert np.ptp(np.mean(losses, axis=1)) > 1e-3
