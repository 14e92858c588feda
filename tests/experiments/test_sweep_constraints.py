"""SNC in a sweep: the right models, at the right steps, by the right rule."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core

import absum_jax
from experiments.config import NONE, Setting
from experiments.methods import METHODS, SNC_METHODS, SNC_NUMPY_AXES
from experiments.models import Variables
from experiments.options import SweepOptions
from experiments.studies.snc_constraints import OTHER_READINGS
from experiments.training import optimization, programs, step
from experiments.training.constraints import constrain, constrained

BATCH, LEARNING_RATE, MOMENTUM = 32, 0.05, 0.5


@pytest.fixture(scope="module")
def params(classifier):
    """Parameters whose norms are all above one."""
    drawn = classifier.init(jax.random.key(0)).params
    return jax.tree.map(lambda leaf: 4 * leaf, drawn)


@pytest.fixture(scope="module")
def uses(classifier):
    return classifier.conv_uses((28, 28, 1))


def _norms(params, uses):
    return {
        name: float(
            absum_jax.conv_spectral_norm(
                params[name.split("/")[0]]["kernel"], use.input_shape
            )
        )
        for name, [use] in uses.items()
    }


def _clipped(method, params, bound, uses):
    apply = METHODS[method].constraint.apply
    return jax.jit(lambda params: apply(params, jnp.float32(bound), uses))(params)


def test_table_1_has_33_models():
    # No regularization, nine strengths of three methods, five bounds (P, "Conditions").
    settings = SweepOptions().settings
    assert len(settings) == len(set(settings)) == 33
    assert [s.strength for s in settings if s.method == "snc"] == [
        0.01, 0.1, 0.5, 1.0, 10.0,
    ]  # fmt: skip


def test_the_kernels_are_seen_through_the_native_form(uses):
    # 5 x 5 without padding, pooled by two (P, appendix).
    assert {
        name: (use.input_shape, use.output_shape) for name, [use] in uses.items()
    } == {
        "conv1/kernel": ((28, 28), (24, 24)),
        "conv2/kernel": ((12, 12), (8, 8)),
    }


@pytest.fixture
def every_other(monkeypatch):
    """SNC that acts at every other step, so that a short run sees it act and not."""
    constraint = METHODS["snc"].constraint._replace(every=2)
    other = dataclasses.replace(METHODS["snc"], name="snc-other", constraint=constraint)
    monkeypatch.setitem(METHODS, "snc-other", other)
    return Setting("snc-other", 0.3)


def _data(noise):
    return jnp.asarray(noise.images), jnp.asarray(noise.labels)


def _spec(classifier, noise, settings):
    return step.TrainSpec(
        classifier, BATCH, len(noise) // BATCH, constrained=constrained(settings)
    )


def _sweep(classifier, noise, settings, epochs):
    seeds = jnp.array([0])
    h = optimization.hyperparameters(settings, LEARNING_RATE, MOMENTUM)
    state = step.init_sweep(classifier, seeds, h)
    for epoch in range(epochs):
        state, _ = programs.train_steps(
            _spec(classifier, noise, settings), state, seeds, h, *_data(noise),
            optimization.schedule(epoch, epochs),
        )  # fmt: skip
    return state.variables.params


def test_a_sweep_does_what_the_optax_chain_does(classifier, noise, uses, every_other):
    """Three steps an epoch: clips after the steps 2, 4 and 6 cross epochs."""
    settings = (NONE, every_other, Setting("absum", 0.05))
    swept = _sweep(classifier, noise, settings, epochs=2)

    chain = optax.chain(
        optax.sgd(LEARNING_RATE, momentum=MOMENTUM),
        absum_jax.spectral_norm_constraint(0.3, uses, every=2),
    )
    images, labels = _data(noise)

    @jax.jit
    def update(params, state, x, y, key):
        def loss(params):
            logits, _ = classifier.train_logits(Variables(params, {}), x, key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = chain.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    alone = classifier.init(step._stream(0, step._INIT)).params
    state = chain.init(alone)
    for epoch in range(2):
        order_key = jax.random.fold_in(step._stream(0, step._ORDER), epoch)
        key = jax.random.fold_in(step._stream(0, step._DROPOUT), epoch)
        order = jax.random.permutation(order_key, len(labels)).reshape(-1, BATCH)
        for i, batch in enumerate(order):
            alone, state = update(
                alone, state, images[batch] / jnp.float32(255), labels[batch],
                jax.random.fold_in(key, i),
            )  # fmt: skip
    last = jax.tree.map(lambda leaf: leaf[0, 1], swept)
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    # And the models beside it are left alone.
    without = _sweep(classifier, noise, (NONE, Setting("absum", 0.05)), epochs=2)
    for a, b in zip(jax.tree.leaves(swept), jax.tree.leaves(without), strict=True):
        np.testing.assert_allclose(a[0, [0, 2]], b[0], atol=2e-5)


def _outermost_conditions(jaxpr):
    """Counts conditions that lie in no other one, the same on each platform."""
    count = 0
    for eqn in jaxpr.eqns:
        on_platform = eqn.params.get("branches_platforms")
        if eqn.primitive.name == "cond" and not on_platform:
            count += 1
            continue
        inner = [*map(_outermost_conditions, core.jaxprs_in_params(eqn.params))]
        # One of the branches is chosen when the program is lowered.
        of_each = set(inner) if on_platform else inner
        assert not on_platform or len(of_each) == 1
        count += sum(of_each)
    return count


def test_the_condition_is_one_for_all_models(classifier, noise):
    """A condition of each model's own would become a selection, and clip always."""
    settings = (NONE, Setting("snc", 1.0), Setting("snc", 10.0))
    seeds = jnp.array([0, 1])
    h = optimization.hyperparameters(settings, LEARNING_RATE, MOMENTUM)
    state = jax.eval_shape(lambda: step.init_sweep(classifier, seeds, h))

    def conditionals(settings):
        jaxpr = jax.make_jaxpr(
            lambda state: programs.train_steps(
                _spec(classifier, noise, settings), state, seeds, h, *_data(noise),
                optimization.schedule(0, 3),
            )
        )(state)  # fmt: skip
        return _outermost_conditions(jaxpr.jaxpr)

    assert conditionals((NONE,) * 3) == 0
    assert conditionals(settings) == 1


def test_only_models_with_a_constraint_that_are_due_change(params, uses):
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
    settings = (NONE, Setting("snc", 1.0), Setting("snc-last", 1.0))
    bounds = jnp.array([jnp.inf, 1.0, 1.0])

    @jax.jit
    def after(count):
        return constrain(
            stacked,
            {"snc": bounds, "snc-last": bounds},
            uses,
            constrained(settings),
            count,
            jnp.asarray(250),
        )

    def changed(count):
        kernels = after(jnp.asarray(count))["conv2"]["kernel"]
        return [bool((k != params["conv2"]["kernel"]).any()) for k in kernels]

    assert changed(99) == [False, False, False]
    assert changed(100) == changed(200) == [False, True, True]
    assert changed(250) == [False, False, True]


@pytest.mark.parametrize("reading", [*SNC_METHODS, *OTHER_READINGS])
def test_each_reading_bounds_what_it_says(reading, params, uses):
    moved = _clipped(reading, params, 0.5, uses)
    assert jax.tree.structure(moved) == jax.tree.structure(params)
    before, after = _norms(params, uses), _norms(moved, uses)
    kernels = {name: moved[name]["kernel"] for name in ("conv1", "conv2")}
    dense = [np.linalg.norm(moved[name]["kernel"], 2) for name in ("dense1", "dense2")]
    untouched = [
        np.linalg.norm(params[name]["kernel"], 2) for name in ("dense1", "dense2")
    ]
    if reading == "snc-dense":
        np.testing.assert_allclose(dense, 0.5, rtol=1e-5)
    else:
        np.testing.assert_array_equal(dense, untouched)
    if reading == "snc-rescaled":
        np.testing.assert_allclose(list(after.values()), 0.5, rtol=1e-5)
        for name, kernel in kernels.items():
            old = params[name]["kernel"]
            np.testing.assert_allclose(
                kernel / old, (kernel / old).mean(), rtol=1e-4, atol=1e-6
            )
    elif reading == "snc-filters":
        # |DFT| of each filter by NumPy: the cut leaves a little above the bound.
        for name, n in (("conv1", 28), ("conv2", 12)):
            old, new = (
                np.abs(np.fft.fft2(k, (n, n), axes=(0, 1))).max()
                for k in (params[name]["kernel"], kernels[name])
            )
            assert 0.5 * 0.9 < new < max(0.8 * old, 0.5001)
    elif reading == "snc-oihw":
        for name in kernels:
            old, new = (
                np.linalg.svd(
                    np.fft.fft2(np.transpose(k, (3, 2, 0, 1)), (28, 28), axes=(0, 1)),
                    compute_uv=False,
                ).max()
                for k in (params[name]["kernel"], kernels[name])
            )
            assert 0.5 * 0.9 < new < 0.9 * old
    elif reading == SNC_NUMPY_AXES:
        for name, n in (("conv1", 28), ("conv2", 12)):
            values = np.linalg.svd(
                np.transpose(kernels[name], (3, 2, 0, 1)), compute_uv=False
            )
            np.testing.assert_allclose(values.max(), 0.5 / n, rtol=1e-4)
    else:
        assert all(after[name] < 0.9 * before[name] for name in uses)
    if reading == "snc-projected":
        plain = _norms(_clipped("snc", params, 0.5, uses), uses)
        assert all(after[name] < plain[name] for name in uses)


@pytest.mark.parametrize("bound", [0.5, 2.0, 10.0, 1e3])
def test_the_ninth_reading_is_what_numpys_default_axes_compute(bound, params, uses):
    """The algorithm of Sedghi et al. as written, on kernels (out, in, h, w)."""
    moved = _clipped(SNC_NUMPY_AXES, params, bound, uses)
    for name, n in (("conv1", 28), ("conv2", 12)):
        kernel = np.asarray(params[name]["kernel"], np.float64).transpose(3, 2, 0, 1)
        height, width = kernel.shape[2:]
        transforms = np.fft.fft2(kernel, (n, n))
        left, values, right = np.linalg.svd(transforms, full_matrices=False)
        clipped = left * np.minimum(values, bound)[..., None, :] @ right
        expected = np.fft.ifft2(clipped)[..., :height, :width].real
        # The cut loses nothing: outside of the support there is nothing.
        outside = np.fft.ifft2(clipped)
        outside[..., :height, :width] = 0
        assert np.abs(outside).max() < 1e-12
        found = np.transpose(moved[name]["kernel"], (3, 2, 0, 1))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    if bound == 1e3:
        chex.assert_trees_all_equal(moved, params)


def test_the_ninth_reading_refuses_kernels_larger_than_their_input(params, uses):
    small = {
        name: [dataclasses.replace(use, input_shape=(4, 28))]
        for name, [use] in uses.items()
    }
    with pytest.raises(ValueError, match=r"kernel must not be larger.*\(4, 28\)"):
        _clipped(SNC_NUMPY_AXES, params, 0.5, small)


@pytest.mark.parametrize(("bound", "acts"), [(5.5, False), (4.5, True)])
def test_filters_by_themselves_have_their_layers_strides(bound, acts):
    """Ones, 3 x 3, on 8 x 8: a norm of 9, but with stride 2 one of 5."""
    matrix = np.zeros((16, 64))
    for row, (i, j) in enumerate(np.ndindex(4, 4)):
        for a, b in np.ndindex(3, 3):
            matrix[row, (2 * i + a) % 8 * 8 + (2 * j + b) % 8] += 1
    assert np.linalg.norm(matrix, 2) == pytest.approx(5)
    params = {"conv": {"kernel": jnp.ones((3, 3, 2, 2))}}
    use = absum_jax.ConvUse(
        (8, 8), (4, 4), (2, 2), ((0, 1),) * 2, (1, 1), 1, (0, 1, 2, 3)
    )
    moved = _clipped("snc-filters", params, bound, {"conv/kernel": (use,)})
    assert bool((moved["conv"]["kernel"] != 1).any()) == acts


def test_channels_taken_for_space_must_fit_the_image(params, uses):
    small = {
        name: [dataclasses.replace(use, input_shape=(16, 16))]
        for name, [use] in uses.items()
    }
    with pytest.raises(ValueError, match=r"got \(20, 10\) on \(16, 16\): fft2 would"):
        _clipped("snc-oihw", params, 0.5, small)
