"""Training: a sweep is what its models would be alone, and survives interruption."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stopping import at_most, stopped

import absum_jax
from experiments.config import NONE, Setting
from experiments.jobs import files
from experiments.models import Variables
from experiments.studies import snc_constraints  # noqa: F401
from experiments.training import (
    checkpoints,
    constraints,
    optimization,
    plan,
    programs,
    step,
    sweep,
)
from experiments.training.runs import Run

pytestmark = pytest.mark.usefixtures("tiny_network")

ABSUM = Setting("absum", 0.05)
WEIGHT_DECAY = Setting("weight_decay", 0.1)
L1 = Setting("l1", 0.03)
SNC = Setting("snc-every-step", 0.3)
REGULARIZED = (NONE, WEIGHT_DECAY, L1, ABSUM)
ALL = (*REGULARIZED, SNC)


def _epochs(classifier, data, settings, seeds=(0,), epochs=1, batch_size=32):
    h = optimization.hyperparameters(settings, 0.05, 0.5)
    seeds = jnp.array(seeds)
    state = step.init_sweep(classifier, seeds, h)
    spec = step.TrainSpec(
        classifier, batch_size, len(data) // batch_size,
        constrained=constraints.constrained(settings),
    )  # fmt: skip
    history = []
    for epoch in range(epochs):
        state, metrics = programs.train_steps(
            spec, state, seeds, h, jnp.asarray(data.images),
            jnp.asarray(data.labels), optimization.schedule(epoch, epochs),
        )  # fmt: skip
        history.append(metrics)
    return state, history


@pytest.fixture(scope="module")
def swept(classifier, noise):
    """All methods with two seeds, after one epoch."""
    return _epochs(classifier, noise, ALL, seeds=(3, 4))


def test_a_sweep_equals_its_models_alone(classifier, noise, swept):
    together, metrics = swept
    for j, setting in enumerate(ALL):
        alone, own = _epochs(classifier, noise, (setting,), seeds=(4,))
        for a, b in zip(
            jax.tree.leaves(together.variables.params),
            jax.tree.leaves(alone.variables.params),
            strict=True,
        ):
            np.testing.assert_allclose(a[1, j], b[0, 0], atol=1e-5)
        np.testing.assert_allclose(metrics[0].loss[1, j], own[0].loss[0, 0], rtol=1e-4)


def test_every_method_changes_the_model_and_no_two_alike(swept):
    state, _ = swept
    kernels = np.asarray(state.variables.params["conv1"]["kernel"][0])
    for i in range(len(ALL)):
        for j in range(i):
            assert np.abs(kernels[i] - kernels[j]).max() > 1e-4


def test_strength_zero_is_no_regularization_to_the_bit(classifier, noise):
    zero = tuple(Setting(s.method, 0.0) for s in REGULARIZED)
    state, _ = _epochs(classifier, noise, zero)
    for leaf in jax.tree.leaves(state.variables.params):
        for j in range(1, len(REGULARIZED)):
            np.testing.assert_array_equal(leaf[0, j], leaf[0, 0])


def test_seeds_differ_in_initialisation_and_order(swept):
    state, metrics = swept
    kernel = state.variables.params["dense2"]["kernel"]
    assert jnp.abs(kernel[0, 0] - kernel[1, 0]).max() > 0.01
    assert metrics[0].loss[0, 0] != metrics[0].loss[1, 0]


@pytest.mark.parametrize("setting", REGULARIZED, ids=lambda s: s.method)
def test_one_step_is_the_documented_chain(classifier, noise, setting):
    strength = setting.strength
    regularizer = {
        "none": optax.identity(),
        "weight_decay": optax.identity(),
        "l1": absum_jax.l1(strength, learning_rate=0.1),
        "absum": absum_jax.absum(strength, learning_rate=0.1),
    }[setting.method]
    decay = strength if setting.method == "weight_decay" else 0.0
    tx = optax.chain(
        optax.add_decayed_weights(decay, mask=absum_jax.conv_kernels),
        optax.sgd(0.1, momentum=0.5),
        regularizer,
    )
    h = jax.tree.map(
        lambda leaf: leaf[0], optimization.hyperparameters((setting,), 0.1, 0.5)
    )
    x, y = noise.images[:8] / np.float32(255), noise.labels[:8]
    variables = classifier.init(jax.random.key(0))
    params, key = variables.params, jax.random.key(1)
    optimizer = optimization.optimizer(h).init(params)
    state = step.TrainState(variables, optimizer, jnp.zeros([], jnp.int32))
    expected, optimizer_state = params, tx.init(params)

    @jax.jit
    def updated(params, optimizer_state):
        def loss(p):
            logits, _ = classifier.train_logits(Variables(p, {}), x, key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, optimizer_state = tx.update(
            jax.grad(loss)(params), optimizer_state, params
        )
        return optax.apply_updates(params, updates), optimizer_state

    train_step = jax.jit(step.train_step, static_argnums=0)
    for i in (1, 2):
        state, _ = train_step(classifier, state, h, x, y, i, key)
        expected, optimizer_state = updated(expected, optimizer_state)
    for a, b in zip(
        jax.tree.leaves(state.variables.params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def _recorder(seen):
    """Makes a classifier that adds its batches to a list, and learns nothing."""

    class Recorder:
        is_small = True

        @staticmethod
        def init(key):
            return Variables({"conv": {"kernel": jnp.zeros((1, 1, 1, 1))}}, {})

        @staticmethod
        def logits(variables, x):
            return jnp.zeros((x.shape[0], 2)) + 0 * x.sum()

        @staticmethod
        def train_logits(variables, x, key):
            jax.debug.callback(lambda x: seen.append(np.array(x)), x)
            kernel = variables.params["conv"]["kernel"]
            return jnp.zeros((x.shape[0], 2)) + 0 * kernel.sum(), {}

    return Recorder


def test_each_epoch_visits_every_image_once_in_a_new_order(noise):
    seen = []
    data = dataclasses.replace(
        noise,
        images=np.broadcast_to(
            np.arange(96, dtype=np.uint8)[:, None, None, None], (96, 2, 2, 1)
        ),
        labels=np.zeros(96, np.int32),
    )
    _epochs(_recorder(seen), data, (NONE,), epochs=2)
    jax.effects_barrier()
    # The backward pass may call a second time; consecutive repeats are the same batch.
    order = [round(255 * image[0, 0, 0]) for batch in seen for image in batch]
    assert sorted(set(order)) == list(range(96))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    assert sorted(first) == sorted(second)
    assert first != second


def test_a_new_strength_compiles_nothing(classifier, noise):
    _epochs(classifier, noise, ALL, seeds=(3, 4))
    before = programs.train_steps._cache_size(), step.init_sweep._cache_size()
    new = Setting("absum", 7.0), Setting("l1", 0.7), Setting("snc-every-step", 2.0)
    _epochs(classifier, noise, (NONE, NONE, *new), seeds=(3, 4))
    assert (programs.train_steps._cache_size(), step.init_sweep._cache_size()) == before


def _train(classifier, noise, configs, runs_dir):
    runs = sweep.train_missing(classifier, noise, configs, runs_dir)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    return [(run.metrics(), run.variables(shapes)) for run in runs]


def _assert_same(one, two, **tolerance):
    for (metrics_a, params_a), (metrics_b, params_b) in zip(one, two, strict=True):
        assert len(metrics_a) == len(metrics_b)
        for a, b in zip(metrics_a, metrics_b, strict=True):
            assert a == (pytest.approx(b, **tolerance) if tolerance else b)
        for a, b in zip(
            jax.tree.leaves(params_a), jax.tree.leaves(params_b), strict=True
        ):
            if tolerance:
                np.testing.assert_allclose(a, b, atol=1e-5)
            else:
                np.testing.assert_array_equal(a, b)


def test_an_interrupted_sweep_ends_as_if_never_interrupted(
    classifier, noise, make_config, tmp_path
):
    configs = [
        make_config(setting, seed) for seed in (0, 1) for setting in (NONE, ABSUM)
    ]
    whole = _train(classifier, noise, configs, tmp_path / "whole")
    with stopped(2):
        _train(classifier, noise, configs, tmp_path / "cut")
    run = Run(tmp_path / "cut", configs[0])
    assert not run.is_complete
    assert len(run.metrics()) == 2
    # A metric that is ahead of the checkpoint, as a kill between the two would leave.
    run.log(3, -1.0, -1.0)
    resumed = _train(classifier, noise, configs, tmp_path / "cut")
    _assert_same(resumed, whole)
    assert not list(
        (tmp_path / "cut" / "noise" / "small_cnn" / "in-progress").iterdir()
    )


def test_part_of_an_interrupted_sweep_goes_on(classifier, noise, make_config, tmp_path):
    configs = [
        make_config(setting, seed) for seed in (0, 1) for setting in (NONE, ABSUM)
    ]
    whole = _train(classifier, noise, configs, tmp_path / "whole")
    with stopped(2):
        _train(classifier, noise, configs, tmp_path / "cut")
    # From the beginning it would take three.
    with at_most(2):
        part = _train(classifier, noise, [configs[3]], tmp_path / "cut")
    _assert_same(part, [whole[3]], rel=1e-4)
    rest = _train(classifier, noise, configs, tmp_path / "cut")
    _assert_same(rest, whole, rel=1e-4)
    assert not list(
        (tmp_path / "cut" / "noise" / "small_cnn" / "in-progress").iterdir()
    )


def test_a_model_that_diverges_leaves_the_others_alone(
    classifier, noise, make_config, tmp_path
):
    fine = _train(classifier, noise, [make_config(NONE)], tmp_path / "fine")
    # Each step multiplies a kernel by 1 - 0.01 * 1e9.
    configs = [make_config(NONE), make_config(Setting("weight_decay", 1e9))]
    both = _train(classifier, noise, configs, tmp_path / "both")
    _assert_same(both[:1], fine, rel=1e-4)
    diverged, _ = both[1]
    assert [line["train_loss"] for line in diverged[1:]] == [None, None]


def test_what_is_trained_is_not_trained_again(
    classifier, noise, make_config, tmp_path, capsys
):
    configs = [make_config(NONE), make_config(ABSUM)]
    first = _train(classifier, noise, configs[:1], tmp_path)
    both = _train(classifier, noise, configs, tmp_path)
    _assert_same(both[:1], first)
    assert "1 of 2 models are trained already" in capsys.readouterr().out
    with at_most(0):
        _train(classifier, noise, configs, tmp_path)


def test_a_run_describes_itself(classifier, noise, make_config, tmp_path):
    config = make_config(ABSUM, seed=5)
    sweep.train_missing(classifier, noise, [config], tmp_path)
    folder = tmp_path / config.path
    assert folder.relative_to(tmp_path).parts[:4] == (
        "noise",
        "small_cnn",
        "absum",
        "0.05",
    )
    assert folder.name.startswith("seed-5-")
    assert files.read_json(folder / "config.json") == config.as_dict()
    provenance = files.read_json(folder / "provenance.json")
    assert provenance["packages"]["jax"] == jax.__version__
    assert provenance["device"]
    assert provenance["seconds"] > 0
    epochs = [line["epoch"] for line in files.read_json_lines(folder / "metrics.jsonl")]
    assert epochs == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 4},
        {"train_examples": 95},
        {"validation_examples": 1},
        {"batch_size": 16},
        {"batch_norm_groups": 4},
        {"learning_rate": 0.02},
        {"momentum": 0.6},
        {"data_fingerprint": "other"},
        {"max_pool_ties": None},
    ],
    ids=str,
)
def test_every_part_of_a_configuration_names_another_folder(make_config, change):
    assert make_config(**change).path != make_config().path


def test_rectangles_keep_seeds_with_equal_settings_together(make_config):
    configs = [
        make_config(setting, seed)
        for seed, settings in ((0, (NONE, ABSUM)), (1, (ABSUM,)), (2, (NONE, ABSUM)))
        for setting in settings
    ]
    one, two = plan.rectangles(configs)
    assert (one.seeds, one.settings) == ((0, 2), (NONE, ABSUM))
    assert (two.seeds, two.settings) == ((1,), (ABSUM,))


def test_plan_goes_on_from_the_furthest_checkpoint(make_config, tmp_path):
    none, absum, l1 = (make_config(setting) for setting in (NONE, ABSUM, L1))
    early = plan.Unfinished(tmp_path / "early", plan.Sweep(((none, absum),)), 1)
    late = plan.Unfinished(tmp_path / "late", plan.Sweep(((absum,),)), 2)
    tasks = plan.plan([none, absum, l1], [early, late])
    assert [(task.sweep.members, task.source) for task in tasks] == [
        ((absum,), late),
        ((none,), early),
        ((l1,), None),
    ]


def test_sweeps_of_another_version_are_left_alone(
    classifier, noise, make_config, tmp_path, capsys
):
    config = make_config(NONE)
    folder = tmp_path / "noise" / "small_cnn" / "in-progress" / "old"
    files.write_json(folder / "members.json", [[config.as_dict() | {"unknown": 1}]])
    _train(classifier, noise, [config], tmp_path)
    assert folder.exists()
    [said] = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{folder}/members.json is damaged: ")
    assert f"remove {folder}. Its models begin again." in said


def test_checkpoints_left_by_a_late_kill_are_removed(
    classifier, noise, make_config, tmp_path
):
    config = make_config(NONE)
    _train(classifier, noise, [config], tmp_path)
    rest = plan.Sweep(((config,),))
    folder = tmp_path / "noise" / "small_cnn" / "in-progress" / rest.path.name
    plan.save_members(folder, rest)
    _train(classifier, noise, [config], tmp_path)
    assert not folder.exists()


def test_what_other_parts_work_on_is_left_alone(make_config, tmp_path, monkeypatch):
    own, theirs = (
        plan.Sweep(((make_config(NONE, seed), make_config(ABSUM, seed)),))
        for seed in (0, 1)
    )
    for sweep_ in (own, theirs):
        plan.save_members(tmp_path / "in-progress" / sweep_.path.name, sweep_)
    monkeypatch.setattr(checkpoints, "saved_steps", lambda folder: [2, 1])
    folder = tmp_path / "in-progress"
    [found] = sweep._unfinished(folder, own.members[1:])
    assert found == plan.Unfinished(folder / own.path.name, own, 2)

    monkeypatch.setattr(Run, "is_complete", True)
    sweep._remove_finished(folder, tmp_path, own.members[1:])
    assert [path.name for path in folder.iterdir()] == [theirs.path.name]


def test_a_sweep_that_another_part_removes_is_no_error(
    make_config, tmp_path, monkeypatch
):
    config = make_config(NONE)
    rest = plan.Sweep(((config,),))
    folder = tmp_path / "in-progress" / rest.path.name
    plan.save_members(folder, rest)
    monkeypatch.setattr(Run, "is_complete", True)
    load_members = plan.load_members

    def removed_meanwhile(path):
        members = load_members(path)
        shutil.rmtree(path)
        return members

    monkeypatch.setattr(plan, "load_members", removed_meanwhile)
    sweep._remove_finished(folder.parent, tmp_path, [config])
    assert load_members(folder) is None


def test_metrics_are_means_over_the_steps_of_an_epoch(
    classifier, noise, make_config, tmp_path
):
    """Of batches that the model has not been trained on yet, each epoch by itself."""
    # So small a rate that the model stays what it was at first.
    config = make_config(NONE, seed=3, epochs=2, learning_rate=1e-30)
    [(metrics, _)] = _train(classifier, noise, [config], tmp_path)
    variables = classifier.init(step._stream(3, step._INIT))
    for epoch, line in enumerate(metrics):
        order = step.image_order(jnp.asarray(3), jnp.asarray(epoch), 96)
        dropout, *_ = step.epoch_keys(jnp.asarray(3), jnp.asarray(epoch))
        losses, right = [], []
        for i, batch in enumerate(np.asarray(order).reshape(3, 32)):
            x, y = noise.images[batch] / np.float32(255), noise.labels[batch]
            key = jax.random.fold_in(dropout, i)
            logits, _ = classifier.train_logits(variables, x, key)
            logits = np.asarray(logits, np.float64)
            own = logits[np.arange(32), y]
            losses += [np.log(np.exp(logits).sum(axis=1)) - own]
            right += [logits.argmax(axis=1) == y]
        assert line["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert line["train_accuracy"] == pytest.approx(np.mean(right), rel=1e-5)
        assert 0 < np.mean(right) < 1


@pytest.mark.parametrize("by", ["augmentation", "attack"])
def test_each_step_has_random_numbers_of_its_own(by):
    """Crops and flips, and the adversary's starts, of images that are all the same."""
    seen = []

    recorder = _recorder(seen)
    images = np.arange(100, 164, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(96, axis=0)
    attack = {"eps": 0.1, "step_size": 0.0, "steps": 1, "init_radius": 0.1}
    h = optimization.hyperparameters((NONE,), 0.1, 0.5)
    seeds = jnp.array([0])
    state = step.init_sweep(recorder, seeds, h)
    spec = step.TrainSpec(recorder, 32, 3, augmented=by == "augmentation")
    for epoch in range(2):
        state, _ = programs.train_steps(
            spec, state, seeds, h, jnp.asarray(images), jnp.zeros(96, int),
            optimization.schedule(epoch, 2),
            budget=attack if by == "attack" else None,
        )  # fmt: skip
    jax.effects_barrier()
    assert len(np.unique(np.array(seen), axis=0)) == 6
