"""A method is one entry of a table: one that is registered trains as it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import cli, methods
from experiments.config import NONE, Setting
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS, Constraint, Method
from experiments.models import Variables
from experiments.options import ModelOptions, SweepOptions
from experiments.published import TABLE1
from experiments.reporting import naming
from experiments.training import constraints, optimization, programs, step, sweep
from experiments.training.runs import Run

pytestmark = pytest.mark.usefixtures("tiny_network")

RATE, MOMENTUM = 0.1, 0.5


@pytest.fixture
def toy():
    """Decay of all weights, noise on images and shrinking after the step."""
    before = dict(METHODS)
    method = Method(
        "toy", "Toy", "#000000", grid=(0.5, 0.25),
        before_sgd=lambda strength, _: optax.add_decayed_weights(strength),
        after_sgd=lambda strength, rate: optax.scale(1 - strength * rate),
        perturb=lambda key, x, s: x + s * jax.random.normal(key, x.shape),
    )  # fmt: skip
    methods.register(method)
    yield method
    METHODS.clear()
    METHODS.update(before)


def _one(settings):
    h = optimization.hyperparameters(settings, RATE, MOMENTUM)
    return jax.tree.map(lambda leaf: leaf[0], h)


def test_a_registered_method_trains_as_its_optax_chain(classifier, noise, toy):
    strength = 0.25
    h = _one([Setting(toy.name, strength)])
    x, y = noise.images[:8] / np.float32(255), noise.labels[:8]
    variables = classifier.init(jax.random.key(0))
    params, key = variables.params, jax.random.key(1)
    optimizer = optimization.optimizer(h).init(params)
    state = step.TrainState(variables, optimizer, jnp.zeros([], jnp.int32))
    tx = optax.chain(
        optax.add_decayed_weights(strength),
        optax.sgd(RATE, momentum=MOMENTUM),
        optax.scale(1 - strength * RATE),
    )
    drawn = jax.random.normal(jax.random.fold_in(key, 2), x.shape)
    own = tx.init(params)
    for i in (1, 2):
        state, metrics = step.train_step(classifier, state, h, x, y, i, key)

        def loss(p):
            seen = x + strength * drawn
            logits, _ = classifier.train_logits(Variables(p, {}), seen, key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, grads = jax.value_and_grad(loss)(params)
        assert metrics.loss == value
        updates, own = tx.update(grads, own, params)
        params = optax.apply_updates(params, updates)
    for a, b in zip(
        jax.tree.leaves(state.variables.params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_it_joins_only_programs_that_use_it(toy):
    always = {"weight_decay", "l1", "absum"}
    plain = (NONE, Setting("snc", 1.0))
    h = optimization.hyperparameters(plain, RATE, MOMENTUM)
    assert h.strengths.keys() == always | {"snc"}
    h = optimization.hyperparameters((*plain, Setting("toy", 0.5)), RATE, MOMENTUM)
    assert h.strengths.keys() == always | {"snc", "toy"}
    np.testing.assert_array_equal(h.strengths["toy"], [0, 0, 0.5])


def test_models_beside_it_stay_as_they_are(classifier, noise, toy):
    def train(settings):
        h = optimization.hyperparameters(settings, RATE, MOMENTUM)
        seeds = jnp.array([0])
        state = step.init_sweep(classifier, seeds, h)
        spec = step.TrainSpec(classifier, 32, len(noise) // 32)
        state, _ = programs.train_steps(
            spec, state, seeds, h, jnp.asarray(noise.images),
            jnp.asarray(noise.labels), optimization.schedule(0, 1), 0,
        )  # fmt: skip
        return state.variables.params["conv1"]["kernel"][0]

    absum = Setting("absum", 0.05)
    alone, beside = train((absum,)), train((absum, Setting("toy", 0.5)))
    np.testing.assert_allclose(beside[0], alone[0], atol=1e-6)
    assert jnp.abs(beside[1] - beside[0]).max() > 1e-3


def test_it_resumes_from_a_checkpoint(classifier, noise, make_config, toy, tmp_path):
    configs = [make_config(Setting("toy", 0.25))]

    def digest(folder):
        [run] = sweep.train_missing(
            classifier, noise, configs, folder, seconds_between_checkpoints=0
        )
        return run.parameters_digest

    with pytest.MonkeyPatch.context() as patch:
        log = Run.log

        def interrupt(self, epoch, *arguments):
            if epoch == 3:
                raise KeyboardInterrupt
            log(self, epoch, *arguments)

        patch.setattr(Run, "log", interrupt)
        with pytest.raises(KeyboardInterrupt):
            digest(tmp_path / "cut")
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_commands_know_it(toy, capsys):
    parsed = cli.parse("table1", ["--methods", "toy", "absum"]).sweep
    assert parsed.methods == ("toy", "absum")
    # Its own grid, where --strengths says nothing else.
    strengths = [s.strength for s in parsed.settings() if s.method == "toy"]
    assert strengths == [0.5, 0.25]
    given = dataclasses.replace(parsed, strengths=(1.0,))
    assert given.settings() == (Setting("toy", 1.0), Setting("absum", 1.0))
    assert "toy" in SweepOptions().methods
    assert ModelOptions("mnist").published(TABLE1).keys() == {
        "absum", "weight_decay", "l1", "snc", "snc-numpy-axes",
    }  # fmt: skip
    assert naming.scale(SweepOptions(ModelOptions("mnist"))) == []
    with pytest.raises(SystemExit):
        cli.parse("train", ["--help"])
    assert "snc-numpy-axes,fourier-noise,toy}" in "".join(
        capsys.readouterr().out.split()
    )


def test_unlisted_methods_are_not_offered():
    with pytest.raises(
        UsageError, match=r"snc-numpy-axes, fourier-noise, got 'absum-autodiff'"
    ):
        cli.parse("train", ["--methods", methods.ABSUM_AUTODIFF])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "l1"}, "`name` must be new, got 'l1' once more"),
        ({"parent": "none such"}, "`parent` must be registered, got 'none such'"),
    ],
)
def test_methods_that_cannot_be_are_refused(changes, message):
    before = dict(METHODS)
    with pytest.raises(ValueError, match=message):
        methods.register(Method(**{"name": "new", "label": "", "color": "", **changes}))
    assert before == METHODS


def test_a_constraint_of_ones_own(classifier, toy):
    """It halves its own models at each second step, and their bound is the strength."""
    halving = dataclasses.replace(
        toy, name="halving", constraint=Constraint(
            lambda params, bound, _: jax.tree.map(lambda p: bound * p, params), every=2
        ),
    )  # fmt: skip
    methods.register(halving)
    settings = (NONE, Setting("halving", 0.5))
    h = optimization.hyperparameters(settings, RATE, MOMENTUM)
    params = {"w": jnp.ones((2, 3))}
    groups = constraints.constrained(settings)
    for count, expected in ((1, 1.0), (2, 0.5)):
        moved = constraints.constrain(
            params, h.strengths, {}, groups, jnp.asarray(count), jnp.asarray(10)
        )["w"]
        np.testing.assert_array_equal(moved, [[1.0] * 3, [expected] * 3])
