"""The figure of singular values: what is drawn are the models' own."""

import jax
import numpy as np
import pytest
from command_line import mistake

import absum_jax
from experiments import cli
from experiments.config import NONE, Setting
from experiments.evaluation import singular_values
from experiments.figures import spectra
from experiments.jobs import files
from experiments.options import ModelOptions
from experiments.reporting import naming
from experiments.training import programs, step, sweep


def test_values_are_those_of_each_frequency(classifier):
    params = classifier.init(jax.random.key(0)).params
    uses = classifier.conv_uses((28, 28, 1))
    values = spectra.singular_values([params, params], uses)
    # 28 x 28 frequencies of rank 1 and 12 x 12 of rank 10, by NumPy.
    assert {path: v.shape for path, v in values.items()} == {
        "conv1/kernel": (2, 28, 28, 1),
        "conv2/kernel": (2, 12, 12, 10),
    }
    for name, size in (("conv1", 28), ("conv2", 12)):
        blocks = np.fft.fft2(params[name]["kernel"], (size, size), axes=(0, 1))
        expected = np.linalg.svd(blocks, compute_uv=False)
        np.testing.assert_allclose(values[f"{name}/kernel"][1], expected, atol=1e-5)


def test_values_of_a_dilated_kernel():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 2)).astype(np.float32)
    params = {"kernel": kernel}
    uses = absum_jax.conv_input_shapes(
        lambda params, x: jax.lax.conv_general_dilated(
            x, params["kernel"], (1, 1), "SAME", rhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ),
        params, jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32),
    )  # fmt: skip
    [values] = spectra.singular_values([params], uses)["kernel"]
    dilated = np.zeros((5, 5, 1, 2))
    dilated[::2, ::2] = kernel
    blocks = np.fft.fft2(dilated, (8, 8), axes=(0, 1))
    expected = np.linalg.svd(blocks, compute_uv=False)
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_a_line_for_each_model_and_the_initial_one():
    values = np.random.default_rng(0).random((2, 6, 6, 3)) + 1
    figure = spectra.draw(
        [NONE, Setting("snc", 2.0)],
        {"conv1/kernel": values},
        {"conv1/kernel": values[:1]},
    )
    for ax in figure.axes:
        labels = [line.get_label() for line in ax.get_lines()]
        assert labels == ["initial", "no regularization", r"SNC, $\sigma=2$"]
    falling = figure.axes[0].get_lines()[2].get_ydata()
    np.testing.assert_array_equal(falling, np.sort(values[1].ravel())[::-1])
    # The first ring is frequency zero alone.
    rings = figure.axes[1].get_lines()[2].get_ydata()
    assert rings[0] == pytest.approx(values[1, 0, 0].mean())


def test_the_first_the_last_and_six_layers_between_are_drawn():
    values = np.ones((1, 2, 2, 1))
    of_layers = {f"blocks/{i}/conv1/kernel": values for i in range(20)}
    figure = spectra.draw([NONE], of_layers, of_layers)
    assert len(figure.axes) == 16
    assert [ax.get_title() for ax in figure.axes[:8]] == [
        f"blocks/{i}/conv1: 4 singular values" for i in (0, 3, 5, 8, 11, 14, 16, 19)
    ]


def test_initial_is_what_training_starts_from(
    classifier, noise, make_config, tmp_path, monkeypatch
):
    """An epoch that trains nothing leaves what is drawn as initial."""

    def untrained(_, state, *args, **kwargs):
        nothing = np.zeros((1, 1))
        return state, step.Metrics(nothing, nothing)

    monkeypatch.setattr(programs, "train_steps", untrained)
    config = make_config(Setting("absum", 0.1), 3)
    [run] = sweep.train_missing(classifier, noise, [config], tmp_path)
    initial = spectra.initial_params(classifier, 3)
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, run.variables(abstract).params, initial)


@pytest.mark.slow
def test_the_command_draws_and_tells_the_norms(tmp_path, monkeypatch):
    settings = NONE, Setting("l1", 1.0)
    monkeypatch.setattr(spectra.OneSeedOptions, "settings", lambda _: settings)
    code = cli.main(
        [
            "spectra", "--epochs=1", "--train-examples=128", f"--runs-dir={tmp_path}",
            f"--results-dir={tmp_path}/results",
        ]
    )  # fmt: skip
    assert code == 0
    content = files.read_json(tmp_path / "results/scaled/spectra/mnist5k.json")
    free, shrunk = (model["spectral_norms"] for model in content["models"])
    for path in free:
        # Two steps with a threshold of 0.01 on coefficients of at most 0.2.
        assert 0 < shrunk[path] < 0.95 * free[path]
    for suffix in ("png", "pdf"):
        assert (
            tmp_path / f"results/scaled/spectra/mnist5k.{suffix}"
        ).stat().st_size > 1000


def test_other_options_lie_apart():
    def path(*arguments):
        options = cli.parse("spectra", ["--dataset=cifar10", *arguments]).one_seed
        scaled = naming.model_scale(options.models)
        return str(
            naming.model_path("spectra", options.models, scaled, options.variant)
        )

    assert path() == "spectra/cifar10"
    assert path("--epochs=350", "--network=resnet18") == "spectra/cifar10"
    assert path("--network=googlenet") == "spectra/cifar10-googlenet"
    assert path("--max-norms=0.5") == "spectra/cifar10-max-norm-0.5"
    assert path("--dtype=bfloat16") == "spectra/cifar10-bfloat16"
    others = "--dtype=bfloat16", "--network=googlenet", "--max-norms=0.5"
    assert path(*others) == ("spectra/cifar10-googlenet-bfloat16-max-norm-0.5")
    assert path("--dtype=float32") == "spectra/cifar10"
    assert (
        path("--epochs=3", "--strengths=0.1") == "scaled/spectra/cifar10-strength-0.1"
    )
    models = ModelOptions("cifar10", network="googlenet")
    assert naming.title("Title", models, []) == "Title, CIFAR-10 (GoogLeNet)"


@pytest.mark.parametrize("argument", ["--max-norms=0", "--epochs=0", "--seeds=-1"])
def test_mistakes_are_told(argument, tmp_path, capsys):
    assert "must" in mistake(capsys, "spectra", argument, f"--runs-dir={tmp_path}")


def test_what_is_stored_of_singular_values(classifier, images, runs):
    """By NumPy, of the block of each frequency."""
    found = singular_values.evaluate(images, runs)
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    for run, layers in zip(runs, found, strict=True):
        params = run.variables(abstract).params
        for name, size in (("conv1", 28), ("conv2", 12)):
            blocks = np.fft.fft2(params[name]["kernel"], (size, size), axes=(0, 1))
            values = np.linalg.svd(blocks, compute_uv=False)
            own = layers[f"{name}/kernel"]
            assert own["norm"] == pytest.approx(values.max(), rel=1e-5)
            assert own["norm_at_zero"] == pytest.approx(values[0, 0].max(), rel=1e-5)
            assert own["mean"] == pytest.approx(values.mean(), rel=1e-5)
            l, m = (np.minimum(i, size - i) for i in np.indices((size, size)))
            rings = np.rint(np.hypot(l, m))
            for ring, mean in enumerate(own["radial_mean"]):
                assert mean == pytest.approx(values[rings == ring].mean(), rel=1e-5)
