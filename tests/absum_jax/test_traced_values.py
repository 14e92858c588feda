"""Values inside a trace: not looked at, and NaN where they must not be negative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from four_images import KERNEL, KEY, MODEL, PARAMS, PGD, X, Y, accuracy, pgd

import absum_jax

TRACED = {
    "threshold": lambda n: absum_jax.prox_absum(KERNEL, n),
    "strength": lambda n: absum_jax.absum(n, learning_rate=n).update(
        PARAMS, absum_jax.absum(n, learning_rate=n).init(PARAMS), PARAMS
    ),
    "eps": lambda n: absum_jax.single_fourier_attack(X, 0, 1, n),
    "images": lambda n: absum_jax.single_fourier_attack(X * n * 300, 0, 1, 0.1),
    "bounds": lambda n: absum_jax.single_fourier_attack(X, 0, 1, 0.1, bounds=(n, n)),
    "l": lambda n: absum_jax.single_fourier_attack(X, n.astype(int), 1, 0.1),
    "labels": lambda n: accuracy(y=jnp.full(4, n, int)),
    "frequencies": lambda n: absum_jax.single_fourier_accuracy(
        MODEL, X, Y, 0.1, frequencies=jnp.full((1, 2), n, int)
    ),
    "eps of pgd": lambda n: pgd(eps=n),
    "list of eps": lambda n: pgd(eps=jnp.stack([n, 2 * n]), step_size=n),
    "steps": lambda n: pgd(steps=n.astype(int)),
    "images of fgsm": lambda n: absum_jax.fgsm(MODEL, X * n * 300, Y, eps=0.1),
    "labels of pgd": lambda n: absum_jax.pgd_accuracy(
        MODEL, X, jnp.full(4, n, int), **PGD
    ),
    "norm": lambda n: absum_jax.fourier_noise_accuracy(MODEL, X, Y, n, key=KEY),
    "radius": lambda n: absum_jax.low_pass(X, n),
    "radii of a band": lambda n: absum_jax.band_pass(X, n, n),
    "severity": lambda n: absum_jax.corrupt(X, "contrast", n.astype(int), key=KEY),
    "severities": lambda n: absum_jax.corruption_accuracy(
        MODEL, X, Y, "contrast", jnp.full(2, n, int), key=KEY
    ),
    "labels of a sensitivity": lambda n: absum_jax.fourier_sensitivity(
        MODEL, X, jnp.full(4, n, int)
    ),
    "radii": lambda n: absum_jax.high_pass_accuracy(MODEL, X, Y, jnp.stack([n, n])),
}


@pytest.mark.parametrize("name", TRACED)
def test_values_are_not_looked_at_inside_jit(name):
    result = jax.eval_shape(TRACED[name], jnp.float32(-1.0))
    assert jax.tree.leaves(result)


def test_concrete_values_inside_jit_are_looked_at():
    labels, images = jnp.array(Y + 1), jnp.array(X * 255)
    with pytest.raises(ValueError, match="`y` must lie in"):
        jax.eval_shape(lambda x: absum_jax.accuracy(MODEL, x, labels), X)
    with pytest.raises(ValueError, match="`x` must lie within"):
        jax.eval_shape(
            lambda eps: absum_jax.single_fourier_attack(images, 0, 1, eps), 0.1
        )
    with pytest.raises(ValueError, match="`l` must lie in"):
        jax.eval_shape(lambda eps: absum_jax.single_fourier_attack(X, 4, 1, eps), 0.1)
    with pytest.raises(ValueError, match="`radius` must be non-negative"):
        jax.eval_shape(lambda x: absum_jax.low_pass(x, -1.0), X)


def test_a_concrete_list_inside_jit_is_looked_at():
    negative = jnp.array([0.1, -0.1])
    with pytest.raises(ValueError, match="`eps` must be non-negative"):
        jax.eval_shape(lambda x: absum_jax.fgsm(MODEL, x, Y, eps=negative), X)
    with pytest.raises(ValueError, match="`radius` must be non-negative"):
        jax.eval_shape(lambda x: absum_jax.low_pass_accuracy(MODEL, x, Y, negative), X)


# A traced negative number cannot be refused: the result is NaN, not a wrong number.
POISONED = {
    "prox_absum": lambda n: absum_jax.prox_absum(KERNEL, n),
    "prox_l1": lambda n: absum_jax.prox_l1(KERNEL, n),
    "absum": lambda n: absum_jax.apply_proximal_updates(
        PARAMS, PARAMS, absum_jax.prox_absum, n
    ),
    "clip": lambda n: absum_jax.clip_conv_spectral_norm(KERNEL, (4, 4), n),
    "rescale": lambda n: absum_jax.apply_spectral_normalization(
        PARAMS, n, {"conv/kernel": (4, 4)}
    ),
    "low_pass": lambda n: absum_jax.low_pass(X, n),
    "band_pass": lambda n: absum_jax.band_pass(X, n, 2.0),
    "band_stop": lambda n: absum_jax.band_stop(X, 0.0, n),
    "pgd": lambda n: pgd(eps=n),
    "single_fourier": lambda n: absum_jax.single_fourier_perturbation(0, 1, (4, 4), n),
}


@pytest.mark.parametrize("name", POISONED)
def test_traced_negative_numbers_give_nan(name):
    function = jax.jit(POISONED[name])
    for wrong in (-1.0, np.nan):
        assert all(map(np.isnan, map(np.sum, jax.tree.leaves(function(wrong)))))
    assert not any(map(np.isnan, map(np.sum, jax.tree.leaves(function(0.5)))))


@pytest.mark.parametrize("tx", ["absum", "l1"])
def test_traced_negative_schedules_give_nan(tx):
    tx = getattr(absum_jax, tx)(lambda count: 1.0 - count, learning_rate=0.1)

    @jax.jit
    def step(updates, state):
        return tx.update(updates, state, PARAMS)

    updates, state = step(PARAMS, tx.init(PARAMS))
    for _ in range(2):
        assert not np.isnan(updates["conv"]["kernel"]).any()
        updates, state = step(PARAMS, state)
    assert np.isnan(updates["conv"]["kernel"]).all()


def test_traced_labels_beyond_the_classes_are_never_right():
    labels = jnp.array([-1, 3, 2**31 - 1, int(MODEL(X).argmax(-1)[3])])
    for k in (1, 3):
        right = jax.jit(lambda y, k=k: accuracy(y=y, top_k=k))(labels)
        assert right == 0.25
