"""Batch normalization in groups of the batch, on one device and on several."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_tfds import fake_splits, write_prepared
from flax import nnx
from networks import evaluated, filled, images, norms
from numpy_networks import ByBatch, resnet18

from experiments import cli
from experiments.composed import result_options
from experiments.config import NONE, RunConfig
from experiments.data import DATASETS
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.models import build, resnet
from experiments.models.layers import norm
from experiments.options import ModelOptions, SweepOptions
from experiments.reporting import naming
from experiments.training import checkpoints, devices, optimization, programs, step

EXAMPLES, GROUPS = 8, 4


@pytest.fixture
def shallow(monkeypatch):
    """Makes every ResNet-18 one of two narrow blocks, with five normalizations."""
    build.cache_clear()
    monkeypatch.setattr(resnet, "_STAGES", ((4, 1),))
    yield
    build.cache_clear()


def _layer(groups):
    layer = norm(3, nnx.Rngs(0))
    layer.scale[...] = jnp.array([0.5, 1.5, -2.0])
    layer.bias[...] = jnp.array([0.1, -0.2, 0.3])
    layer.train(batch_groups=groups)
    return layer


def _uneven(dtype=jnp.float32):
    """A batch whose images differ in mean and in variance."""
    rng = np.random.default_rng(0)
    scales = np.arange(1, EXAMPLES + 1)[:, None, None, None]
    x = scales * rng.normal(size=(EXAMPLES, 5, 4, 3)) + scales
    return jnp.asarray(x, dtype)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_each_group_is_normalized_by_itself(groups, dtype):
    layer, x = _layer(groups), _uneven(dtype)
    by_batch = ByBatch(groups)
    expected = by_batch(layer, np.asarray(x, np.float64))
    before = id(layer)
    y = layer(x)
    assert y.dtype == layer.mean[...].dtype == layer.var[...].dtype == jnp.float32
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    mean, var = by_batch.moved[before]
    np.testing.assert_allclose(layer.mean[...], mean, rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], var, rtol=1e-5)
    # An image is told apart from those of other groups alone.
    changed = _layer(groups)(x.at[-1].add(1.0))
    alike = [bool((a == b).all()) for a, b in zip(changed, y, strict=True)]
    size = EXAMPLES // groups
    assert alike == [True] * (EXAMPLES - size) + [False] * size


def test_the_gradient_is_that_of_each_group():
    x, weights = _uneven(), np.random.default_rng(1).normal(size=_uneven().shape)
    graphdef, params, statistics = nnx.split(_layer(GROUPS), nnx.Param, nnx.BatchStat)

    def loss(params, x):
        layer = nnx.merge(graphdef, params, statistics, copy=True)
        return (layer(x) * weights).sum()

    of_params, of_x = jax.grad(loss, argnums=(0, 1))(params, x)
    # In float64, of y = scale z + bias with z = (x - mean) / deviation: with w = scale
    # times the gradient of y, that of x is (w - mean(w) - z mean(w z)) / deviation.
    axes = (1, 2, 3)
    groups = np.asarray(x, np.float64).reshape(GROUPS, -1, *x.shape[1:])
    outer = weights.reshape(groups.shape)
    deviation = np.sqrt(groups.var(axes, keepdims=True) + 1e-5)
    z = (groups - groups.mean(axes, keepdims=True)) / deviation
    w = outer * np.array([0.5, 1.5, -2.0])
    expected = w - w.mean(axes, keepdims=True) - z * (w * z).mean(axes, keepdims=True)
    expected /= deviation
    np.testing.assert_allclose(of_x, expected.reshape(x.shape), rtol=1e-3, atol=1e-4)
    every = (0, 1, 2, 3)
    np.testing.assert_allclose(of_params.bias[...], outer.sum(every), rtol=1e-4)
    np.testing.assert_allclose(
        of_params.scale[...], (outer * z).sum(every), rtol=1e-4, atol=1e-4
    )


def test_a_network_in_groups(shallow):
    model = filled(resnet.ResNet18)
    x = images(EXAMPLES, size=8)
    expected = {
        groups: resnet18(model, np.asarray(x, np.float64), by_batch)
        for groups in (1, GROUPS)
        for by_batch in [ByBatch(groups)]
    }
    assert np.abs(expected[1] - expected[GROUPS]).max() > 0.01
    whole, divided = nnx.clone(model), nnx.clone(model)
    divided.train(batch_groups=GROUPS)
    assert len(norms(divided)) == 5
    np.testing.assert_allclose(whole(x), expected[1], atol=1e-4)
    np.testing.assert_allclose(divided(x), expected[GROUPS], atol=1e-4)
    # In evaluation there are no groups.
    other = nnx.clone(model)
    other.train(batch_groups=GROUPS)
    np.testing.assert_array_equal(evaluated(other)(x), evaluated(model)(x))


_COLLECTIVE = re.compile(
    r"= (\S.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)"
    r"(?:-start)?\("
)


def _collectives(lowered):
    """Each operation between devices, and how many numbers it gives."""
    found = []
    for shapes, operation in _COLLECTIVE.findall(lowered.compile().as_text()):
        dims = re.findall(r"\w+\[([\d,]*)\]", shapes)
        sizes = [np.prod([int(n) for n in d.split(",") if n], dtype=int) for d in dims]
        found.append((operation, sum(sizes)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_what_devices_tell_each_other(shallow, use_devices, groups):
    use_devices(4)
    [placement] = devices.separate_placements(1, 8, 4)
    classifier = build("resnet18", (0.5,) * 3, (0.2,) * 3, batch_norm_groups=groups)

    def shapes(tree, sharding=placement.replicated):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            tree,
        )

    h = optimization.hyperparameters((NONE,), 0.1, 0.9)
    seeds = jnp.zeros(1, int)
    state = jax.eval_shape(lambda: step.init_sweep(classifier, seeds, h))
    variables = jax.eval_shape(classifier.init, jax.random.key(0))
    x = shapes(jnp.zeros((8, 8, 8, 3), jnp.uint8), placement.batch)
    y = shapes(jnp.zeros(8, int), placement.batch)

    def logits(variables, x):
        return classifier.train_logits(variables, x / 255, None)[0]

    forward = _collectives(
        jax.jit(logits, out_shardings=placement.batch).lower(shapes(variables), x)
    )
    spec = step.TrainSpec(classifier, 8, epoch_steps=2, placement=placement)
    whole_step = _collectives(
        programs.train_batch.lower(
            spec, *shapes((state, seeds, h)), x, y,
            *shapes((optimization.schedule(0, 2), jnp.asarray(0))),
        )
    )  # fmt: skip
    told = sum(size for _, size in whole_step)
    # The gradient, the statistics, loss and accuracy.
    least = sum(leaf.size for leaf in jax.tree.leaves(variables)) + 2
    assert {operation for operation, _ in whole_step} == {"all-reduce"}
    if groups == 1:
        # For each normalization, forwards and backwards.
        assert len(forward) >= 5
        assert len(whole_step) >= 10
        # The sums that gradients of scales and biases consist of serve both purposes.
        assert told >= least
    else:
        assert forward == []
        assert told == least


@pytest.fixture
def train(shallow, use_devices, tmp_path, capsys):
    """Trains a model by the command, and returns its configuration and network."""
    splits = fake_splits("cifar10")
    for pictures, _ in splits.values():
        # Of many contrasts, so that groups of a batch differ.
        pictures //= 1 + np.arange(len(pictures), dtype=np.uint8)[:, None, None, None]
    write_prepared(tmp_path / "data", "cifar10", splits)

    def run(number, *arguments):
        use_devices(number)
        runs_dir = tmp_path / f"{number}"
        assert cli.main(
            ["train", "--dataset=cifar10", "--epochs=1", "--batch-size=32",
             "--learning-rate=0.01", "--train-examples=64", "--dtype=float32",
             "--data-dir", str(tmp_path / "data"), "--cache-dir", str(tmp_path / "c"),
             "--runs-dir", str(runs_dir), *arguments]
        ) == 0  # fmt: skip
        folder = capsys.readouterr().out.split("|")[-2].strip()
        [path] = [p for p in runs_dir.rglob("config.json") if str(p.parent) == folder]
        classifier = build("resnet18", (0.0,) * 3, (1.0,) * 3)
        shapes = jax.eval_shape(classifier.init, jax.random.key(0))
        variables = checkpoints.load_arrays(path.parent / "checkpoint", shapes)
        return files.read_json(path), variables

    return run


@pytest.mark.slow
def test_the_command_trains_the_same_on_any_number_of_devices(train):
    config, one = train(1, "--batch-norm-groups=4")
    assert config["recipe"]["batch_norm_groups"] == 4
    config_two, two = train(4, "--batch-norm-groups=4")
    assert config == config_two
    config, whole = train(1)
    assert "batch_norm_groups" not in config["recipe"]
    leaves = [jax.tree.leaves(variables) for variables in (one, two, whole)]
    for a, b in zip(*leaves[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert max(np.abs(a - b).max() for a, b in zip(*leaves[::2], strict=True)) > 1e-3


def test_runs_without_groups_keep_their_folders(make_config):
    config = make_config(model="resnet18", data_fingerprint="0")
    # As it was before there were groups.
    assert config.path.as_posix() == "noise/resnet18/none/0/seed-0-4c7c986f"
    assert "batch_norm_groups" not in config.as_dict()["recipe"]
    for other in (config, make_config(batch_norm_groups=4)):
        assert RunConfig.from_dict(other.as_dict()) == other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dataset": "cifar10", "batch_norm_groups": 3},
            r"--batch-norm-groups must divide the 128 .* \(--batch-size\), got 3\.",
        ),
        ({"dataset": "cifar10", "batch_norm_groups": 0}, "128 .*, got 0"),
        ({"dataset": "cifar10", "batch_norm_groups": -2}, "128 .*, got -2"),
        (
            {"dataset": "imagenet2012", "batch_norm_groups": 256, "batch_size": 128},
            "the 128 images .*, got 256",
        ),
        (
            {"batch_norm_groups": 4},
            "--batch-norm-groups 4 .*small_cnn has no batch normalization",
        ),
    ],
)
def test_groups_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ModelOptions(**options)


def test_batches_are_as_large_in_adversarial_training():
    # Or the groups of Table 4 would have to be checked against another batch.
    for info in DATASETS.values():
        recipe, pgd = info.conditions.recipe, info.conditions.pgd
        assert pgd is None or pgd.recipe.batch_size == recipe.batch_size


def test_titles_tell_the_groups():
    models = ModelOptions("cifar10", batch_size=64, batch_norm_groups=8)
    options = SweepOptions(models)
    assert models.recipe().batch_norm_groups == 8
    assert naming.title("Table 1", models, naming.scale(options)) == (
        "Table 1, CIFAR-10 (ResNet-18) (scaled down: batches of 64, batch "
        "normalization in 8 groups)"
    )
    assert result_options(options)["batch_norm_groups"] == 8
