"""Diagnostics: they are the models' own, and survive a kill as metrics do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stopping import interrupted, stopped
from tiny_network import in_place_of_small_cnn

import absum_jax
from experiments import cli
from experiments.config import NONE, Setting
from experiments.figures import diagnostics as figure
from experiments.figures.diagnostics import DiagnosticsOptions
from experiments.figures.one_seed import OneSeedOptions
from experiments.figures.spectra import SpectraOptions
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.methods import default
from experiments.models import build
from experiments.options import ModelOptions
from experiments.reporting.plots import saving
from experiments.reporting.plots.layers import layers_by_depth
from experiments.training import diagnostics, sweep
from experiments.training.runs import Run

ABSUM = Setting("absum", 0.05)
LAYERS = ["conv1/kernel", "conv2/kernel"]


@pytest.fixture(scope="module")
def params(classifier):
    return classifier.init(jax.random.key(0)).params


@pytest.fixture(scope="module")
def stacked(params):
    """Six models in two rows, the last without sums."""
    factors = jnp.arange(1.0, 7.0).reshape(2, 3)
    models = jax.tree.map(
        lambda leaf: factors.reshape(2, 3, *[1] * leaf.ndim) * leaf, params
    )
    for layer in ("conv1", "conv2"):
        kernel = models[layer]["kernel"]
        zero = absum_jax.prox_absum(kernel[1, 2], 1e3)
        models[layer]["kernel"] = kernel.at[1, 2].set(zero)
    return models


def test_the_kernels_are_those_of_the_uses(classifier, params):
    assert list(diagnostics.kernel_names(params)) == LAYERS
    assert set(classifier.conv_uses((28, 28, 1))) == set(LAYERS)


def test_penalty_and_zero_share_of_stacked_models(params, stacked):
    found = diagnostics.filter_sums(stacked, diagnostics.kernel_names(params))
    for layer in LAYERS:
        kernel = params[layer.split("/")[0]]["kernel"]
        # Eq. 12, in NumPy.
        one = np.abs(np.asarray(kernel, np.float64).sum(axis=(0, 1))).sum()
        expected = one * np.arange(1, 7).reshape(2, 3)
        expected[1, 2] = 0
        np.testing.assert_allclose(found["penalty"][layer], expected, atol=2e-4)
        np.testing.assert_array_equal(
            found["zero_share"][layer], [[0, 0, 0], [0, 0, 1]]
        )


def test_a_share_of_filters_is_zero():
    kernel = np.ones((5, 5, 2, 4), np.float32)
    # Sums up to rounding, a filter of zeros, and one that is nearly zero.
    kernel[:, :, 0, 0] = np.random.default_rng(0).normal(size=(5, 5))
    kernel[:, :, 0, 0] -= kernel[:, :, 0, 0].mean()
    kernel[:, :, 1, 1] = 0
    kernel[..., 1, 2] = np.eye(5) - np.roll(np.eye(5), 1, 0)
    kernel[0, 0, 1, 2] += 1e-4
    found = diagnostics.filter_sums({"conv": {"kernel": kernel}}, ("conv/kernel",))
    assert found["zero_share"]["conv/kernel"] == 2 / 8


def test_spectral_norms_of_stacked_models(classifier, params, stacked):
    uses = classifier.conv_uses((28, 28, 1))
    found = diagnostics.spectral_norms(stacked, uses)
    for name, size in (("conv1", 28), ("conv2", 12)):
        blocks = np.fft.fft2(params[name]["kernel"], (size, size), axes=(0, 1))
        norm = np.linalg.norm(blocks, 2, axis=(-2, -1)).max()
        values = np.asarray(found[f"{name}/kernel"])
        assert values.shape == (2, 3)
        np.testing.assert_allclose(values.ravel()[:5], norm * np.arange(1, 6), 1e-5)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, [1]), (3, [1, 2, 3]), (20, range(1, 21))]
)
def test_short_training_has_spectral_norms_of_every_epoch(epochs, expected):
    assert diagnostics.epochs_with_spectral_norms(epochs) == set(expected)


def test_long_training_has_spectral_norms_of_20_epochs():
    for epochs in (21, 100, 350):
        at = diagnostics.epochs_with_spectral_norms(epochs)
        assert len(at) == 20
        assert {1, epochs} <= at


def test_what_is_not_finite_is_null():
    assert diagnostics._plain(np.float32("inf")) is None
    assert diagnostics._plain(np.float32(0.1)) == 0.1


def _lines(classifier, noise, configs, folder, **options):
    runs = sweep.train_missing(classifier, noise, configs, folder, **options)
    return [run.diagnostics() for run in runs]


def test_they_survive_a_kill_and_change_no_model(
    classifier, noise, make_config, tmp_path, monkeypatch
):
    configs = [make_config(NONE), make_config(ABSUM)]
    options = {"spectral_norms": True, "seconds_between_checkpoints": 0}
    whole = _lines(classifier, noise, configs, tmp_path / "whole", **options)
    for lines in whole:
        assert [line["epoch"] for line in lines] == [1, 2, 3]
        for line in lines:
            assert set(line) == {"epoch", "penalty", "zero_share", "spectral_norm"}
            assert all(list(line[kind]) == LAYERS for kind in set(line) - {"epoch"})
    assert whole[0] != whole[1]

    # They are of the weights after the epoch.
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    trained = Run(tmp_path / "whole", configs[1]).variables(shapes).params
    for layer, value in whole[1][-1]["penalty"].items():
        kernel = trained[layer.split("/")[0]]["kernel"]
        assert value == pytest.approx(float(absum_jax.absum_penalty(kernel)), rel=1e-5)

    with stopped(2):
        _lines(classifier, noise, configs, tmp_path / "cut", **options)
    # What is ahead of the checkpoint, as a kill between the two would leave.
    run = Run(tmp_path / "cut", configs[0])
    run.log_diagnostics({"epoch": 3, "penalty": {}, "zero_share": {}})
    assert _lines(classifier, noise, configs, tmp_path / "cut", **options) == whole

    without = _lines(classifier, noise, configs, tmp_path / "without")
    for lines, others in zip(without, whole, strict=True):
        for line, other in zip(lines, others, strict=True):
            assert line == {k: v for k, v in other.items() if k != "spectral_norm"}


def test_lines_are_cut_at_an_epoch_even_if_the_first_are_missing(make_config, tmp_path):
    run = Run(tmp_path, make_config())
    run.begin(0)
    for epoch in (6, 7, 8):
        run.log(epoch, 0.5, 0.9)
        run.log_diagnostics({"epoch": epoch})
    run.begin(7)
    assert [line["epoch"] for line in run.metrics()] == [6, 7]
    assert run.diagnostics() == [{"epoch": 6}, {"epoch": 7}]
    for epoch in (8, 5):
        with pytest.raises(
            UsageError, match=rf"metrics.jsonl lacks epochs up to {epoch}"
        ):
            run.begin(epoch)


def test_layers_of_resnet18_come_in_the_order_of_depth():
    resnet = build("resnet18", (0.0,) * 3, (1.0,) * 3)
    layers = layers_by_depth(resnet, (32, 32, 3))
    assert len(layers) == 20
    names = list(layers)
    assert names[:5] == [
        "stem/kernel", "blocks/0/conv1/kernel", "blocks/0/conv2/kernel",
        "blocks/1/conv1/kernel", "blocks/1/conv2/kernel",
    ]  # fmt: skip
    assert layers[names[0]] == (3, 3, 3, 64)
    assert names[-1] == "blocks/7/conv2/kernel"


@pytest.fixture
def many():
    """Curves of ten layers; the last has no finite penalty at the end."""
    layers = {f"conv{i}": [1.0 + i, 2.0 + i] for i in range(10)}
    penalties = layers | {"conv9": [1.0, None]}
    return {
        "zero_share": figure.Curves([1, 2], {k: [0.25, 0.5] for k in layers}),
        "penalty": figure.Curves([1, 2], penalties),
        "spectral_norm": figure.Curves([2], {k: v[1:] for k, v in layers.items()}),
    }


def test_lines_of_many_layers_are_coloured_by_depth(many, tmp_path):
    drawn = figure.draw([NONE, ABSUM], [many, many])
    *axes, bar = drawn.axes
    assert len(axes) == 6
    assert bar.get_ylabel() == "layer"
    assert not drawn.legends
    assert all(len(ax.get_lines()) == 10 for ax in axes)
    share, penalty, norm = axes[::2]
    np.testing.assert_array_equal(share.get_lines()[3].get_ydata(), [25, 50])
    np.testing.assert_array_equal(penalty.get_lines()[3].get_ydata(), [4, 5])
    np.testing.assert_array_equal(penalty.get_lines()[9].get_ydata(), [1, np.nan])
    np.testing.assert_array_equal(norm.get_lines()[3].get_xdata(), [2])
    assert len({line.get_color() for line in share.get_lines()}) == 10
    saving.save(drawn, "Title", tmp_path / "many")


@pytest.mark.slow
def test_the_command_draws_what_was_logged(tmp_path, capsys):
    arguments = [
        "diagnostics", "--methods", "none", "absum", "--strengths=0.05", "--epochs=2",
        "--train-examples=128", f"--runs-dir={tmp_path}/runs",
        f"--results-dir={tmp_path}/results",
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    document = files.read_json(
        tmp_path / "results/scaled/diagnostics/mnist5k-none-absum-strength-0.05.json"
    )
    none, absum = document["models"]
    assert (none["method"], absum["strength"]) == ("none", 0.05)
    assert document["kernels"] == {
        "conv1/kernel": [5, 5, 1, 10], "conv2/kernel": [5, 5, 10, 20],
    }  # fmt: skip
    [line] = files.read_json_lines(
        tmp_path / "runs" / absum["run"] / "diagnostics.jsonl"
    )[1:]
    for kind in ("penalty", "zero_share", "spectral_norm"):
        assert absum[kind]["epochs"] == [1, 2]
        last = {name: values[-1] for name, values in absum[kind]["layers"].items()}
        assert last == line[kind]
    assert absum["penalty"] != none["penalty"]

    # Models without a kind that is always logged are named, before others are trained.
    path = tmp_path / "runs" / absum["run"] / "diagnostics.jsonl"
    del line["penalty"], line["checksum"]
    files.write_json_lines(path, [line | {"epoch": 1}, line])
    capsys.readouterr()
    assert cli.main([*arguments, "--methods", "l1", "absum"]) == 2
    assert not (tmp_path / "runs/mnist5k/small_cnn/l1").exists()
    said = capsys.readouterr().err
    assert absum["run"] in said
    assert "without logging its penalty; give another --runs-dir" in said


@pytest.mark.slow
@in_place_of_small_cnn()
def test_models_of_other_commands_are_drawn_without_spectral_norms(
    tmp_path, capsys, monkeypatch
):
    same = ["--epochs=2", "--train-examples=64", "--strengths=0.1",
            f"--runs-dir={tmp_path}/runs"]  # fmt: skip
    methods = ["--methods", "none", "absum"]
    assert cli.main(["train", *methods, *same]) == 0
    capsys.readouterr()
    drawn = []
    monkeypatch.setattr(
        figure,
        "draw",
        lambda *found, draw=figure.draw: drawn.append(draw(*found)) or drawn[-1],
    )

    def diagnostics(*more):
        assert cli.main(["diagnostics", *same, *more, f"--results-dir={tmp_path}"]) == 0
        return capsys.readouterr()

    said = diagnostics(*methods)
    assert "training" not in said.err
    first, *_ = said.out.splitlines()
    assert first.startswith(
        "spectral norms were not logged for 2 of 2 models, such as "
    )
    assert first.endswith("train in another --runs-dir with --diagnostics")
    assert len(drawn[0].axes) == 2 * 2
    # A model that is missing is trained with them, and drawn beside the others.
    said = diagnostics(*methods, "l1")
    assert "spectral norms were not logged for 2 of 3 models" in said.out
    assert "training 1 model" in said.err
    norms = drawn[1].axes[-3:]
    assert [len(ax.get_lines()) for ax in norms] == [0, 1, 0]
    assert [[text.get_text() for text in ax.texts] for ax in norms] == [
        ["not logged"], [], ["not logged"],
    ]  # fmt: skip
    path = tmp_path / "scaled/diagnostics/mnist5k-none-l1-absum-strength-0.1.json"
    models = files.read_json(path)["models"]
    assert ["spectral_norm" in model for model in models] == [False, True, False]


@pytest.mark.parametrize("epoch", [0, 2])
@in_place_of_small_cnn()
def test_what_was_begun_without_spectral_norms_goes_on(epoch, tmp_path, capsys):
    same = ["--epochs=3", "--train-examples=64", f"--runs-dir={tmp_path}/runs"]
    command = ["train", "--methods=none", "--checkpoint-seconds=0", *same]
    with interrupted(epoch):
        assert cli.main(command) == 130
    capsys.readouterr()
    results = f"--results-dir={tmp_path}"
    assert cli.main(["diagnostics", "--methods=none", results, *same]) == 0
    said = capsys.readouterr()
    assert "training 1 model" in said.err
    # If no epoch of it is kept, all have them.
    assert ("spectral norms were not logged for 1 of 1 models" in said.out) == (
        epoch > 0
    )
    [path] = tmp_path.glob("scaled/diagnostics/mnist5k-none*.json")
    [model] = files.read_json(path)["models"]
    assert ("spectral_norm" in model) == (epoch == 0)
    assert model["penalty"]["epochs"] == [1, 2, 3]


def test_a_network_that_the_paper_has_not_needs_a_strength():
    models = ModelOptions("svhn_cropped", network="googlenet")
    message = "no weight_decay of googlenet on svhn_cropped: give --strengths"
    one_seed = OneSeedOptions(models)
    for options in (DiagnosticsOptions, SpectraOptions):
        with pytest.raises(UsageError, match=message):
            options(one_seed)
    # Only what is chosen needs one.
    options = DiagnosticsOptions(one_seed, methods=("none", "snc"))
    assert options.settings == (NONE, Setting("snc", 1.0))
    one_seed = OneSeedOptions(models, strengths=(0.1,))
    options = DiagnosticsOptions(one_seed, methods=("snc", "l1"))
    assert options.settings == (Setting("l1", 0.1), Setting("snc", 1.0))


def test_a_subset_of_methods_lies_apart():
    def variant(*methods):
        one_seed = OneSeedOptions(max_norms=(0.5,))
        return DiagnosticsOptions(one_seed, methods).variant

    assert variant(*default()) == "-max-norm-0.5"
    assert variant("weight_decay", "none") == "-none-weight-decay-max-norm-0.5"
    assert variant("none", "weight_decay") == variant("weight_decay", "none")
