"""Functions of one model, applied to several, on one device and on several."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import NONE, Setting
from experiments.methods import METHODS
from experiments.models import stacked
from experiments.studies import snc_constraints  # noqa: F401
from experiments.training import devices, sweep
from experiments.training.runs import Run, stacked_variables

pytestmark = pytest.mark.usefixtures("tiny_network")


def _affine(weights, x, unused, bias):
    """A function of one model with a tree of results."""
    assert unused is None
    return {"y": x @ weights["w"] + bias, "sum": weights["w"].sum()}


def _arguments(models):
    rng = np.random.default_rng(models)
    weights = {"w": jnp.asarray(rng.normal(size=(models, 3, 2)), jnp.float32)}
    x = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    return weights, x, None, jnp.arange(models, dtype=jnp.float32)


@pytest.mark.parametrize(("models", "shards"), [(1, 1), (4, 1), (4, 2), (4, 4)])
def test_models_are_computed_as_each_is_alone(models, shards):
    weights, x, _, bias = _arguments(models)
    apply = stacked.over_models(_affine, (0, None, None, 0), shards=shards)
    got = jax.jit(apply)(weights, x, None, bias)
    assert got["sum"].shape == (models,)
    for i in range(models):
        expected = np.asarray(x, np.float64) @ np.asarray(weights["w"][i]) + i
        np.testing.assert_allclose(got["y"][i], expected, atol=1e-6)
        np.testing.assert_allclose(got["sum"][i], weights["w"][i].sum(), atol=1e-6)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 1), ("cuda", 0), ("tpu", 0)])
def test_models_take_turns_on_cpus_alone(platform, loops):
    apply = stacked.over_models(_affine, (0, None, None, 0))
    lowered = jax.jit(apply).trace(*_arguments(4)).lower(lowering_platforms=(platform,))
    text = lowered.as_text()
    assert text.count("stablehlo.while") == loops
    assert text.count("stablehlo.dot_general") == 1


def test_devices_compute_models_of_their_own(use_devices):
    use_devices(2)
    placement = devices.joint_placement(1, 4, 8, None)
    assert placement.shards == (1, 2)
    weights, x, _, bias = _arguments(4)
    weights, bias = devices.put((weights, bias), placement.settings)
    x = devices.put(x, placement.replicated)
    apply = stacked.over_models(_affine, (0, None, None, 0), shards=2)
    compiled = jax.jit(apply).lower(weights, x, None, bias).compile()
    text = compiled.as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text
    got = compiled(weights, x, None, bias)
    assert got["y"].sharding.is_equivalent_to(placement.settings, 3)
    np.testing.assert_allclose(
        got["y"], jnp.einsum("bi,mio->mbo", x, weights["w"]) + bias[:, None, None],
        atol=1e-6,
    )  # fmt: skip


# Five settings on two devices: one is padded. Both clip within these steps.
SETTINGS = (
    NONE,
    Setting("weight_decay", 0.1),
    Setting("absum", 0.05),
    Setting("snc-every-step", 0.3),
    Setting("snc-rescaled", 0.3),
)


@pytest.mark.slow
def test_one_device_and_several_train_the_same_models(
    classifier, noise, make_config, tmp_path, use_devices, monkeypatch
):
    rescaled = METHODS["snc-rescaled"]
    often = rescaled.constraint._replace(every=2)
    changed = dataclasses.replace(rescaled, constraint=often)
    monkeypatch.setitem(METHODS, "snc-rescaled", changed)
    configs = [make_config(setting, epochs=2) for setting in SETTINGS]
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    params = {}
    for count in (1, 2):
        use_devices(count)
        runs_dir = tmp_path / str(count)
        sweep.train_missing(classifier, noise, configs, runs_dir)
        runs = [Run(runs_dir, config) for config in configs]
        params[count] = stacked_variables(runs, abstract).params
        for run in runs:
            provenance = json.loads((run.folder / "provenance.json").read_text())
            assert provenance["devices_in_one_program"] == {
                "seeds": 1, "sweep": count, "data": 1,
            }  # fmt: skip
            assert provenance["devices"] == jax.device_count()
    # Measured: 0. With LLVM's optimization losses of three epochs differ by rounding.
    for one, two in zip(*map(jax.tree.leaves, params.values()), strict=True):
        difference = np.abs(one - two).reshape(len(SETTINGS), -1).max(axis=1)
        assert difference.max() <= 1e-6


def test_seeds_that_are_divided_train_the_same_models(
    classifier, noise, make_config, tmp_path, use_devices
):
    settings = NONE, Setting("absum", 0.05)
    configs = [make_config(s, epochs=2, seed=i) for i in range(2) for s in settings]
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    params = []
    for count, shape in ((1, (1, 1)), (4, (2, 2))):
        use_devices(count)
        sweep.train_missing(classifier, noise, configs, tmp_path / str(count))
        runs = [Run(tmp_path / str(count), config) for config in configs]
        params.append(stacked_variables(runs, abstract).params)
        provenance = json.loads((runs[0].folder / "provenance.json").read_text())
        used = provenance["devices_in_one_program"]
        assert (used["seeds"], used["sweep"]) == shape
    for one, several in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_allclose(several, one, atol=1e-6)
