"""Writes prepared TFDS data sets without TensorFlow, which TFDS itself cannot."""

import io
import json
import pathlib

import numpy as np
from PIL import Image

# Classes of each data set that TFDS has, as published.
CLASSES = {
    "mnist": 10,
    "fashion_mnist": 10,
    "cifar10": 10,
    "cifar100": 100,
    "svhn_cropped": 10,
}
COLOR = ("cifar10", "cifar100", "svhn_cropped")
TRAIN, TEST = 130, 20

Images = tuple[np.ndarray, np.ndarray]


def fake_images(examples: int, seed: int, name: str = "mnist") -> Images:
    rng = np.random.default_rng(seed)
    shape = (32, 32, 3) if name in COLOR else (28, 28, 1)
    images = rng.integers(0, 256, (examples, *shape), dtype=np.uint8)
    return images, rng.integers(0, CLASSES[name], examples).astype(np.int32)


def fake_splits(name: str) -> dict[str, Images]:
    """Images of noise, in the splits that TFDS has of a data set."""
    splits = {
        "train": fake_images(TRAIN, 0, name),
        "test": fake_images(TEST, 1, name),
    }
    if name == "svhn_cropped":
        splits["extra"] = fake_images(5, 2, name)
    return splits


def _example(features, split: str, i: int, image: np.ndarray, label: int) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    png = io.BytesIO()
    Image.fromarray(image.squeeze()).save(png, "png")
    example = tf_example_pb2.Example()
    values = example.features.feature
    values["image"].bytes_list.value.append(png.getvalue())
    values["label"].int64_list.value.append(label)
    if "id" in features:
        values["id"].bytes_list.value.append(f"{split}_{i:05d}".encode())
    if "coarse_label" in features:
        # Another number than the label, lest the one be read as the other.
        values["coarse_label"].int64_list.value.append((label + 7) % 20)
    return example.SerializeToString()


def write_prepared(
    data_dir: pathlib.Path,
    name: str = "mnist",
    splits: dict[str, Images] | None = None,
    file_format: str = "array_record",
) -> pathlib.Path:
    """Writes splits of a data set as TFDS prepares them, and returns their folder.

    Args:
      data_dir: the folder of all data sets.
      name: the data set; version and features are those of TFDS's own builder.
      splits: images and labels of each split; None is noise.
      file_format: what the metadata says.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    builder = tfds.builder(name, data_dir=data_dir)
    folder = data_dir / name / str(builder.version)
    folder.mkdir(parents=True)
    infos = []
    for split, (images, labels) in (splits or fake_splits(name)).items():
        path = folder / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            writer.write(_example(builder.info.features, split, i, image, int(label)))
        writer.close()
        infos.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(path.stat().st_size),
                "shardLengths": [str(len(labels))],
            }
        )
    info = {
        "fileFormat": file_format,
        "moduleName": type(builder).__module__,
        "name": name,
        "splits": infos,
        "version": str(builder.version),
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    builder.info.features.save_config(folder)
    return folder
