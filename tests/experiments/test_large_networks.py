"""Networks that train one by one, on one device and on several; models that diverge."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stopping import at_most, stopped

from experiments.config import NONE, Setting
from experiments.models import Classifier, Variables
from experiments.training import optimization, plan, programs, step, sweep
from experiments.training.runs import Run


def _logits(variables, x):
    return _forward(variables.params, x, variables.batch_stats["norm"])[0]


def _init(key):
    conv, dense = jax.random.split(key)
    params = {
        "conv": {"kernel": 0.2 * jax.random.normal(conv, (7, 7, 1, 8))},
        "norm": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "dense": {"kernel": 0.1 * jax.random.normal(dense, (128, 10))},
    }
    return Variables(params, {"norm": {"mean": jnp.zeros(8), "var": jnp.ones(8)}})


def _forward(params, x, normalization=None):
    """Logits, and the statistics of the batch where none are given."""
    x = jax.lax.conv_general_dilated(
        x, params["conv"]["kernel"], (7, 7), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    if normalization is None:
        axes = (0, 1, 2)
        normalization = {"mean": x.mean(axes), "var": x.var(axes)}
    x = (x - normalization["mean"]) * jax.lax.rsqrt(normalization["var"] + 1e-5)
    x = jax.nn.relu(x * params["norm"]["scale"] + params["norm"]["bias"])
    return x.reshape(x.shape[0], -1) @ params["dense"]["kernel"], normalization


def _train_logits(variables, x, key):
    del key
    logits, batch = _forward(variables.params, x)
    old = variables.batch_stats["norm"]
    return logits, {"norm": jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, old, batch)}


LARGE = Classifier(
    _init, _train_logits, _logits, lambda image_shape: {}, is_small=False
)
SMALL = dataclasses.replace(LARGE, is_small=True)
ABSUM = Setting("absum", 0.05)
EPOCHS = 4


@pytest.fixture
def train(noise, make_config, tmp_path):
    """Trains models in a folder, and returns metrics and networks."""

    def run(folder, settings, classifier=LARGE, epochs=EPOCHS, asked=None, **recipe):
        configs = [make_config(s, epochs=epochs, **recipe) for s in settings]
        runs = sweep.train_missing(
            classifier, noise, configs, tmp_path / folder, data_parallel=asked,
            seconds_between_checkpoints=0,
        )  # fmt: skip
        shapes = jax.eval_shape(_init, jax.random.key(0))
        return [(run.metrics(), run.variables(shapes)) for run in runs]

    return run


def _unfinished(runs_dir):
    """The models of each sweep that has a checkpoint."""
    folders = runs_dir / "noise" / "small_cnn" / "in-progress"
    begun = [c for path in folders.iterdir() for c in plan.load_members(path).members]
    return {found.sweep.settings for found in sweep._unfinished(folders, begun)}


def _assert_same(one, two, tolerance=0.0):
    for (metrics, variables), (metrics_two, variables_two) in zip(
        one, two, strict=True
    ):
        assert len(metrics) == len(metrics_two)
        for a, b in zip(metrics, metrics_two, strict=True):
            assert a == pytest.approx(b, abs=tolerance)
        for a, b in zip(
            jax.tree.leaves(variables), jax.tree.leaves(variables_two), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "change", [{"milestones": (1,)}, {"decay": 0.1}, {"augmented": True}], ids=str
)
def test_each_part_of_a_recipe_acts(train, change):
    [(plain, _)] = train("plain", (NONE,), epochs=2)
    [(changed, variables)] = train("changed", (NONE,), epochs=2, **change)
    # Milestones act from the second epoch on; the first tells nothing of it.
    assert (changed[0] == plain[0]) is ("milestones" in change)
    assert changed[1] != plain[1]
    assert np.abs(variables.batch_stats["norm"]["var"] - 1).max() > 0.1


def test_interrupted_within_the_second_model(train, tmp_path):
    settings = (NONE, ABSUM)
    whole = train("whole", settings)
    with stopped(EPOCHS + 2):
        train("cut", settings)
    # The first is finished; the second has a checkpoint of its own.
    assert _unfinished(tmp_path / "cut") == {(ABSUM,)}
    # From the beginning it would take more.
    with at_most(EPOCHS - 1):
        _assert_same(train("cut", settings), whole)
    assert not _unfinished(tmp_path / "cut")


def test_interrupted_side_by_side(train, use_devices, tmp_path):
    settings = (NONE, ABSUM)
    use_devices(2)
    whole = train("whole", settings, asked=1)
    with stopped(5):
        train("cut", settings, asked=1)
    assert _unfinished(tmp_path / "cut") == {(NONE,), (ABSUM,)}
    with at_most(2 * EPOCHS - 2):
        _assert_same(train("cut", settings, asked=1), whole)


@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 4)])
def test_goes_on_with_other_devices(train, use_devices, before, after):
    settings = (ABSUM,)
    whole = train("whole", settings)
    use_devices(before)
    with stopped(2):
        train("cut", settings, asked=before)
    use_devices(after)
    with at_most(EPOCHS - 1):
        _assert_same(train("cut", settings, asked=after), whole, 1e-5)


def test_shared_batches_train_the_same(train, use_devices):
    settings = (NONE, ABSUM)
    use_devices(4)
    one, *others = (train(f"{n}", settings, epochs=2, asked=n) for n in (1, 2, 4))
    for other in others:
        _assert_same(other, one, 1e-5)


def test_a_padded_sweep_is_the_sweep(train, use_devices):
    settings = (NONE, ABSUM, Setting("l1", 0.01))
    one = train("one", settings, classifier=SMALL, epochs=2)
    use_devices(2)
    two = train("two", settings, classifier=SMALL, epochs=2)
    _assert_same(two, one, 1e-5)


# Each step multiplies a kernel by 1 - 0.01 * 1e20, which overflows at the second.
DIVERGING = Setting("weight_decay", 1e20)


@pytest.mark.parametrize("classifier", [LARGE, SMALL], ids=["alone", "beside"])
def test_what_diverges_is_kept_as_it_was_before(train, noise, classifier):
    (fine, _), (diverged, kept) = train("runs", (NONE, DIVERGING), classifier, 2)
    assert [line["epoch"] for line in fine] == [1, 2]
    assert not any("diverged_at_step" in line for line in fine)
    at = diverged[-1]["diverged_at_step"]
    assert 1 < at <= 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept))

    # The steps before, one at a time.
    h = optimization.hyperparameters((DIVERGING,), 0.01, 0.5)
    seeds = jnp.zeros(1, int)
    state = step.init_sweep(LARGE, seeds, h)
    spec = step.TrainSpec(LARGE, batch_size=32, epoch_steps=3)
    for i in range(at - 1):
        state, _ = programs.train_steps(
            spec, state, seeds, h, jnp.asarray(noise.images),
            jnp.asarray(noise.labels), optimization.schedule(0, 2), i, 1,
        )  # fmt: skip
    before = jax.tree.map(lambda leaf: leaf[0, 0], state.variables)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(before), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert np.abs(kept.params["conv"]["kernel"]).max() > 1e15


def test_a_constraint_that_is_not_finite_is_not_applied():
    variables = _init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: 2 * leaf, variables.params)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    fine = step.TrainState(variables, (), jnp.asarray(0))
    stopped = fine._replace(diverged_at=jnp.asarray(3))
    for state, new, kept, at in (
        (fine, params, params, 0),
        (fine, broken, variables.params, 7),
        (stopped, params, variables.params, 3),
        (stopped, broken, variables.params, 3),
    ):
        found = step._with_params(state, new, 7)
        assert found.diverged_at == at
        for a, b in zip(
            jax.tree.leaves(found.variables.params), jax.tree.leaves(kept), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_large_networks_have_their_own_regularizer_alone():
    h = optimization.hyperparameters((ABSUM,), 0.1, 0.9, decay=1e-4)
    own = optimization.without_unused(h, (ABSUM,))
    assert own.strengths.keys() == {"absum"}
    assert own.strengths["absum"] is h.strengths["absum"]
    assert own.decay is h.decay
    assert optimization.hyperparameters((ABSUM,), 0.1, 0.9).decay is None


def test_nothing_but_diverged_models_ends_early(train):
    settings = (DIVERGING, Setting("weight_decay", 1e21))
    whole = train("whole", settings, SMALL)
    for metrics, _ in whole:
        assert [line["epoch"] for line in metrics] == [1]
        assert metrics[0]["train_loss"] is None

    # Interrupted before its models are finished, it is not trained for longer.
    with stopped(0, "finish", Run):
        train("cut", settings, SMALL)
    _assert_same(train("cut", settings, SMALL), whole)


def test_a_sweep_half_of_whose_models_are_finished(train):
    settings = (NONE, ABSUM)
    whole = train("whole", settings, SMALL)
    with stopped(1, "finish", Run):
        train("cut", settings, SMALL)
    # Alone the other would be trained by another program.
    with at_most(0):
        _assert_same(train("cut", settings, SMALL), whole)
