"""Pictures decoded, cut and resized as torchvision does."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments.data import pictures


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="jpeg", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def weights(inside, outside):
    """(outside, inside): the triangle filter, as wide as a pixel of the result."""
    scale = inside / outside
    centres = (np.arange(outside) + 0.5) * scale
    distances = (np.arange(inside) + 0.5 - centres[:, None]) / max(scale, 1)
    triangle = np.clip(1 - np.abs(distances), 0, None)
    return triangle / triangle.sum(axis=1, keepdims=True)


def bilinear(image, width, height):
    """Averages over columns and then over rows, in 8 bits each."""
    pixels = np.asarray(image, np.float64)
    rows, columns = pixels.shape[:2]
    pixels = np.rint(np.einsum("xc,rck->rxk", weights(columns, width), pixels))
    return np.rint(np.einsum("yr,rxk->yxk", weights(rows, height), pixels))


def is_close(image, expected):
    """Whether images are the same but for the rounding of Pillow's weights."""
    difference = np.abs(image - expected)
    return difference.max() <= 2 and difference.mean() < 0.05


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_of_jpeg_becomes_rgb(mode):
    image = noise(60, 45).convert(mode)
    decoded = pictures.decode(encoded(image, quality=95))
    assert (decoded.mode, decoded.size) == ("RGB", (60, 45))
    difference = np.asarray(decoded, int) - np.asarray(image.convert("RGB"), int)
    assert np.abs(difference).mean() < 5


def test_a_png_is_decoded_too():
    decoded = pictures.decode(encoded(noise(60, 45), "png"))
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(noise(60, 45)))


def test_exif_orientation_has_no_effect():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    plain, turned = encoded(noise(60, 45)), encoded(noise(60, 45), exif=exif)
    assert plain != turned
    one, other = pictures.decode(plain), pictures.decode(turned)
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.98])
def test_a_part_of_a_picture_is_an_error(share):
    data = encoded(noise(300, 260), quality=95)
    with pytest.raises(ValueError, match="not a picture that can be decoded"):
        pictures.decode(data[: int(share * len(data))])


def test_no_picture_is_an_error():
    with pytest.raises(ValueError, match="not a picture that can be decoded"):
        pictures.decode(b"GET / HTTP/1.1")


def draws(width, height, count=4000):
    rng = np.random.default_rng(0)
    boxes = [pictures.random_box(rng, width, height) for _ in range(count)]
    return np.array(boxes).T


def quantiles(values):
    return np.quantile(values, np.linspace(0.05, 0.95, 7))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (1000, 1200)])
def test_crops_are_distributed_as_torchvision_documents(width, height):
    left, upper, right, lower = draws(width, height)
    w, h = right - left, lower - upper
    assert left.min() >= 0
    assert upper.min() >= 0
    assert right.max() <= width
    assert lower.max() <= height
    area, ratio = w * h / (width * height), np.log(w / h)
    # Half a pixel of rounding in width and height.
    assert 0.078 <= area.min() < 0.1
    assert 0.9 < area.max() <= 1
    assert np.abs(ratio).max() < np.log(4 / 3) + 0.02

    # All tries at once, of which the first that fits is taken.
    rng = np.random.default_rng(1)
    areas = rng.uniform(0.08, 1, (20_000, 10)) * width * height
    ratios = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), (20_000, 10)))
    wide, high = np.sqrt(areas * ratios), np.sqrt(areas / ratios)
    fits = (wide <= width) & (high <= height)
    first = fits.argmax(axis=1)[fits.any(axis=1), None]
    wide, high = (
        np.take_along_axis(sides[fits.any(axis=1)], first, 1)[:, 0]
        for sides in (wide, high)
    )
    for ours, expected in (
        (area, wide * high / (width * height)),
        (ratio, np.log(wide / high)),
    ):
        np.testing.assert_allclose(quantiles(ours), quantiles(expected), atol=0.03)

    # The place is uniform where the crop fits.
    for first, free in ((left, width - w), (upper, height - h)):
        share = (first[free > 50] + 0.5) / (free[free > 50] + 1)
        np.testing.assert_allclose(
            quantiles(share), np.linspace(0.05, 0.95, 7), atol=0.03
        )


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1000, 10), (493, 0, 506, 10)),  # 10 * 4 / 3 wide
        ((10, 1000), (0, 493, 10, 506)),  # 10 / (3 / 4) high
        ((40, 40), (0, 0, 40, 40)),
    ],
)
def test_where_no_draw_fits_the_middle_is_taken(size, box):
    class Largest:
        """Draws the whole area and the widest ratio, which fit none of these."""

        def uniform(self, low, high):
            return high

    assert pictures.random_box(Largest(), *size) == box


def test_the_smallest_picture_is_cut_too():
    box = pictures.random_box(np.random.default_rng(0), 1, 1)
    assert box == (0, 0, 1, 1)


def test_a_training_image_is_the_resized_crop_mirrored_in_half_of_the_cases():
    image = noise(310, 230)
    mirrored = 0
    for seed in range(40):
        left, upper, right, lower = pictures.random_box(
            np.random.default_rng(seed), *image.size
        )
        part = np.asarray(image)[upper:lower, left:right]
        expected = bilinear(part, 224, 224)
        ours = pictures.augmented(image, np.random.default_rng(seed))
        assert (ours.shape, ours.dtype) == ((224, 224, 3), np.uint8)
        plain, flipped = is_close(ours, expected), is_close(ours, expected[:, ::-1])
        assert plain != flipped
        mirrored += flipped
    # 20 expected, with a standard deviation of 3.2.
    assert 10 <= mirrored <= 30


@pytest.mark.parametrize(
    ("size", "resized", "corner"),
    [
        # (341 - 224) / 2 = 58.5 is rounded to the even number, as torchvision does.
        ((500, 375), (341, 256), (58, 16)),
        ((375, 500), (256, 341), (16, 58)),
        ((60, 45), (341, 256), (58, 16)),
        ((300, 256), (300, 256), (38, 16)),
        ((256, 256), (256, 256), (16, 16)),
        ((45, 400), (256, 2275), (16, 1026)),
    ],
)
def test_an_evaluated_image_is_the_centre_of_the_resized_picture(size, resized, corner):
    image = noise(*size)
    left, upper = corner
    expected = bilinear(image, *resized)[upper : upper + 224, left : left + 224]
    ours = pictures.centre(image)
    assert (ours.shape, ours.dtype) == ((224, 224, 3), np.uint8)
    assert is_close(ours, expected)
