"""Writes prepared TFDS data sets without TensorFlow, which TFDS itself cannot."""

import io
import json
import pathlib

import numpy as np
from PIL import Image

# Classes of each data set that TFDS has and that is held in memory, as published.
CLASSES = {
    "mnist": 10,
    "fashion_mnist": 10,
    "cifar10": 10,
    "cifar100": 100,
    "svhn_cropped": 10,
}
COLOR = ("cifar10", "cifar100", "svhn_cropped")
TRAIN, TEST = 130, 20
# Of the pictures of a small ImageNet.
TRAIN_PICTURES, VALIDATION_PICTURES = 30, 12

Images = tuple[np.ndarray, np.ndarray]
Pictures = tuple[list[bytes], np.ndarray]


def fake_images(examples: int, seed: int, name: str = "mnist") -> Images:
    rng = np.random.default_rng(seed)
    shape = (32, 32, 3) if name in COLOR else (28, 28, 1)
    images = rng.integers(0, 256, (examples, *shape), dtype=np.uint8)
    return images, rng.integers(0, CLASSES[name], examples).astype(np.int32)


def fake_picture(rng: np.random.Generator, mode: str = "RGB") -> bytes:
    """A JPEG of a random size and of smooth content."""
    width, height = rng.integers(60, 300), rng.integers(45, 260)
    coarse = rng.bytes(6 * 5 * len(mode))
    image = Image.frombytes(mode, (6, 5), coarse).resize((width, height))
    jpeg = io.BytesIO()
    image.save(jpeg, "jpeg", quality=90)
    return jpeg.getvalue()


def fake_pictures(examples: int, seed: int) -> Pictures:
    """JPEGs as they are in ImageNet, a few grey or CMYK, each of another class."""
    rng = np.random.default_rng(seed)
    modes = ["CMYK" if i % 11 == 10 else "L" if i % 7 == 6 else "RGB"
             for i in range(examples)]  # fmt: skip
    pictures = [fake_picture(rng, mode) for mode in modes]
    return pictures, rng.permutation(1000)[:examples].astype(np.int32)


def fake_splits(name: str) -> dict[str, Images] | dict[str, Pictures]:
    """Images of noise, in the splits that TFDS has of a data set."""
    if name == "imagenet2012":
        return {
            "train": fake_pictures(TRAIN_PICTURES, 0),
            "validation": fake_pictures(VALIDATION_PICTURES, 1),
        }
    splits = {
        "train": fake_images(TRAIN, 0, name),
        "test": fake_images(TEST, 1, name),
    }
    if name == "svhn_cropped":
        splits["extra"] = fake_images(5, 2, name)
    return splits


def file_name(split: str, i: int) -> str:
    """What ImageNet calls a picture, or so."""
    return f"{split}_{i:08d}.JPEG"


def _png(image: np.ndarray) -> bytes:
    png = io.BytesIO()
    Image.fromarray(image.squeeze()).save(png, "png")
    return png.getvalue()


def _example(
    features, split: str, i: int, image: np.ndarray | bytes, label: int
) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    values = example.features.feature
    encoded = image if isinstance(image, bytes) else _png(image)
    values["image"].bytes_list.value.append(encoded)
    values["label"].int64_list.value.append(label)
    if "id" in features:
        values["id"].bytes_list.value.append(f"{split}_{i:05d}".encode())
    if "file_name" in features:
        values["file_name"].bytes_list.value.append(file_name(split, i).encode())
    if "coarse_label" in features:
        # Another number than the label, lest the one be read as the other.
        values["coarse_label"].int64_list.value.append((label + 7) % 20)
    return example.SerializeToString()


def write_prepared(
    data_dir: pathlib.Path,
    name: str = "mnist",
    splits: dict[str, Images] | dict[str, Pictures] | None = None,
    file_format: str = "array_record",
    shards: int = 1,
) -> pathlib.Path:
    """Writes splits of a data set as TFDS prepares them, and returns their folder.

    Args:
      data_dir: the folder of all data sets.
      name: the data set; version and features are those of TFDS's own builder.
      splits: images, or encoded pictures, and labels of each split; None is noise.
      file_format: what the metadata says.
      shards: files of each split, of about as many examples.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    builder = tfds.builder(name, data_dir=data_dir)
    folder = data_dir / name / str(builder.version)
    folder.mkdir(parents=True)
    infos = []
    for split, (images, labels) in (splits or fake_splits(name)).items():
        size, shard_lengths = 0, []
        for shard, members in enumerate(np.array_split(np.arange(len(labels)), shards)):
            suffix = f"{shard:05d}-of-{shards:05d}"
            path = folder / f"{name}-{split}.array_record-{suffix}"
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for i in members.tolist():
                features, label = builder.info.features, int(labels[i])
                record = _example(features, split, i, images[i], label)
                writer.write(record)
                size += len(record)
            writer.close()
            shard_lengths.append(str(len(members)))
        infos.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(size),
                "shardLengths": shard_lengths,
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
