"""Random crops and flips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import augmentation
from experiments.data.augmentation import Augmentation

crop_and_flip = jax.jit(augmentation.crop_and_flip, static_argnames="padding")
draw = jax.jit(augmentation.draw, static_argnums=(1, 2))
augment = jax.jit(augmentation.augment, static_argnums=2)


def _images(examples=40, shape=(6, 5, 3), dtype=np.uint8):
    values = np.random.default_rng(0).integers(1, 256, (examples, *shape))
    return jnp.asarray(values.astype(dtype))


def _oracle(images, drawn, padding):
    """Pads, cuts and mirrors one image after the other."""
    height, width = images.shape[1:3]
    augmented = []
    for image, row, column, flipped in zip(np.asarray(images), *drawn, strict=True):
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        cut = padded[row : row + height, column : column + width]
        augmented.append(cut[:, ::-1] if flipped else cut)
    return np.stack(augmented)


@pytest.mark.parametrize(
    ("dtype", "shape", "padding"),
    [
        (np.uint8, (6, 5, 3), 2),
        (np.uint8, (5, 6, 1), 0),
        (np.float32, (5, 6, 1), 2),
        (jnp.bfloat16, (6, 5, 3), 7),
    ],
)
def test_matches_an_oracle(dtype, shape, padding):
    images = _images(shape=shape, dtype=dtype)
    key = jax.random.key(1)
    augmented = crop_and_flip(key, images, padding=padding)
    assert augmented.dtype == images.dtype
    drawn = [np.asarray(values) for values in draw(key, len(images), padding)]
    np.testing.assert_array_equal(augmented, _oracle(images, drawn, padding))


def test_every_corner_of_the_padded_image_is_reached():
    images = _images(4, (3, 3, 1))
    drawn = Augmentation(
        jnp.array([0, 0, 4, 4]), jnp.array([0, 4, 0, 4]), jnp.zeros(4, bool)
    )
    augmented = np.asarray(augment(images, drawn, 2))
    # One pixel of the image is left in each, in the opposite corner; zeros elsewhere.
    for i, (there, here) in enumerate(
        [((0, 0), (2, 2)), ((0, 2), (2, 0)), ((2, 0), (0, 2)), ((2, 2), (0, 0))]
    ):
        assert augmented[i][here] == images[i][there]
        assert np.count_nonzero(augmented[i]) == 1


def test_without_padding_and_flips_nothing_changes():
    images = _images()
    still = Augmentation(*(jnp.zeros(len(images), int),) * 3)
    np.testing.assert_array_equal(augment(images, still, 0), images)


def test_offsets_and_flips_are_uniform_and_independent():
    examples, padding = 40_000, 4
    key = jax.random.key(3)
    rows, columns, flipped = map(np.asarray, draw(key, examples, padding))
    counts = np.zeros((9, 9, 2))
    np.add.at(counts, (rows, columns, flipped.astype(int)), 1)
    expected = examples / counts.size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # 161 degrees of freedom: the probability of more than 230 is below 0.0003.
    assert chi_square < 230


def test_is_a_function_of_the_key_alone():
    images = _images()
    one, again, other = (
        crop_and_flip(jax.random.key(seed), images) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (np.asarray(one) != np.asarray(other)).any()


def test_vmap_over_keys_and_scan():
    images = _images()
    keys = jax.random.split(jax.random.key(0), 3)
    expected = np.stack([crop_and_flip(key, images, padding=2) for key in keys])

    def one(key):
        return crop_and_flip(key, images, padding=2)

    np.testing.assert_array_equal(jax.vmap(one)(keys), expected)
    _, scanned = jax.lax.scan(lambda carry, key: (carry, one(key)), 0, keys)
    np.testing.assert_array_equal(scanned, expected)


def test_a_sharded_batch_gives_the_same_images():
    images = _images()
    key = jax.random.key(0)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("batch"))
    augmented = crop_and_flip(key, jax.device_put(images, sharding))
    assert augmented.sharding.is_equivalent_to(sharding, images.ndim)
    np.testing.assert_array_equal(augmented, crop_and_flip(key, images))
