"""Batch normalization has steps enough after the last clip of SNC."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batch_norm_network import network
from flax import nnx
from stopping import stopped

from experiments.config import NONE, RunConfig, Setting
from experiments.data import DATASETS, Split
from experiments.methods import METHODS, SNC_METHODS
from experiments.models import ARCHITECTURES, WIDTHS, networks_for
from experiments.models.architectures import without_values
from experiments.options import ModelOptions
from experiments.studies.snc_constraints import OTHER_READINGS
from experiments.training import loop, optimization, programs, step, sweep
from experiments.training.constraints import (
    SETTLE_STEPS,
    constrained,
    is_due,
    is_idle,
)
from experiments.workspace import Workspace

SNC = Setting("snc", 0.3)


def _config(noise, images, dataset, name, setting, width="1"):
    """What commands ask for; all of them take their models from a workspace."""
    options = ModelOptions(dataset=dataset, network=name, width=width)
    workspace = Workspace(options, None, None, noise, images, images)
    [run] = workspace.runs([setting], [0])
    return run.config


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_which_networks_have_batch_normalization(model):
    architecture = ARCHITECTURES[model]
    network = without_values(architecture.create)
    statistics = jax.tree.leaves(nnx.state(network, nnx.BatchStat))
    assert bool(statistics) is architecture.has_batch_norm


@pytest.mark.parametrize("epochs", [None, *range(1, 31)])
@pytest.mark.parametrize("adversarial", [False, True])
def test_every_schedule_ends_some_steps_after_a_clip(
    noise, images, adversarial, epochs
):
    for dataset, info in DATASETS.items():
        if info.parent or (adversarial and info.conditions.pgd is None):
            continue
        conditions = info.conditions
        recipe = conditions.pgd.recipe if adversarial else conditions.recipe
        scaled = recipe.scaled(epochs or recipe.epochs)
        examples = DATASETS[dataset].train_examples
        for train in (examples, examples - examples // 10):  # validation held out
            last = scaled.epochs * scaled.epoch_steps(train)
            steps = np.arange(max(1, last - 1000), last + 1)
            for model in networks_for(dataset):
                for method in SNC_METHODS:
                    config = _config(noise, images, dataset, model, Setting(method, 1))
                    settle = config.settle_steps or 0
                    due = is_due(METHODS[method].constraint, steps, last, settle)
                    after = last - steps[due].max()
                    if model == "small_cnn":
                        assert after == last % 100
                    else:
                        assert 50 <= after < 150


def test_without_it_the_papers_schedule_would_end_with_a_clip():
    recipe = DATASETS["cifar10"].conditions.recipe
    ours = recipe.epochs * recipe.epoch_steps(50_000)
    # P, appendix: 350 epochs of batches of 128, here without the incomplete one.
    assert (ours, ours % 100) == (136_500, 0)
    assert 350 * -(-50_000 // 128) % 100 == SETTLE_STEPS == 50


def test_of_whom_it_is_told(noise, images):
    def told(dataset, model, setting, width="1"):
        config = _config(noise, images, dataset, model, setting, width)
        assert RunConfig.from_dict(config.as_dict()) == config
        return config.as_dict().get("settle_steps")

    for method in SNC_METHODS:
        assert told("mnist", "small_cnn", Setting(method, 10)) is None
        for dataset in ("cifar10", "imagenet2012"):
            for model in networks_for(dataset):
                assert told(dataset, model, Setting(method, 0.5)) == SETTLE_STEPS
        for width in WIDTHS:
            assert told("cifar10", "resnet18", Setting(method, 1), width) == 50
    assert told("cifar10", "resnet18", NONE) is None
    assert told("cifar10", "resnet18", Setting("absum", 0.1)) is None


@pytest.fixture
def colored():
    rng = np.random.default_rng(0)
    labels = (np.arange(96) % 10).astype(np.int32)
    images = rng.integers(0, 80, (96, 8, 8, 3)) + 17 * labels[:, None, None, None]
    return Split(images.astype(np.uint8), labels)


@pytest.fixture
def often(monkeypatch):
    """SNC that acts at every other step."""
    snc = METHODS["snc"]
    changed = dataclasses.replace(snc, constraint=snc.constraint._replace(every=2))
    monkeypatch.setitem(METHODS, "snc", changed)


def _steps(data, pieces, groups, clip_after=()):
    """Trains nine steps, three epochs, in pieces; clips too after some, by hand."""
    classifier, seeds = network(10), jnp.array([0])
    h = optimization.hyperparameters([SNC], 0.05, 0.5)
    state = step.init_sweep(classifier, seeds, h)
    uses = classifier.conv_uses(data.image_shape)
    spec = step.TrainSpec(classifier, 32, epoch_steps=3, constrained=groups)
    images, labels = jnp.asarray(data.images), jnp.asarray(data.labels)
    for first in range(0, 9, pieces):
        epoch, begin = divmod(first, 3)
        state, _ = programs.train_steps(
            spec, state, seeds, h, images, labels, optimization.schedule(epoch, 3),
            begin, pieces,
        )  # fmt: skip
        if first + pieces in clip_after:
            one = jax.tree.map(lambda leaf: leaf[0, 0], state.variables.params)
            clipped = METHODS["snc"].constraint.apply(one, jnp.float32(0.3), uses)
            clipped = jax.tree.map(lambda leaf: leaf[None, None], clipped)
            variables = state.variables._replace(params=clipped)
            state = state._replace(variables=variables)
    return state.variables


@pytest.mark.parametrize(
    ("settle", "clips"), [(0, (2, 4, 6, 8)), (1, (2, 4, 6, 8)), (3, (2, 4, 6))]
)
def test_clips_come_before_the_last_steps(colored, often, settle, clips):
    groups = constrained([SNC], settle)
    whole, single = (_steps(colored, pieces, groups) for pieces in (3, 1))
    expected = _steps(colored, 1, (), clips)
    others = _steps(colored, 1, (), clips[:-1])
    for a, b, c in zip(*map(jax.tree.leaves, (whole, single, expected)), strict=True):
        np.testing.assert_allclose(a, c, atol=1e-5)
        np.testing.assert_allclose(b, c, atol=1e-5)
    kernels = [v.params["conv"]["kernel"] for v in (expected, others)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_training_goes_on_to_the_same_last_clip(
    colored, often, make_config, tmp_path, monkeypatch
):
    """Two steps and one at a time, interrupted between the last clip and the end."""
    monkeypatch.setattr(loop, "_CPU_STEPS", 2)
    fields = {"model": "resnet18", "settle_steps": 3, "learning_rate": 0.05}
    config = make_config(SNC, **fields)
    shapes = jax.eval_shape(network(10).init, jax.random.key(0))

    def train(folder, config):
        [run] = sweep.train_missing(
            network(10), colored, [config], tmp_path / folder,
            seconds_between_checkpoints=0,
        )  # fmt: skip
        return jax.tree.leaves(run.variables(shapes))

    whole = train("whole", config)
    with stopped(5):
        train("cut", config)
    for a, b in zip(train("cut", config), whole, strict=True):
        np.testing.assert_array_equal(a, b)
    by_hand = jax.tree.leaves(_steps(colored, 1, (), (2, 4, 6)))
    for a, b in zip(by_hand, whole, strict=True):
        np.testing.assert_allclose(a[0, 0], b, atol=1e-5)
    # Models from before this rule have another folder, and the last clip.
    earlier = make_config(SNC, **fields | {"settle_steps": None})
    assert earlier.path != config.path
    assert any(
        (a != b).any() for a, b in zip(train("whole", earlier), whole, strict=True)
    )


@pytest.mark.parametrize("method", [*SNC_METHODS, *OTHER_READINGS])
def test_whether_a_training_has_a_clip_at_all(method):
    for settle_steps in (0, SETTLE_STEPS):
        for last in (1, 2, 51, 99, 100, 101, 149, 150, 200):
            due = any(
                is_due(METHODS[method].constraint, step, last, settle_steps)
                for step in range(1, last + 1)
            )
            assert is_idle(method, last, settle_steps) is not due
            assert not is_idle("absum", last, settle_steps)


def test_models_that_are_never_clipped_are_named(make_config, capsys):
    clipped = make_config(Setting("snc-every-step", 1.0))
    config = make_config(Setting("snc", 1.0))
    sweep._warn_of_idle_constraints([make_config(), clipped, config], 100)
    assert capsys.readouterr().err == ""
    sweep._warn_of_idle_constraints([make_config(), clipped, config], 99)
    said = capsys.readouterr().err
    assert said == (
        "warning: no clip of SNC is due in 99 steps of training: 1 model, such as "
        f"{config.path}, will be the same as without.\n"
    )
    settling = make_config(Setting("snc", 1.0), settle_steps=50)
    other = make_config(Setting("snc-numpy-axes", 1.0), settle_steps=50)
    sweep._warn_of_idle_constraints([config, other, settling], 149)
    assert capsys.readouterr().err == (
        "warning: no clip of SNC, NumPy's axes and SNC is due in 149 steps of "
        "training, of which the last 50 have none: 2 models, such as "
        f"{other.path}, will be the same as without.\n"
    )
