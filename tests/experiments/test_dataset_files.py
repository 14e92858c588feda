"""Data sets of one's own: a file of arrays on the command line, or an entry."""

import dataclasses

import numpy as np
import pytest
from command_line import mistake

from experiments import cli, data
from experiments.data import DATASETS
from experiments.data.conditions import COLOR, GRAY
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.options import ModelOptions
from experiments.published import TABLE1


@pytest.fixture(autouse=True)
def _table():
    before = dict(DATASETS)
    yield
    DATASETS.clear()
    DATASETS.update(before)


def _arrays(train=96, test=30, shape=(28, 28), classes=3, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, *shape), np.uint8)
        arrays[f"y_{part}"] = labels
    return arrays


def _file(folder, name="digits.npz", **arrays):
    np.savez(folder / name, **_arrays() | arrays)
    return folder / name


@pytest.mark.usefixtures("tiny_network")
def test_commands_train_and_attack_it(tmp_path, capsys):
    path = _file(tmp_path)
    common = [f"--dataset={path}", "--epochs=1", f"--runs-dir={tmp_path}/runs"]
    assert cli.main(["train", *common, "--methods=none"]) == 0
    [config] = tmp_path.glob("runs/digits/small_cnn/none/0/seed-0-*/config.json")
    fields = files.read_json(config)
    assert (fields["dataset"], fields["train_examples"]) == ("digits", 96)
    split = data.load("digits").train
    assert fields["data_fingerprint"] == split.fingerprint
    np.testing.assert_array_equal(split.images[..., 0], np.load(path)["x_train"])
    capsys.readouterr()
    assert cli.main(
        ["table1", *common, "--methods=none", "--frequency-stride=14",
         f"--results-dir={tmp_path}/results"]
    ) == 0  # fmt: skip
    said = capsys.readouterr()
    assert "1 of 1 models are trained already" in said.out
    assert "training" not in said.err
    document = files.read_json(tmp_path / "results/scaled/table1/digits.json")
    assert document["test_images"] == 30
    assert document["eps"] == 80 / 255
    # Nothing is published of it.
    assert "In brackets" not in said.out


def test_what_is_derived(tmp_path):
    gray = cli.parse("train", [f"--dataset={_file(tmp_path)}"]).models
    info = DATASETS[gray.dataset]
    assert (info.name, info.image_shape, info.classes) == ("digits", (28, 28, 1), 3)
    assert (info.conditions, info.parent) == (GRAY, None)
    assert gray.model == "small_cnn"
    assert gray.published(TABLE1) == {}
    path = _file(tmp_path, "pictures.npz", **_arrays(shape=(40, 36, 3), classes=5))
    coloured = cli.parse("train", [f"--dataset={path}"]).models
    info = DATASETS[coloured.dataset]
    assert (info.classes, info.conditions) == (5, COLOR)
    assert coloured.model == "resnet18"
    # A file may be named twice, but not another of the same name.
    cli.parse("train", [f"--dataset={path}"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None}, "lacks x_test; give a file of the arrays x_train, y_train"),
        ({"x_train": np.zeros((96, 28, 28))}, "x_train, y_train: an array (96, 28,"),
        ({"x_test": np.zeros((30, 27, 28), np.uint8)}, "x_test, y_test: an array (30"),
        ({"y_train": np.zeros(95, int)}, "x_train, y_train: an array (95,) int32"),
        ({"y_train": np.arange(96) - 1}, "x_train, y_train: label -1"),
        ({"y_test": np.zeros(30)}, "y_test must be integers, one for each image, got"),
        ({"y_test": np.arange(30) + 2**40}, "no more than there are training images"),
        ({"y_train": np.zeros(96, int), "y_test": np.zeros(30, int)}, "two classes"),
        (_arrays(shape=(28, 28, 2)), "with 1 or 3 channels, got (96, 28, 28, 2)"),
        (_arrays(shape=(20, 20)), "no network is for its images of 20 x 20 x 1"),
    ],
)
def test_wrong_files_are_refused(tmp_path, capsys, changes, message):
    arrays = {n: a for n, a in (_arrays() | changes).items() if a is not None}
    np.savez(tmp_path / "wrong.npz", **arrays)
    assert message in _mistake(capsys, tmp_path / "wrong.npz")


def _mistake(capsys, path):
    return mistake(capsys, "train", f"--dataset={path}")


def test_other_mistakes(tmp_path, capsys):
    assert "is missing; give" in _mistake(capsys, tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    assert "is damaged" in _mistake(capsys, tmp_path / "text.npz")
    named = _file(tmp_path, "a b.npz")
    assert "letters, digits and ._- alone" in _mistake(capsys, named)
    taken = _file(tmp_path, "mnist.npz")
    assert "there is another mnist; rename the file" in _mistake(capsys, taken)


def test_an_entry_of_ones_own():
    splits = object()
    info = dataclasses.replace(
        DATASETS["mnist"], name="mine", source=lambda: splits, parent="mnist"
    )
    data.register(info)
    options = ModelOptions(dataset="mine")
    assert options.model == "small_cnn"
    assert options.recipe() == ModelOptions(dataset="mnist").recipe()
    for changes, message in (
        ({"classes": 3}, "`name` must be new, got 'mine' once more"),
        ({"name": "other", "parent": "no"}, "`parent` must be registered, got 'n"),
    ):
        with pytest.raises(ValueError, match=message):
            data.register(dataclasses.replace(info, **changes))
    with pytest.raises(UsageError, match="--dataset must be one of"):
        ModelOptions(dataset="other")
