"""Pictures of any size as images of one size, as PyTorch's ImageNet example has them.

That is torchvision's `RandomResizedCrop` and `RandomHorizontalFlip` in training, its
`Resize` and `CenterCrop` in evaluation, with Pillow's bilinear resampling, which
averages over all pixels that become one.
"""

import io
import math

import numpy as np
from PIL import Image

SIZE = 224
RESIZED = 256  # the shorter side, before its centre is taken for evaluation
AREAS = (0.08, 1.0)  # of a random crop, as shares of the picture's
ASPECT_RATIOS = (3 / 4, 4 / 3)  # width over height of a random crop
_TRIES = 10

Box = tuple[int, int, int, int]  # left, upper, right and lower, the last two excluded


def decode(data: bytes) -> Image.Image:
    """Decodes a picture to RGB; its EXIF orientation has no effect.

    Args:
      data: a JPEG, or another format that Pillow reads, of any size, grey, RGB or CMYK.

    Raises:
      ValueError: if it is no picture, or a damaged one or a part of one.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a picture that can be decoded: {error}") from error


def random_box(rng: np.random.Generator, width: int, height: int) -> Box:
    """Draws the part of a picture that an image is made of.

    Its share of the area is uniform in `AREAS`, the logarithm of its aspect ratio in
    that of `ASPECT_RATIOS`, its place where it fits. Where none of ten draws fits, it
    is the largest part in the middle whose aspect ratio is allowed.
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
    """A random part of a picture, resized, and mirrored in half of the cases.

    Args:
      image: an RGB picture.
      rng: what decides.

    Returns:
      An image (224, 224, 3) uint8.
    """
    # Cut before it is resized: `resize(box=...)` would average over pixels outside.
    part = image.crop(random_box(rng, *image.size))
    resized = part.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(resized)


def centre(image: Image.Image) -> np.ndarray:
    """The middle of a picture whose shorter side is made 256.

    Args:
      image: an RGB picture.

    Returns:
      An image (224, 224, 3) uint8.
    """
    shorter = min(image.size)
    # Rounded down, as torchvision does.
    width, height = (RESIZED * side // shorter for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, upper = round((width - SIZE) / 2), round((height - SIZE) / 2)
    return np.asarray(image.crop((left, upper, left + SIZE, upper + SIZE)))
