"""Crops and resizes pictures of any size as PyTorch's ImageNet example does.

That is torchvision's `RandomResizedCrop` and `RandomHorizontalFlip` in training, its
`Resize` and `CenterCrop` in evaluation, with Pillow's bilinear resampling, which
averages over all pixels that are merged into one.
"""

import io
import math

import numpy as np
from PIL import Image

SIZE = 224
RESIZED = 256  # shorter side before the center crop of evaluation
AREAS = (0.08, 1.0)  # of a random crop, as fractions of the picture's
ASPECT_RATIOS = (3 / 4, 4 / 3)  # width over height of a random crop
_TRIES = 10

Box = tuple[int, int, int, int]  # left, upper, right and lower; the last two exclusive


def decode(data: bytes) -> Image.Image:
    """Decodes a picture to RGB, without regard to its EXIF orientation.

    Raises:
      ValueError: if it is not a picture, or damaged or incomplete.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a picture that can be decoded: {error}") from error


def random_box(rng: np.random.Generator, width: int, height: int) -> Box:
    """Draws a random crop of a picture.

    Its fraction of the area is uniform in `AREAS`, the logarithm of its aspect ratio in
    that of `ASPECT_RATIOS`, and its position among those that fit. If none of ten draws
    fits, it is the largest centered crop with an allowed aspect ratio.
    """
    low, high = np.log(ASPECT_RATIOS)
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*AREAS)
        aspect_ratio = math.exp(rng.uniform(low, high))
        w = round(math.sqrt(area * aspect_ratio))
        h = round(math.sqrt(area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            upper = int(rng.integers(height - h + 1))
            left = int(rng.integers(width - w + 1))
            return left, upper, left + w, upper + h
    w = min(width, round(height * ASPECT_RATIOS[1]))
    h = min(height, round(width / ASPECT_RATIOS[0]))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def augmented(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Crops an RGB picture at random, resizes it, and mirrors it half of the time."""
    # Cropped before resizing: `resize(box=...)` would average over pixels outside.
    part = image.crop(random_box(rng, *image.size))
    resized = part.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(resized)


def centre(image: Image.Image) -> np.ndarray:
    """Resizes an RGB picture to a shorter side of 256 and crops its center."""
    shorter = min(image.size)
    # Rounded down, as torchvision does.
    width, height = (RESIZED * side // shorter for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, upper = round((width - SIZE) / 2), round((height - SIZE) / 2)
    return np.asarray(image.crop((left, upper, left + SIZE, upper + SIZE)))
