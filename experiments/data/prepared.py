"""Prepared TFDS data sets: found, read without TensorFlow, or made with it."""

import importlib.util
import json
import os
import pathlib

import numpy as np

from experiments.data.dataset import Split
from experiments.errors import UsageError
from experiments.progress import progress


def default_data_dir() -> pathlib.Path:
    """Where TFDS keeps prepared data sets."""
    configured = os.environ.get("TFDS_DATA_DIR")
    return pathlib.Path(configured or pathlib.Path.home() / "tensorflow_datasets")


def _version(path: pathlib.Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.name.split("."))


def find(name: str, data_dir: pathlib.Path) -> pathlib.Path | None:
    """The folder of the newest prepared version of a data set, if there is one.

    Raises:
      UsageError: if it is prepared in a format that only TensorFlow reads.
    """
    folders = [
        info.parent
        for info in (data_dir / name).glob("*.*.*/dataset_info.json")
        if info.parent.name.replace(".", "").isdigit()
    ]
    if not folders:
        return None
    folder = max(folders, key=_version)
    file_format = json.loads((folder / "dataset_info.json").read_text()).get(
        "fileFormat"
    )
    if file_format != "array_record":
        raise UsageError(
            f"{folder} is prepared as {file_format}, which only TensorFlow reads; "
            "prepare it with file_format='array_record', or give another --data-dir."
        )
    return folder


def read(folder: pathlib.Path) -> tuple[Split, Split]:
    """Decodes the training and test split of a prepared data set."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)

    def split(name: str) -> Split:
        source = builder.as_data_source(name)
        images = np.empty((len(source), *source[0]["image"].shape), np.uint8)
        labels = np.empty(len(source), np.int32)
        title = f"reading {folder.parent.name}, {name} split"
        with progress(len(source), title, "image") as advance:
            for i, example in enumerate(source):
                images[i], labels[i] = example["image"], example["label"]
                advance(1)
        return Split(images, labels)

    return split("train"), split("test")


def prepare(name: str, data_dir: pathlib.Path, manual_dir: pathlib.Path | None) -> None:
    """Downloads and prepares a data set with TFDS's own builder.

    Args:
      name: the data set.
      data_dir: where to put it.
      manual_dir: a folder with the upstream files under their upstream names; with
        it, nothing is downloaded.

    Raises:
      UsageError: if TensorFlow is missing, a file is missing from `manual_dir` or is
        not the upstream one, or the download fails.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            "preparing a data set needs TensorFlow, which is not installed: "
            "pip install tensorflow-cpu. Reading a prepared one does not need it."
        )
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager

    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    if manual_dir is not None:
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
    except (OSError, download_manager.NonMatchingChecksumError) as error:
        raise UsageError(f"{name} could not be prepared: {error}") from error
