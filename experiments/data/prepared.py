"""Prepared TFDS data sets: found, read without TensorFlow, or made with it."""

import importlib.util
import json
import os
import pathlib
import tarfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import paths
from experiments.data.split import Split
from experiments.errors import UsageError
from experiments.progress import progress


class _Registered(NamedTuple):
    """Upstream files that TFDS cannot download."""

    address: str
    files: tuple[str, ...]


_REGISTERED = {
    "imagenet2012": _Registered(
        "https://image-net.org/download-images",
        ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
    )
}


def default_data_dir() -> pathlib.Path:
    """Where TFDS keeps prepared data sets."""
    return paths.expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _version(path: pathlib.Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.name.split("."))


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error


def find(name: str, data_dir: pathlib.Path) -> pathlib.Path | None:
    """The folder of the newest prepared version of a data set, if there is one.

    Raises:
      UsageError: if it is prepared in a format that only TensorFlow reads, or is
        another data set.
    """
    folders = [
        info.parent
        for info in (data_dir / name).glob("*.*.*/dataset_info.json")
        if info.parent.name.replace(".", "").isdigit()
    ]
    if not folders:
        return None
    folder = max(folders, key=_version)
    info = _json(folder / "dataset_info.json")
    if info.get("name") != name:
        raise UsageError(
            f"{folder / 'dataset_info.json'} is that of data set {info.get('name')}, "
            f"not of {name}; give another --data-dir."
        )
    # Older versions of TFDS had one format, and did not name it.
    file_format = info.get("fileFormat", "tfrecord")
    if file_format != "array_record":
        raise UsageError(
            f"{folder} is prepared as {file_format}, which only TensorFlow reads; "
            "prepare it with file_format='array_record', or give another --data-dir."
        )
    return folder


def classes(folder: pathlib.Path) -> int:
    """How many classes a prepared data set has, seen in its images or not.

    Raises:
      UsageError: if its features are not there.
    """
    path = folder / "features.json"
    try:
        label = _json(path)["featuresDict"]["features"]["label"]
        return int(label["classLabel"]["numClasses"])
    except KeyError as error:
        raise UsageError(f"{path} has no classes of a label.") from error


class Files(NamedTuple):
    """The files of a split."""

    paths: list[pathlib.Path]
    examples: list[int]  # of each file
    size: int  # of all examples, in bytes


def files(folder: pathlib.Path, split: str) -> Files:
    """The files of a split of a prepared data set, as its metadata has them.

    Raises:
      UsageError: if the split or a file of it is missing.
    """
    import tensorflow_datasets as tfds

    splits = tfds.builder_from_directory(folder).info.splits
    if split not in splits:
        raise UsageError(f"{folder} has no {split} split.")
    info = splits[split]
    for file in info.filepaths:
        if not file.exists():
            raise UsageError(f"{file} is missing; copy or prepare the set anew.")
    paths = [pathlib.Path(path) for path in info.filepaths]
    return Files(paths, list(info.shard_lengths), int(info.num_bytes))


def encoded(folder: pathlib.Path, split: str) -> Sequence[dict[str, Any]]:
    """The examples of a split, read when asked for, their images as they are stored."""
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    return tfds.builder_from_directory(folder).as_data_source(split, decoders=decoders)


def read(folder: pathlib.Path) -> tuple[Split, Split]:
    """Decodes the training and test split of a prepared data set.

    Raises:
      UsageError: if one of them or a file of them is missing or damaged.
    """
    import tensorflow_datasets as tfds

    # Said shortly here; TFDS says it at length.
    classes(folder)
    builder = tfds.builder_from_directory(folder)
    shape = builder.info.features["image"].shape

    def split(name: str) -> Split:
        files(folder, name)
        source = builder.as_data_source(name)
        images = np.empty((len(source), *shape), np.uint8)
        labels = np.empty(len(source), np.int32)
        title = f"reading {folder.parent.name}, {name} split"
        try:
            with progress(len(source), title, "image") as advance:
                for i, example in enumerate(source):
                    images[i], labels[i] = example["image"], example["label"]
                    advance(1)
        except RuntimeError as error:
            # What array_record raises, such as for a file that was copied in part.
            raise UsageError(
                f"the {name} split in {folder} is damaged; copy or prepare the set "
                f"anew ({error})."
            ) from error
        return Split(images, labels)

    return split("train"), split("test")


def ways_to_get(name: str) -> str:
    """What the user can do about a data set that is not prepared."""
    if name in _REGISTERED:
        address, files = _REGISTERED[name]
        return (
            f"Register at {address}, put {' and '.join(files)} into a folder and add "
            "--manual-dir FOLDER, which needs TensorFlow once."
        )
    return (
        "Two ways to get it: add --download (needs a network), or put its upstream "
        "files into a folder and add --manual-dir FOLDER; both need TensorFlow once."
    )


def prepare(name: str, data_dir: pathlib.Path, manual_dir: pathlib.Path | None) -> None:
    """Downloads and prepares a data set with TFDS's own builder.

    Args:
      name: the data set.
      data_dir: where to put it.
      manual_dir: a folder with the upstream files under their upstream names; with
        it, nothing is downloaded.

    Raises:
      UsageError: if TensorFlow is missing, a file is missing from `manual_dir` or is
        not the upstream one, the download fails, or the set cannot be downloaded.
    """
    if manual_dir is None and name in _REGISTERED:
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
        if name in _REGISTERED:
            wanted = sorted(_REGISTERED[name].files)
        else:
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
        OSError,
        tarfile.TarError,
        util.DownloadError,
        download_manager.NonMatchingChecksumError,
        extractor.ExtractError,
    ) as error:
        message = " ".join(str(error).split())
        raise UsageError(f"{name} could not be prepared: {message}") from error
