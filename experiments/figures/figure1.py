"""Draws Figure 1: images perturbed by the Single Fourier Attack."""

import contextlib
import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import absum_jax
from experiments.data import DATASETS, DataOptions, DatasetName, Split, load
from experiments.data.streamed import StreamedSplit
from experiments.jobs.errors import UsageError
from experiments.options import check_choices
from experiments.reporting.plots.saving import save

Frequencies = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Figure1Options:
    """Draw images perturbed by single frequencies (Figure 1)."""

    dataset: DatasetName = "mnist5k"
    """Data set."""

    images: int = 4
    """Number of test images to draw, each of another class."""

    frequencies: Frequencies | None = None
    """Frequencies (l, m), in cycles per image; None is one cycle, a quarter of the
    image's size and half of it."""

    eps: float | None = None
    """Magnitude of the attack, for pixels in [0, 1]; None is the paper's, 80/255 on
    28 x 28 images and 10/255 on larger ones."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the figure."""

    data: DataOptions = dataclasses.field(default_factory=DataOptions)

    def __post_init__(self) -> None:
        if not 1 <= self.images <= 10:
            raise UsageError(f"--images must lie in 1..10, got {self.images}.")
        if self.eps is not None and not 0 <= self.eps <= 1:
            raise UsageError(f"--eps must lie in 0..1, got {self.eps}.")
        if self.frequencies is not None:
            check_choices("--frequencies", self.frequencies)


def _one_a_class(split: Split | StreamedSplit, classes: int) -> np.ndarray:
    """Returns an image of each of the first classes, of streamed ones by occurrence."""
    if isinstance(split, Split):
        _, first = np.unique(split.labels, return_index=True)
        return split.images[first[:classes]]
    found: dict[int, np.ndarray] = {}
    ranges = [(i, i + 1) for i in range(len(split))]
    with contextlib.closing(split.read(ranges)) as read:
        for [image], [label] in read:
            found.setdefault(int(label), image)
            if len(found) == classes:
                break
    return np.stack(list(found.values()))


def draw(images: np.ndarray, frequencies: Frequencies, eps: float) -> Figure:
    """Draws a column for each image (N, h, w, channels), a row for each frequency."""
    height = 1.35 * (len(frequencies) + 1) + 0.4
    figure = Figure(figsize=(1.3 * len(images) + 1.0, height), layout="constrained")
    axes = figure.subplots(len(frequencies) + 1, len(images), squeeze=False)
    rows: list[tuple[str, np.ndarray]] = [("clean", images)]
    for l, m in frequencies:
        attacked = absum_jax.single_fourier_attack(jnp.asarray(images), l, m, eps)
        rows.append((f"({l}, {m})", np.asarray(attacked)))
    for row, (label, pictures) in zip(axes, rows, strict=True):
        for ax, picture in zip(row, pictures, strict=True):
            is_gray = picture.shape[-1] == 1
            ax.imshow(picture[..., 0] if is_gray else picture, "gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def run(options: Figure1Options) -> list[pathlib.Path]:
    """Draws and writes the figure."""
    dataset = load(options.dataset, options.data)
    height, width, _ = dataset.image_shape
    frequencies = options.frequencies or (
        *((0, 1), (1, 1), (0, width // 4)),
        *((height // i, width // i) for i in (4, 2)),
    )
    for l, m in frequencies:
        if not (0 <= l < height and 0 <= m < width):
            raise UsageError(
                f"--frequencies must lie below {height} and {width}, got {l} {m}."
            )
    eps = options.eps
    if eps is None:
        eps = DATASETS[options.dataset].conditions.single_fourier_eps
    images = _one_a_class(dataset.test, options.images) / np.float32(255)
    figure = draw(images, frequencies, eps)
    title = (
        f"Figure 1, {DATASETS[options.dataset].label}\n"
        f"Single Fourier Attack at (l, m), eps = {255 * eps:g}/255"
    )
    return save(figure, title, options.results_dir / "figure1" / options.dataset)
