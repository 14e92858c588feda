"""Input of ImageNet: decoding, random crops and flips on the CPU."""

import contextlib
import io
import itertools
import json
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
from PIL import Image

from experiments.data import pictures, streamed
from experiments.jobs import machine

_BATCH = 64
_BATCHES = 16  # timed, after as many as were decoded ahead
_PICTURES = 256
_ROUNDS = 3


def _picture(rng: np.random.Generator) -> bytes:
    """A JPEG of ImageNet's average size: 500 x 375 pixels and about 110 KB."""
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth) + rng.normal(0, 22, (375, 500, 1))
    stream = io.BytesIO()
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    image.save(stream, "jpeg", quality=90)
    return stream.getvalue()


def _write(data_dir: pathlib.Path, jpegs: list[bytes]) -> pathlib.Path:
    """Writes the training split of a data set as TFDS prepares it."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    folder = data_dir / "imagenet2012" / str(builder.version)
    folder.mkdir(parents=True)
    writer = ArrayRecordWriter(
        str(folder / "imagenet2012-train.array_record-00000-of-00001"), "group_size:1"
    )
    for jpeg in jpegs:
        example = tf_example_pb2.Example()
        feature = example.features.feature
        feature["image"].bytes_list.value.append(jpeg)
        feature["label"].int64_list.value.append(0)
        feature["file_name"].bytes_list.value.append(b"benchmark.JPEG")
        writer.write(example.SerializeToString())
    writer.close()
    split = {
        "name": "train",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": str(sum(map(len, jpegs))),
        "shardLengths": [str(len(jpegs))],
    }
    info = {
        "name": "imagenet2012",
        "moduleName": type(builder).__module__,
        "version": str(builder.version),
        "fileFormat": "array_record",
        "splits": [split],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    builder.info.features.save_config(folder)
    return folder


def _loop_rate(jpegs: list[bytes]) -> float:
    """Images a second of a plain loop."""
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    for jpeg in jpegs:
        pictures.augmented(pictures.decode(jpeg), rng)
    return len(jpegs) / (time.perf_counter() - started)


def _stream_rate(folder: pathlib.Path, processes: int) -> float:
    """Images a second of the stream that training reads, once it runs."""
    split = streamed.whole(folder, "train", processes)
    with contextlib.closing(split.training_batches(0, _BATCH, 0)) as batches:
        for _ in itertools.islice(batches, _BATCHES):
            pass
        started = time.perf_counter()
        for _ in itertools.islice(batches, _BATCHES):
            pass
        return _BATCH * _BATCHES / (time.perf_counter() - started)


def decoding_speed() -> list[dict[str, Any]]:
    """Training images a second of a plain loop, of threads, and of processes."""
    rng = np.random.default_rng(0)
    jpegs = [_picture(rng) for _ in range(_PICTURES)]
    size = sum(map(len, jpegs)) / len(jpegs)
    cores = machine.available_cores()
    with tempfile.TemporaryDirectory() as scratch:
        folder = _write(pathlib.Path(scratch), jpegs)
        measure = {
            "a plain loop": (1, lambda: _loop_rate(jpegs)),
            f"{cores} threads of one process": (cores, lambda: _stream_rate(folder, 0)),
            "1 process": (1, lambda: _stream_rate(folder, 1)),
            "2 processes": (2, lambda: _stream_rate(folder, 2)),
        }
        rates: dict[str, list[float]] = {name: [] for name in measure}
        for _ in range(_ROUNDS):
            for name, (_, rate) in measure.items():
                rates[name].append(rate())
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    return [
        {
            "benchmark": f"ImageNet's training images, JPEGs of {size / 1e3:.0f} KB",
            "case": f"{name}: {1000 * measure[name][0] / median:.1f} cores feed 1,000 "
            "images/s",
            "images_per_s": median,
            "ratio": median / medians["a plain loop"],
            "ratio_to": "a plain loop",
        }
        for name, median in medians.items()
    ]


def main() -> None:
    """Prints this benchmark alone."""
    rows = decoding_speed()
    print(rows[0]["benchmark"])
    for row in rows:
        print(f"{row['images_per_s']:,.0f} images/s by {row['case']}")


if __name__ == "__main__":
    main()
