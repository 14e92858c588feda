"""Writes a prepared TFDS data set without TensorFlow, which TFDS itself cannot."""

import gzip
import io
import json
import pathlib
import struct

import numpy as np
from PIL import Image

TRAIN, TEST = 130, 20


def fake_images(examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (examples, 28, 28, 1), dtype=np.uint8)
    return images, rng.integers(0, 10, examples).astype(np.int32)


def write_upstream_mnist(
    folder: pathlib.Path,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Writes random images as the four files of MNIST, in its size; returns them."""
    folder.mkdir()
    contents = []
    for name, examples, seed in (("train", 60_000, 0), ("t10k", 10_000, 1)):
        images, labels = fake_images(examples, seed)
        contents.append((images, labels))
        for kind, array in (("images-idx3", images[..., 0]), ("labels-idx1", labels)):
            header = struct.pack(
                f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape
            )
            with gzip.open(folder / f"{name}-{kind}-ubyte.gz", "wb", 1) as stream:
                stream.write(header + array.astype(np.uint8).tobytes())
    return contents


def _example(image: np.ndarray, label: int) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    png = io.BytesIO()
    Image.fromarray(image[..., 0]).save(png, "png")
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(png.getvalue())
    example.features.feature["label"].int64_list.value.append(label)
    return example.SerializeToString()


def write_prepared_mnist(
    data_dir: pathlib.Path, file_format: str = "array_record"
) -> pathlib.Path:
    """Writes train and test splits of random images; returns the data_dir."""
    from array_record.python.array_record_module import ArrayRecordWriter

    folder = data_dir / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    splits = []
    for name, examples, seed in (("train", TRAIN, 0), ("test", TEST, 1)):
        path = folder / f"mnist-{name}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for image, label in zip(*fake_images(examples, seed), strict=True):
            writer.write(_example(image, int(label)))
        writer.close()
        splits.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": name,
                "numBytes": str(path.stat().st_size),
                "shardLengths": [str(examples)],
            }
        )
    info = {
        "fileFormat": file_format,
        "moduleName": "tensorflow_datasets.image_classification.mnist",
        "name": "mnist",
        "splits": splits,
        "version": "3.0.1",
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    features = "tensorflow_datasets.core.features."
    image = {
        "pythonClassName": features + "image_feature.Image",
        "image": {"dtype": "uint8", "shape": {"dimensions": ["28", "28", "1"]}},
    }
    label = {
        "pythonClassName": features + "class_label_feature.ClassLabel",
        "classLabel": {"numClasses": "10"},
    }
    both = {
        "pythonClassName": features + "features_dict.FeaturesDict",
        "featuresDict": {"features": {"image": image, "label": label}},
    }
    (folder / "features.json").write_text(json.dumps(both))
    return data_dir
