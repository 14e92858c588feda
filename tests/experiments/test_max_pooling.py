"""The small CNN's max-pooling: which of equal entries takes the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.config import NONE, Adversary, RunConfig, Setting
from experiments.data import DATASETS
from experiments.models import ARCHITECTURES
from experiments.models.small_cnn import SmallCNN, _max_pool
from experiments.options import ModelOptions
from experiments.training import plan
from experiments.workspace import Workspace

ABSUM = Setting("absum", 0.1)
ADVERSARY = Adversary(eps=0.3, step_size=0.1, steps=3, init_radius=0.05)


def _first_maxima(x):
    """Values of 2 x 2 max-pooling, and a mask of the first maximum of each square."""
    a, height, width, b = x.shape
    values, taken = np.empty((a, height // 2, width // 2, b)), np.zeros(x.shape)
    for i, row, column, j in np.ndindex(values.shape):
        square = x[i, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, j]
        # The first of equal entries, row by row.
        down, right = divmod(int(square.argmax()), 2)
        values[i, row, column, j] = square.max()
        taken[i, 2 * row + down, 2 * column + right, j] = 1
    return values, taken


def _ties(shape=(3, 6, 8, 5)):
    """Images of which most squares have several maxima, and cotangents."""
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, shape).astype(np.float32)
    a, height, width, b = shape
    g = rng.normal(size=(a, height // 2, width // 2, b)).astype(np.float32)
    return x, g


def _spread(g):
    return g.repeat(2, axis=1).repeat(2, axis=2)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_the_first_of_equal_maxima_takes_the_gradient(compiled):
    x, g = _ties()
    values, taken = _first_maxima(x)
    pool = jax.jit(_max_pool) if compiled else _max_pool
    found, transpose = jax.vjp(pool, x)
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(transpose(g)[0], taken * _spread(g))
    # Forward mode takes the tangent of the same entry.
    tangent = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    _, pushed = jax.jvp(pool, (x,), (tangent,))
    squares = (taken * tangent).reshape(3, 3, 2, 4, 2, 5)
    np.testing.assert_allclose(pushed, squares.sum(axis=(2, 4)), rtol=1e-6)


def test_every_order_of_a_squares_entries():
    # All squares of {0, 1, 2}, one an image.
    grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 4, indexing="ij"), axis=-1)
    x = grid.reshape(-1, 2, 2, 1).astype(np.float32)
    _, taken = _first_maxima(x)
    gradient = jax.grad(lambda x: _max_pool(x).sum())(x)
    np.testing.assert_array_equal(gradient, taken)


def test_a_constant_square_gives_its_gradient_to_its_first_entry():
    x = jnp.full((2, 4, 6, 3), -0.5)
    gradient = jax.grad(lambda x: _max_pool(x).sum())(x)
    expected = np.zeros(x.shape)
    expected[:, ::2, ::2] = 1
    np.testing.assert_array_equal(gradient, expected)


def test_pooling_of_stacked_models_and_second_derivatives():
    x, g = _ties((4, 4, 4, 2))

    def value(x):
        return (g[:1] * _max_pool(x[None]) ** 2).sum()

    _, taken = _first_maxima(x)
    together = jax.vmap(jax.grad(value))(x)
    expected = taken * 2 * _spread(np.broadcast_to(g[:1], g.shape)) * x
    np.testing.assert_allclose(together, expected, rtol=1e-6)
    hessian = jax.hessian(value)(x[0]).reshape(x[0].size, -1)
    curvature = taken[0] * 2 * _spread(g[:1])[0]
    np.testing.assert_allclose(hessian, np.diag(curvature.ravel()), rtol=1e-6)


@pytest.mark.parametrize("place", range(4))
def test_pooling_passes_nan_on(place):
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    x[0, place // 2, place % 2, 0] = np.nan
    values, transpose = jax.vjp(_max_pool, x)
    np.testing.assert_array_equal(values.ravel(), [np.nan, 7, 13, 15])
    # As in PyTorch, NaN is larger than any number.
    gradient = np.asarray(transpose(jnp.ones_like(values))[0])
    assert gradient[0, place // 2, place % 2, 0] == 1
    assert gradient.sum() == 4


def test_pooling_is_flaxs():
    x, g = _ties()
    values, transpose = jax.vjp(_max_pool, x)
    expected, transposed = jax.vjp(lambda x: nnx.max_pool(x, (2, 2), (2, 2)), x)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(transpose(g), transposed(g))


def test_pooling_is_pytorchs():
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed (the extra bench)"
    )
    x, g = _ties()
    values, transpose = jax.vjp(_max_pool, x)
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    pooled = torch.nn.functional.max_pool2d(theirs, 2)
    pooled.backward(torch.tensor(g.transpose(0, 3, 1, 2)))
    for one, other in ((values, pooled.detach()), (transpose(g)[0], theirs.grad)):
        np.testing.assert_array_equal(one, other.numpy().transpose(0, 2, 3, 1))


def test_both_forms_share_ties_alike():
    native, fast = (
        SmallCNN(form=form, rngs=nnx.Rngs(0)) for form in ("native", "patches")
    )
    rng = np.random.default_rng(0)
    # On a dark background, as digits are.
    x = np.zeros((4, 28, 28, 1), np.float32)
    x[:, 8:20, 8:20] = rng.integers(0, 2, (4, 12, 12, 1))
    gradients = []
    for model in (native, fast):
        model.eval()
        for layer in (model.conv1, model.conv2):
            # Small whole numbers, whose sums have no rounding: what is equal in one
            # form is equal in the other.
            shape = layer.kernel.shape
            draws = np.random.default_rng(1).integers(-1, 2, shape)
            layer.kernel[...] = jnp.asarray(draws, jnp.float32)
            layer.bias[...] = jnp.ones_like(layer.bias[...])
        gradient = jax.jit(jax.grad(lambda x, model=model: model(x).sum()))
        gradients.append(gradient(x))
    scale = np.abs(gradients[0]).max()
    assert scale > 0
    np.testing.assert_allclose(*gradients, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, "small_cnn/none/0/seed-0-4b35eae3"),
        ({"setting": ABSUM, "seed": 3}, "small_cnn/absum/0.1/seed-3-fba1bee6"),
        ({"adversary": ADVERSARY}, "small_cnn/none/0/seed-0-dc684dba"),
        ({"model": "resnet18"}, "resnet18/none/0/seed-0-4c7c986f"),
        (
            {"model": "resnet18", "setting": ABSUM, "seed": 3},
            "resnet18/absum/0.1/seed-3-c63b7a70",
        ),
    ],
    ids=str,
)
def test_runs_from_before_pooling_had_a_rule_keep_their_folders(
    make_config, changes, path
):
    config = make_config(data_fingerprint="0", max_pool_ties=None, **changes)
    # As it was when pooling divided the gradient among equal entries.
    assert config.path.as_posix() == f"noise/{path}"
    assert "max_pool_ties" not in config.as_dict()
    assert RunConfig.from_dict(config.as_dict()) == config


def test_small_cnns_name_their_rule_of_pooling(make_config, tmp_path):
    earlier = make_config(max_pool_ties=None)
    config = make_config()
    assert config.as_dict()["max_pool_ties"] == "first"
    assert config.path != earlier.path
    assert RunConfig.from_dict(config.as_dict()) == config
    # An interrupted sweep of earlier models is left alone.
    source = plan.Unfinished(tmp_path, plan.Sweep(((earlier,),)), 1)
    [task] = plan.plan([config], [source])
    assert task == plan.Task(plan.Sweep(((config,),)), None)
    folder = tmp_path / source.sweep.path.name
    plan.save_members(folder, source.sweep)
    assert plan.load_members(folder) == source.sweep


@pytest.mark.parametrize(
    ("dataset", "network"),
    [
        (dataset, network)
        for network, architecture in ARCHITECTURES.items()
        for dataset, info in DATASETS.items()
        if architecture.is_for(info.image_shape) and architecture.parent is None
    ],
)
def test_commands_ask_for_models_with_the_rule(noise, images, dataset, network):
    options = ModelOptions(dataset=dataset, network=network)
    # Every command takes its models from a workspace.
    workspace = Workspace(options, None, None, noise, images, images)
    runs = workspace.runs([ABSUM], [0])
    if network == "small_cnn":
        runs += workspace.runs([NONE], [1], ADVERSARY)
    expected = "first" if network == "small_cnn" else None
    for run in runs:
        assert run.config.max_pool_ties == expected
        assert run.config.as_dict().get("max_pool_ties") == expected
