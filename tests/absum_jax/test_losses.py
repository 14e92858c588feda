"""attacks/losses.py: values by hand, gradients, and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import absum_jax

LOGITS = np.float32([[1, 5, 3, 2], [4, 0, 3, -1]])


def test_difference_of_logits_ratio():
    # (3 - 5) / (5 - 2), and the label 2 that is not the largest: (4 - 3) / (4 - 0).
    values = absum_jax.dlr_loss(LOGITS, np.array([1, 2]))
    np.testing.assert_allclose(values, [-2 / 3, 1 / 4], rtol=1e-6)
    # The smallest logit: (4 + 1) / (4 - 0), more than 1.
    assert absum_jax.dlr_loss(LOGITS[1:], np.array([3])) == pytest.approx(5 / 4)


def test_targeted_difference_of_logits_ratio():
    # (2 - 5) / (5 - (2 + 1) / 2) and (-1 - 4) / (4 - (0 - 1) / 2).
    y, target = np.array([1, 0]), np.array([3, 3])
    values = absum_jax.targeted_dlr_loss(LOGITS, y, target)
    np.testing.assert_allclose(values, [-3 / 3.5, -5 / 4.5], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_ratios_do_not_depend_on_scale_or_offset(scale):
    y, target = np.array([1, 0]), np.array([3, 3])
    moved = scale * (LOGITS + 2)
    for loss, rest in (
        (absum_jax.dlr_loss, (y,)),
        (absum_jax.targeted_dlr_loss, (y, target)),
    ):
        np.testing.assert_allclose(loss(moved, *rest), loss(LOGITS, *rest), rtol=1e-5)


def test_equal_logits_have_a_finite_loss_and_gradient():
    flat, y = jnp.ones((1, 4)), jnp.array([1])
    for loss in (
        lambda z: absum_jax.dlr_loss(z, y)[0],
        lambda z: absum_jax.targeted_dlr_loss(z, y, y + 1)[0],
    ):
        value, gradient = jax.value_and_grad(loss)(flat)
        assert value == 0
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_equal_logits_of_half_precision(dtype):
    flat, y = jnp.ones((1, 4), dtype), jnp.array([1])
    for found in (
        absum_jax.dlr_loss(flat, y), absum_jax.targeted_dlr_loss(flat, y, y + 1)
    ):  # fmt: skip
        assert (found.dtype, found.tolist()) == (jnp.float32, [0.0])


@pytest.mark.parametrize(
    ("loss", "classes", "least"),
    [
        (absum_jax.margin_loss, 1, "two"),
        (absum_jax.dlr_loss, 2, "three"),
        (lambda z, y: absum_jax.targeted_dlr_loss(z, y, y), 3, "four"),
    ],
    ids=["margin", "dlr", "targeted dlr"],
)
def test_too_few_classes(loss, classes, least):
    with pytest.raises(ValueError, match=f"`logits` must be .* at least {least}"):
        loss(np.ones((2, classes), np.float32), np.zeros(2, int))


def test_targets_are_classes():
    y = np.array([1, 0])
    with pytest.raises(ValueError, match=r"`target` must lie in 0\.\.3"):
        absum_jax.targeted_dlr_loss(LOGITS, y, y + 4)
    with pytest.raises(ValueError, match="`target` must hold one label"):
        absum_jax.targeted_dlr_loss(LOGITS, y, y[:1])
