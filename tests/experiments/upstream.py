"""Writes images in the files that data sets are published as."""

import gzip
import io
import pathlib
import struct
import tarfile

import numpy as np
from fake_tfds import Images, fake_images, fake_picture, fake_splits
from PIL import Image


def _write_mnist(folder: pathlib.Path, splits: dict[str, Images]) -> None:
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = splits[split]
        for kind, array in (("images-idx3", images[..., 0]), ("labels-idx1", labels)):
            header = struct.pack(
                f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape
            )
            with gzip.open(folder / f"{prefix}-{kind}-ubyte.gz", "wb", 1) as stream:
                stream.write(header + array.astype(np.uint8).tobytes())


def _cifar_records(labels: list[np.ndarray], images: np.ndarray) -> bytes:
    """Per image its labels, then its red, green and blue plane, all bytes."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.column_stack([*labels, planes]).astype(np.uint8).tobytes()


def _write_tar(path: pathlib.Path, files: dict[str, bytes], mode="w:gz") -> None:
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _names(classes: int) -> bytes:
    return "".join(f"class {i}\n" for i in range(classes)).encode()


def _write_cifar10(folder: pathlib.Path, splits: dict[str, Images]) -> None:
    images, labels = splits["train"]
    parts = zip(np.array_split(images, 5), np.array_split(labels, 5), strict=True)
    files = {"batches.meta.txt": _names(10)}
    for i, (part, part_labels) in enumerate(parts, start=1):
        files[f"data_batch_{i}.bin"] = _cifar_records([part_labels], part)
    images, labels = splits["test"]
    files["test_batch.bin"] = _cifar_records([labels], images)
    _write_tar(
        folder / "cifar-10-binary.tar.gz",
        {f"cifar-10-batches-bin/{name}": data for name, data in files.items()},
    )


def _write_cifar100(folder: pathlib.Path, splits: dict[str, Images]) -> None:
    files = {"coarse_label_names.txt": _names(20), "fine_label_names.txt": _names(100)}
    for split in ("train", "test"):
        images, labels = splits[split]
        files[f"{split}.bin"] = _cifar_records([(labels + 7) % 20, labels], images)
    _write_tar(
        folder / "cifar-100-binary.tar.gz",
        {f"cifar-100-binary/{name}": data for name, data in files.items()},
    )


def _write_svhn(folder: pathlib.Path, splits: dict[str, Images]) -> None:
    import scipy.io

    for split, (images, labels) in splits.items():
        # A zero is written as class 10.
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        content = {"X": images.transpose(1, 2, 3, 0), "y": y}
        scipy.io.savemat(folder / f"{split}_32x32.mat", content)


_WRITE = {
    "mnist": _write_mnist,
    "cifar10": _write_cifar10,
    "cifar100": _write_cifar100,
    "svhn_cropped": _write_svhn,
}
NAMES = tuple(_WRITE)


def write_upstream(name: str, folder: pathlib.Path) -> dict[str, Images]:
    """Writes noise as the published files of a data set, and returns it."""
    folder.mkdir()
    if name == "mnist":
        # TFDS has the sizes of its splits written down.
        splits = {
            "train": fake_images(60_000, 0),
            "test": fake_images(10_000, 1),
        }
    else:
        splits = fake_splits(name)
    _WRITE[name](folder, splits)
    return splits


# Names that TFDS knows: a PNG, and a JPEG in CMYK. Each is made an RGB JPEG.
PNG, CMYK = "n02105855_2933.JPEG", "n01739381_1309.JPEG"


def write_imagenet(folder: pathlib.Path) -> dict[str, dict[str, bytes]]:
    """Writes ImageNet's archives, and returns the pictures of each split by name."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    train = {
        f"{synset}_{i}.JPEG": fake_picture(rng, mode)
        for synset in ("n02105855", "n01739381", "n15075141")
        for i, mode in enumerate(("RGB", "L", "CMYK", "RGB"))
    }
    png = io.BytesIO()
    Image.open(io.BytesIO(fake_picture(rng))).save(png, "png")
    train |= {PNG: png.getvalue(), CMYK: fake_picture(rng, "CMYK")}
    archives = {}
    for synset in sorted({name.split("_")[0] for name in train}):
        path = folder / f"{synset}.tar"
        members = {name: data for name, data in train.items() if synset in name}
        _write_tar(path, members, "w:")
        archives[path.name] = path.read_bytes()
        path.unlink()
    _write_tar(folder / "ILSVRC2012_img_train.tar", archives, "w:")
    validation = {
        f"ILSVRC2012_val_{i:08d}.JPEG": fake_picture(rng, mode)
        for i, mode in enumerate(("RGB", "L", "RGB", "CMYK", "RGB", "RGB"), start=1)
    }
    _write_tar(folder / "ILSVRC2012_img_val.tar", validation, "w:")
    return {"train": train, "validation": validation}
