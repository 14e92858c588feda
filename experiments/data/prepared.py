"""Finds prepared TFDS data sets, reads them without TensorFlow, or prepares them."""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from experiments.data.registry import DATASETS, STREAMED
from experiments.data.split import Split, check
from experiments.jobs.errors import UsageError, damage_named
from experiments.jobs.files import expanded
from experiments.jobs.progress import progress

# TFDS cannot download these upstream files, which need a registration.
_IMAGENET_FILES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


def default_data_dir() -> pathlib.Path:
    """Returns the folder in which TFDS stores prepared data sets."""
    return expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _damage(folder: pathlib.Path, path: pathlib.Path) -> AbstractContextManager[None]:
    fix = f"copy it again, or remove {folder} and prepare the set again"
    return damage_named(path, fix)


def _info(folder: pathlib.Path) -> Any:
    """Reads the metadata of a prepared data set."""
    path = folder / "dataset_info.json"
    with _damage(folder, path):
        info = json.loads(path.read_text("utf-8"))
        if not isinstance(info, dict):
            raise ValueError("it holds no object")
        return info


def find(name: str, data_dir: pathlib.Path) -> pathlib.Path | None:
    """Finds the folder of the newest prepared version of a data set, if any.

    Refuses another data set, and formats that only TensorFlow can read.
    """
    folders = [
        folder
        for folder in (data_dir / name).glob("*.*.*")
        if re.fullmatch(r"[0-9]+(\.[0-9]+){2}", folder.name)
        and folder.is_dir()
        and any(folder.iterdir())
    ]
    if not folders:
        return None
    folder = max(folders, key=lambda path: [int(n) for n in path.name.split(".")])
    info = _info(folder)
    if info.get("name") != name:
        raise UsageError(
            f"{folder / 'dataset_info.json'} is that of data set {info.get('name')}, "
            f"not of {name}; give another --data-dir."
        )
    # Older versions of TFDS had one format, without a name.
    file_format = info.get("fileFormat", "tfrecord")
    if file_format != "array_record":
        raise UsageError(
            f"{folder} is prepared as {file_format}, which only TensorFlow reads; "
            "prepare it with file_format='array_record', or give another --data-dir."
        )
    return folder


def examples(folder: pathlib.Path, split: str) -> int:
    """Returns the number of examples of a split in the metadata of a data set."""
    with _damage(folder, folder / "dataset_info.json"):
        counts = {
            one["name"]: sum(map(int, one.get("shardLengths", ())))
            for one in _info(folder)["splits"]
        }
        if counts.get(split) == 0:
            raise ValueError(f"the {split} split has no examples")
    if split not in counts:
        raise UsageError(f"{folder} has no {split} split.")
    return counts[split]


def _classes_named(value: Any) -> Iterator[str]:
    """Finds the Python classes that the features of a data set name, at any depth.

    TFDS uses three keys for them, and nests JSON in strings.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            is_class = key in ("pythonClassName", "python_class_name", "type")
            if is_class and isinstance(inner, str):
                yield inner
            yield from _classes_named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _classes_named(inner)
    elif isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            yield from _classes_named(json.loads(value))


def _builder(folder: pathlib.Path) -> Any:
    """Opens a prepared data set with TFDS.

    Refuses metadata that names a Python class of another package: TFDS would import it.
    """
    features = folder / "features.json"
    with _damage(folder, features):
        content = json.loads(features.read_text("utf-8"))
        for name in _classes_named(content):
            if "." in name and not name.startswith("tensorflow_datasets."):
                raise ValueError(f"{name} is no class of tensorflow_datasets")
    import tensorflow_datasets as tfds

    with _damage(folder, features):
        connector = tfds.features.FeatureConnector.from_json(content)
    names = next(folder.glob("*.labels.txt"), features)
    with _damage(folder, names):
        connector.load_metadata(folder, feature_name=None)
    with _damage(folder, folder / "dataset_info.json"):
        return tfds.builder_from_directory(folder)


class Files(NamedTuple):
    """The files of a split."""

    paths: list[pathlib.Path]
    examples: list[int]  # of each file
    size: int  # of all examples, in bytes


def files(folder: pathlib.Path, split: str) -> Files:
    """Lists the files of a split of a prepared data set, from its metadata."""
    examples(folder, split)
    splits = _builder(folder).info.splits
    with _damage(folder, folder / "dataset_info.json"):
        info = splits[split]
        paths = [pathlib.Path(path) for path in info.filepaths]
        lengths = list(info.shard_lengths)
    for path in paths:
        with _damage(folder, path):
            path.stat()
    return Files(paths, lengths, int(info.num_bytes))


def check_lengths(folder: pathlib.Path, of_split: Files) -> None:
    """Refuses files whose number of examples differs from the metadata."""
    from array_record.python.array_record_module import ArrayRecordReader

    for path, expected in zip(of_split.paths, of_split.examples, strict=True):
        with _damage(folder, path):
            reader = ArrayRecordReader(str(path))
            found = reader.num_records()
            reader.close()
            if found != expected:
                where = "by dataset_info.json"
                raise ValueError(f"{found} examples in place of {expected} {where}")


def encoded(folder: pathlib.Path, split: str) -> Sequence[dict[str, Any]]:
    """Opens the examples of a split, with images that are not decoded."""
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    return _builder(folder).as_data_source(split, decoders=decoders)


def read(folder: pathlib.Path) -> tuple[Split, Split]:
    """Decodes the training and the test split of a prepared data set."""
    name = folder.parent.name
    shape, classes = DATASETS[name].image_shape, DATASETS[name].classes

    def split(part: str) -> Split:
        of_split = files(folder, part)
        check_lengths(folder, of_split)
        source = _builder(folder).as_data_source(part)
        images = np.empty((len(source), *shape), np.uint8)
        labels = np.empty(len(source), np.int32)
        title = f"reading {name}, {part} split"
        stop = 0
        with progress(len(source), title, "image") as advance:
            for path, length in zip(of_split.paths, of_split.examples, strict=True):
                start, stop = stop, stop + length
                with _damage(folder, path):
                    for i in range(start, stop):
                        example = source[i]
                        # Checked first: NumPy would convert another shape or dtype.
                        label = np.array([int(example["label"])], np.int32)
                        check(Split(example["image"][None], label), shape, classes, 1)
                        images[i], labels[i] = example["image"], *label
                        advance(1)
        return Split(images, labels)

    return split("train"), split("test")


def ways_to_get(name: str) -> str:
    """Returns advice for a data set that is not prepared."""
    if name == STREAMED:
        return (
            "Register at https://image-net.org/download-images, put "
            f"{' and '.join(_IMAGENET_FILES)} into a folder and add --manual-dir "
            "FOLDER, which needs TensorFlow once."
        )
    return (
        "Two ways to get it: add --download (needs a network), or put its upstream "
        "files into a folder and add --manual-dir FOLDER; both need TensorFlow once."
    )


def prepare(name: str, data_dir: pathlib.Path, manual_dir: pathlib.Path | None) -> None:
    """Downloads and prepares a data set with TFDS's own builder.

    With `manual_dir`, a folder of the upstream files under their upstream names,
    nothing is downloaded.
    """
    if manual_dir is None and name == STREAMED:
        raise UsageError(f"{name} cannot be downloaded. {ways_to_get(name)}")
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            "preparing a data set needs TensorFlow, which is not installed: "
            "pip install tensorflow-cpu. Reading a prepared one does not need it."
        )
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, extractor, util

    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    if manual_dir is not None:
        wanted = list(_IMAGENET_FILES)
        if name != STREAMED:
            wanted = sorted(info.filename for info in type(builder).url_infos.values())
        absent = [file for file in wanted if not (manual_dir / file).is_file()]
        if absent:
            raise UsageError(
                f"--manual-dir {manual_dir} must hold the upstream files of {name}: "
                f"{', '.join(wanted)}; missing: {', '.join(absent)}."
            )
    config = tfds.download.DownloadConfig(try_download_gcs=False, manual_dir=manual_dir)
    try:
        builder.download_and_prepare(download_config=config)
    except (
        OSError, tarfile.TarError, util.DownloadError, extractor.ExtractError,
        download_manager.NonMatchingChecksumError,
    ) as error:  # fmt: skip
        message = " ".join(str(error).split())
        raise UsageError(f"{name} could not be prepared: {message}") from error
