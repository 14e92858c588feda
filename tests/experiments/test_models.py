"""The small CNN: its size, its two forms, its dropout, its initial parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.models import build, patches
from experiments.models.small_cnn import SmallCNN

_FORMS = ("native", "patches")


def _images(examples=4, seed=0):
    return jax.random.uniform(jax.random.key(seed), (examples, 28, 28, 1))


def test_parameter_count(classifier):
    # 260 + 5,020 + 16,050 + 510, as published: 21,840.
    params = classifier.init(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 21_840


@pytest.mark.parametrize("seed", [0, 1])
def test_both_forms_compute_the_same(seed):
    models = [
        SmallCNN(mean=(0.2,), std=(0.5,), form=form, rngs=nnx.Rngs(seed))
        for form in ("patches", "native")
    ]
    logits = [nnx.view(model, deterministic=True)(_images()) for model in models]
    np.testing.assert_allclose(*logits, atol=2e-6)


def test_forward_pass_matches_numpy():
    model = SmallCNN(mean=(0.2,), std=(0.5,), rngs=nnx.Rngs(0))
    p = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64),
        nnx.to_pure_dict(nnx.state(model, nnx.Param)),
    )
    x = (np.asarray(_images(), np.float64) - 0.2) / 0.5
    for name in ("conv1", "conv2"):
        kernel = p[name]["kernel"]
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
        x = np.einsum("bhwiyx,yxio->bhwo", windows, kernel) + p[name]["bias"]
        b, h, w, c = x.shape
        x = np.maximum(x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4)), 0)
    x = x.reshape(len(x), -1)
    x = np.maximum(x @ p["dense1"]["kernel"] + p["dense1"]["bias"], 0)
    expected = x @ p["dense2"]["kernel"] + p["dense2"]["bias"]
    logits = nnx.view(model, deterministic=True)(_images())
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_initial_parameters_are_uniform_with_torch_limits(classifier):
    params = jax.jit(jax.vmap(classifier.init))(jax.random.split(jax.random.key(0), 50))
    for name, fan_in in (
        ("conv1", 25),
        ("conv2", 250),
        ("dense1", 320),
        ("dense2", 50),
    ):
        for leaf in params.params[name].values():
            limit = fan_in**-0.5
            assert jnp.abs(leaf).max() <= limit
            # A uniform variable's standard deviation is limit / sqrt(3).
            assert leaf.std() == pytest.approx(limit / 3**0.5, rel=0.1)


def test_dropout_drops_whole_channels_and_scales():
    model = SmallCNN(rngs=nnx.Rngs(0))
    ones = jnp.ones((20, 8, 8, 64))
    dropped = model.channel_dropout(ones, rngs=jax.random.key(0))
    values = np.unique(np.asarray(dropped))
    assert values.tolist() == [0.0, 2.0]
    spread = np.asarray(dropped).max(axis=(1, 2)) - np.asarray(dropped).min(axis=(1, 2))
    assert (spread == 0).all()
    assert (np.asarray(dropped).max(axis=(1, 2)) == 0).mean() == pytest.approx(
        0.5, abs=0.1
    )


def test_dropout_acts_in_training_alone(classifier):
    params = classifier.init(jax.random.key(0))
    x = _images()
    (one, _), (two, _) = (
        classifier.train_logits(params, x, jax.random.key(k)) for k in (0, 1)
    )
    assert not np.allclose(one, two)
    again, _ = classifier.train_logits(params, x, jax.random.key(0))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, classifier.logits(params, x))


def test_vmapped_models_equal_single_ones(classifier):
    params = jax.jit(jax.vmap(classifier.init))(jax.random.split(jax.random.key(0), 3))
    together = jax.jit(jax.vmap(classifier.logits, (0, None)))(params, _images())
    for i in range(3):
        alone = classifier.logits(
            jax.tree.map(lambda leaf, i=i: leaf[i], params), _images()
        )
        np.testing.assert_allclose(together[i], alone, atol=2e-6)


def test_the_same_classifier_is_built_once():
    assert build("small_cnn", (0.1,), (0.2,)) is build("small_cnn", (0.1,), (0.2,))


@pytest.mark.parametrize(("size", "axis"), [(5, 1), (3, 2), (1, 1)])
def test_folding_is_the_transpose_of_unfolding(size, axis):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 8, 3)).astype(np.float32)
    unfold = functools.partial(patches._unfold, size=size, axis=axis)
    windows = rng.normal(size=unfold(x).shape).astype(np.float32)
    # <unfold x, w> = <x, fold w>, the definition.
    folded = patches._fold(windows, size, axis)
    np.testing.assert_allclose(
        np.vdot(unfold(x), windows), np.vdot(x, folded), rtol=1e-5
    )


# Heights of the output that bands of 4, 3, 2 and 1 rows divide, and less than a band.
@pytest.mark.parametrize("height", [8, 9, 10, 7, 2])
@pytest.mark.parametrize("form", [patches._in_bands, patches._in_patches])
def test_products_are_convolutions_with_their_gradients(form, height):
    size, inputs, outputs = 3, 2, 5
    rng = np.random.default_rng(height)
    kernel = rng.normal(size=(size, size, inputs, outputs))
    x = rng.normal(size=(inputs, height + size - 1, 7, 4))
    g = rng.normal(size=(outputs, height, 5, 4))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    out, pull = jax.vjp(form, *(jnp.asarray(a, jnp.float32) for a in (kernel, x)))
    of_kernel, of_x = pull(jnp.asarray(g, jnp.float32))
    expected = np.einsum("ihwbyx,yxio->ohwb", windows, kernel)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    np.testing.assert_allclose(
        of_kernel, np.einsum("ihwbyx,ohwb->yxio", windows, g), atol=5e-5
    )
    wide = np.pad(g, ((0, 0), (size - 1,) * 2, (size - 1,) * 2, (0, 0)))
    wide = np.lib.stride_tricks.sliding_window_view(wide, (size, size), axis=(1, 2))
    flipped = kernel[::-1, ::-1]
    np.testing.assert_allclose(
        of_x, np.einsum("ohwbyx,yxio->ihwb", wide, flipped), atol=2e-5
    )


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_bands_are_for_cpus(platform):
    shapes = [(5, 5, 10, 20), (20,), (10, 12, 12, 8)]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    traced = jax.jit(patches.patch_conv).trace(*arguments)

    def products(platform):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return text.count("stablehlo.dot_general")

    assert products(platform) == 1
    assert products("cpu") == 2  # eight rows in two bands


@pytest.mark.slow
@pytest.mark.parametrize("of", ["images", "parameters"])
def test_both_forms_have_the_same_gradient(of):
    native, fast = (SmallCNN(form=form, rngs=nnx.Rngs(0)) for form in _FORMS)
    for model in (native, fast):
        model.eval()
    x = jax.random.uniform(jax.random.key(0), (6, 28, 28, 1))

    def gradient(model):
        graphdef, params = nnx.split(model, nnx.Param)

        def loss(params, x):
            return jnp.sin(nnx.merge(graphdef, params)(x)).sum()

        argnums = ["parameters", "images"].index(of)
        return jax.jit(jax.grad(loss, argnums))(params, x)

    one, other = (jax.tree.leaves(gradient(model)) for model in (native, fast))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
