"""Training on one virtual device and on four gives the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.data import Split
from experiments.errors import UsageError
from experiments.evaluation.kept import Images
from experiments.models import Classifier, Variables
from experiments.training import devices, sweep
from experiments.training.config import NONE, Recipe, RunConfig, Setting
from experiments.training.runs import Run

# Two milestones' worth of learning rates, momentum and decay, as of the large networks.
RECIPE = {
    "epochs": 2, "batch_size": 16, "learning_rate": 0.1, "momentum": 0.9,
    "milestones": (1,), "decay": 1e-3, "augmented": True,
}  # fmt: skip
SETTINGS = (NONE, Setting("absum", 0.1), Setting("weight_decay", 0.1))


class _Network(nnx.Module):
    """A convolution, batch normalization and a dense layer."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.dense = nnx.Linear(4, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(nnx.relu(self.norm(self.conv(x))).mean(axis=(1, 2)))


def _large() -> Classifier:
    """The network as a large one, whose models train one by one."""
    training, evaluated = (_Network(rngs=nnx.Rngs(0)) for _ in range(2))
    training.train(), evaluated.eval()
    graphs = [nnx.split(module, nnx.Param, nnx.BatchStat) for module in (
        training, evaluated)]  # fmt: skip
    empty = graphs[0][1:]

    def pure(module: nnx.Module) -> Variables:
        kinds = (nnx.Param, nnx.BatchStat)
        return Variables(*(nnx.to_pure_dict(nnx.state(module, k)) for k in kinds))

    def merged(graph: nnx.GraphDef, variables: Variables) -> nnx.Module:
        states = [jax.tree.map(lambda leaf: leaf, state) for state in empty]
        for state, values in zip(states, variables, strict=True):
            nnx.replace_by_pure_dict(state, values)
        return nnx.merge(graph, *states)

    def train_logits(variables, x, key):
        module = merged(graphs[0][0], variables)
        return module(x), pure(module).statistics

    return Classifier(
        lambda key: pure(_Network(rngs=nnx.Rngs(key))),
        train_logits,
        lambda variables, x: merged(graphs[1][0], variables)(x),
        lambda shape: {},
        is_small=False,
    )


@pytest.fixture(scope="module")
def large():
    return _large()


@pytest.fixture(scope="module")
def color():
    rng = np.random.default_rng(0)
    labels = (np.arange(64) % 10).astype(np.int32)
    images = rng.integers(0, 80, (64, 8, 8, 3)) + 17 * labels[:, None, None, None]
    return Split(images.astype(np.uint8), labels)


@pytest.fixture
def four_devices(monkeypatch):
    assert jax.device_count() >= 4
    monkeypatch.setattr(devices, "available", lambda: jax.devices()[:4])


def _trained(classifier, data, configs, folder, **how):
    runs = sweep.train_missing(classifier, data, configs, folder, **how)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    return [(run.metrics(), run.variables(shapes)) for run in runs]


def _assert_close(one, two, tolerance):
    for (metrics_a, a), (metrics_b, b) in zip(one, two, strict=True):
        for line, other in zip(metrics_a, metrics_b, strict=True):
            assert line == pytest.approx(other, rel=tolerance)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, atol=tolerance)


@pytest.fixture(scope="module")
def on_one(large, color, make_large, tmp_path_factory):
    configs = [make_large(setting) for setting in SETTINGS]
    return _trained(large, color, configs, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def make_large(color):
    def make(setting, **changes):
        return RunConfig(
            dataset="noise", data_fingerprint="", train_examples=len(color),
            validation_examples=0, method=setting.method, strength=setting.strength,
            seed=3, model="tiny", recipe=Recipe(**RECIPE | changes),
        )  # fmt: skip

    return make


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_large_networks_on_groups_of_devices(
    large, color, make_large, on_one, four_devices, tmp_path, shared
):
    """With 1, three models train at a time; with 4, each has all devices."""
    configs = [make_large(setting) for setting in SETTINGS]
    groups = devices.apart(len(configs), 16, shared)
    assert [dict(group.mesh.shape) for group in groups] == [
        {"sweep": 1, "data": shared}
    ] * (4 // shared)
    found = _trained(large, color, configs, tmp_path, data_parallel=shared)
    # Statistics of batch normalization are of the whole batch.
    _assert_close(found, on_one, 2e-5)
    provenance = Run(tmp_path, configs[0]).folder / "provenance.json"
    assert f'"data": {shared}' in provenance.read_text()


def test_the_methods_and_the_recipe_tell(large, color, make_large, on_one, tmp_path):
    kernels = [np.asarray(v.params["conv"]["kernel"]) for _, v in on_one]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-3
    for change in (
        {"milestones": ()}, {"milestones": (0,)}, {"decay": 0.0}, {"augmented": False}
    ):  # fmt: skip
        [(_, other)] = _trained(large, color, [make_large(NONE, **change)], tmp_path)
        kernel = other.params["conv"]["kernel"]
        assert np.abs(kernels[0] - kernel).max() > 1e-4, change
    statistics = on_one[0][1].statistics["norm"]
    assert np.abs(statistics["var"] - 1).max() > 0.1


def test_a_sweep_is_divided_over_devices(
    classifier, noise, make_config, four_devices, monkeypatch, tmp_path
):
    """Three settings on two devices, of which one has a model that is thrown away."""
    configs = [make_config(s, epochs=1) for s in SETTINGS]
    with monkeypatch.context() as patch:
        patch.setattr(devices, "available", lambda: jax.devices()[:1])
        expected = _trained(classifier, noise, configs, tmp_path / "one")
        images = Images(classifier, noise, "test")
        alone = images.arrays()
    placement = devices.together(len(configs), 32, 2)
    assert dict(placement.mesh.shape) == {"sweep": 2, "data": 2}
    assert placement.padded(3) == 4
    found = _trained(classifier, noise, configs, tmp_path / "four", data_parallel=2)
    _assert_close(found, expected, 2e-5)
    for array, other in zip(images.arrays(), alone, strict=True):
        assert len(array.sharding.device_set) == 4
        np.testing.assert_array_equal(array, other)


def test_a_run_goes_on_with_another_number_of_devices(
    large, color, make_large, on_one, four_devices, monkeypatch, tmp_path
):
    config = make_large(SETTINGS[1])
    train_epoch = sweep.step.train_epoch

    def stopping(*args, **kwargs):
        if int(args[6].epoch) == 1:
            raise KeyboardInterrupt
        return train_epoch(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(sweep.step, "train_epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            _trained(large, color, [config], tmp_path, data_parallel=4)
    assert len(Run(tmp_path, config).metrics()) == 1
    found = _trained(large, color, [config], tmp_path, data_parallel=2)
    _assert_close(found, on_one[1:2], 2e-5)
    seconds = Run(tmp_path, config).folder / "provenance.json"
    assert '"epochs_in_these_seconds": 1,' in seconds.read_text()


def test_what_devices_and_batch_do_not_divide_into_is_refused(four_devices):
    for asked in (0, 3, 8):
        with pytest.raises(
            UsageError, match=f"the 4 devices and the 16 .* got {asked}"
        ):
            devices.apart(1, 16, asked)
    assert len(devices.apart(1, 16, None)) == 1
    assert len(devices.apart(2, 16, None)) == 2
    assert len(devices.apart(9, 16, None)) == 4
    # Six images do not divide over four devices.
    assert dict(devices.apart(1, 6, None)[0].mesh.shape) == {"sweep": 1, "data": 2}
    assert dict(devices.together(33, 64, None).mesh.shape) == {"sweep": 4, "data": 1}
    assert dict(devices.together(2, 64, None).mesh.shape) == {"sweep": 2, "data": 1}


def test_padding_repeats_the_last():
    tree = {"a": jnp.arange(6).reshape(2, 3)}
    padded = devices.pad_settings(tree, 1, 5)["a"]
    np.testing.assert_array_equal(padded, [[0, 1, 2, 2, 2], [3, 4, 5, 5, 5]])
