"""Adversarial training: PGD on the fly, in the sweep, as data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import absum_jax
from experiments.config import NONE, Adversary, RunConfig, Setting
from experiments.training import optimization, plan, programs, step, sweep

pytestmark = pytest.mark.usefixtures("tiny_network")

ADVERSARY = Adversary(eps=0.3, step_size=0.1, steps=3, init_radius=0.05)
SETTINGS = (NONE, Setting("absum", 0.05))


def _hyperparameters(setting):
    h = optimization.hyperparameters((setting,), 0.05, 0.5)
    return jax.tree.map(lambda leaf: leaf[0], h)


def test_a_step_trains_on_the_attacked_images_alone(classifier, noise):
    h = _hyperparameters(SETTINGS[1])
    train_step = jax.jit(step.train_step, static_argnums=0)
    variables = classifier.init(jax.random.key(0))
    optimizer = optimization.optimizer(h).init(variables.params)
    state = step.TrainState(variables, optimizer, jnp.zeros([], jnp.int32))
    x, y = jnp.asarray(noise.images[:16]) / 255.0, jnp.asarray(noise.labels[:16])
    dropout, key = jax.random.split(jax.random.key(1))
    # In evaluation mode: without dropout.
    attacked = absum_jax.pgd(
        Partial(classifier.logits, variables), x, y, key=key, eps=0.3, step_size=0.1,
        steps=3, init_radius=0.05,
    )  # fmt: skip
    assert np.abs(attacked - x).max() > 0.2
    expected, metrics = train_step(classifier, state, h, attacked, y, 1, dropout)
    found, found_metrics = train_step(
        classifier, state, h, x, y, 1, dropout, key, ADVERSARY.as_arrays()
    )
    plain, _ = train_step(classifier, state, h, x, y, 1, dropout)
    for one, two, three in zip(
        *(jax.tree.leaves(s.variables.params) for s in (found, expected, plain)),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, atol=1e-6)
        assert np.abs(one - three).max() > 1e-6
    np.testing.assert_allclose(found_metrics.loss, metrics.loss, rtol=1e-5)


def _epoch(classifier, noise, settings, seeds, adversary):
    seeds, h = jnp.array(seeds), optimization.hyperparameters(settings, 0.05, 0.5)
    state = step.init_sweep(classifier, seeds, h)
    spec = step.TrainSpec(classifier, 32, len(noise) // 32)
    return programs.train_steps(
        spec, state, seeds, h, jnp.asarray(noise.images), jnp.asarray(noise.labels),
        optimization.schedule(0, 1), budget=adversary and adversary.as_arrays(),
    )[0].variables.params  # fmt: skip


@pytest.mark.slow
def test_a_sweep_equals_its_models_alone(classifier, noise):
    together = _epoch(classifier, noise, SETTINGS, (3, 4), ADVERSARY)
    alone = _epoch(classifier, noise, SETTINGS[1:], (4,), ADVERSARY)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        # A sign of the attack may turn where a gradient is within rounding of zero.
        np.testing.assert_allclose(a[1, 1], b[0, 0], atol=1e-4)


def test_a_budget_of_nothing_is_plain_training(classifier, noise):
    nothing = dataclasses.replace(ADVERSARY, eps=0.0)
    attacked = _epoch(classifier, noise, SETTINGS[:1], (0,), nothing)
    plain = _epoch(classifier, noise, SETTINGS[:1], (0,), None)
    for a, b in zip(jax.tree.leaves(attacked), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_new_budgets_compile_nothing(classifier, noise):
    _epoch(classifier, noise, SETTINGS[:1], (0,), ADVERSARY)
    compiled = programs.train_steps._cache_size()
    other = Adversary(eps=0.2, step_size=0.05, steps=2, init_radius=0.1)
    _epoch(classifier, noise, SETTINGS[:1], (0,), other)
    assert programs.train_steps._cache_size() == compiled


def test_a_configuration_survives_its_file(make_config, tmp_path):
    configs = [make_config(setting, adversary=ADVERSARY) for setting in SETTINGS]
    [rectangle] = plan.rectangles(configs)
    plan.save_members(tmp_path / rectangle.path.name, rectangle)
    assert plan.load_members(tmp_path / rectangle.path.name) == rectangle
    assert RunConfig.from_dict(configs[0].as_dict()) == configs[0]
    plain = make_config(NONE)
    assert RunConfig.from_dict(plain.as_dict()) == plain


def test_other_adversaries_are_other_models(make_config):
    adversaries = [
        None, ADVERSARY, *(
            dataclasses.replace(ADVERSARY, **{name: 7})
            for name in ("eps", "step_size", "steps", "init_radius")
        ),
    ]  # fmt: skip
    paths = {make_config(NONE, adversary=adversary).path for adversary in adversaries}
    assert len(paths) == 6


def test_trained_models_are_kept_and_told_apart(
    classifier, noise, make_config, tmp_path, capsys
):
    adversarial = [make_config(NONE, adversary=ADVERSARY, epochs=1)]
    plain = [make_config(NONE, epochs=1)]
    [first] = sweep.train_missing(classifier, noise, adversarial, tmp_path)
    [other] = sweep.train_missing(classifier, noise, plain, tmp_path)
    said = capsys.readouterr()
    assert "training 1 model adversarially on noise" in said.err
    assert "already" not in said.out
    sweep.train_missing(classifier, noise, adversarial, tmp_path)
    assert "1 of 1 models are trained already" in capsys.readouterr().out
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    kernels = [
        run.variables(shapes).params["conv1"]["kernel"] for run in (first, other)
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-6
