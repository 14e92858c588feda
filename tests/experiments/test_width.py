"""ResNet-18 with a share of its channels, beyond the paper, by `--width`."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import mistake
from flax import nnx
from networks import evaluated, filled, images
from numpy_networks import ByBatch, by_statistics, resnet18

from experiments import cli
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS, SNC_METHODS
from experiments.models import ARCHITECTURES, WIDTHS, build, with_width
from experiments.models.architectures import without_values
from experiments.models.resnet import ResNet18
from experiments.options import ModelOptions, SweepOptions, WidthName
from experiments.published import TABLE1, TABLE2, TABLE4
from experiments.reporting import naming

pytestmark = pytest.mark.slow

MODELS = {"1": "resnet18"} | {width: with_width("resnet18", width) for width in WIDTHS}
EIGHTH = {"dataset": "cifar10", "width": "1/8"}
# Of the absolute initial parameters drawn from the key of 3, before there were widths.
SUM = 109451.96821071656


def test_widths_and_names():
    assert MODELS == {
        "1": "resnet18",
        "1/2": "resnet18_half",
        "1/4": "resnet18_quarter",
        "1/8": "resnet18_eighth",
    }
    assert list(MODELS) == list(WidthName.__args__)
    narrowed = {n for n, network in ARCHITECTURES.items() if network.parent}
    assert narrowed == {*MODELS.values()} - {"resnet18"}


def _layer_by_layer(channels, classes):
    """The parameters of pytorch-cifar's ResNet-18, from a list of its layers."""
    kernels = [(3, 3, channels)]
    widths = [channels * 2**stage for stage in (0, 0, 0, 1, 1, 2, 2, 3, 3)]
    for inputs, outputs in itertools.pairwise(widths):
        kernels += [(3, inputs, outputs), (3, outputs, outputs)]
        if inputs != outputs:
            kernels.append((1, inputs, outputs))
    # Of each a scale and a bias of the normalization behind it.
    layers = sum(size**2 * a * b + 2 * b for size, a, b in kernels)
    return layers + widths[-1] * classes + classes


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("width", MODELS)
def test_parameter_count(width, classes):
    network = without_values(ARCHITECTURES[MODELS[width]].create, classes=classes)
    found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
    # 27 c + 36 c^2 + 32 (2^2 + 4^2 + 8^2) c^2 in kernels, 150 c behind them.
    c = 64 if width == "1" else 64 // int(width[2:])
    assert found == 2724 * c**2 + 177 * c + (8 * c + 1) * classes
    assert found == _layer_by_layer(c, classes)
    # Means and variances of 75 c channels.
    statistics = jax.tree.leaves(nnx.state(network, nnx.BatchStat))
    assert [len(statistics), sum(leaf.size for leaf in statistics)] == [40, 150 * c]


def test_an_eighth_matches_numpy():
    model = filled(ResNet18, divisor=8)
    x = images(3)
    assert model.stem.kernel.shape == (3, 3, 3, 8)
    assert model.dense.kernel.shape == (64, 10)
    assert evaluated(model)(x).shape == (3, 10)
    inside = np.asarray(x, np.float64)
    expected = resnet18(model, inside, by_statistics)
    np.testing.assert_allclose(evaluated(model)(x), expected, atol=1e-4)
    expected = resnet18(model, inside, ByBatch())
    np.testing.assert_allclose(model(x), expected, atol=1e-4)


def test_the_whole_width_draws_what_it_drew_before_there_were_others():
    params = build("resnet18", (0.5,) * 3, (0.2,) * 3).init(jax.random.key(3)).params
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    assert sum(np.abs(leaf).sum() for leaf in leaves) == pytest.approx(SUM, rel=1e-9)
    module = ResNet18(divisor=1, rngs=nnx.Rngs(jax.random.key(3)))
    same = jax.tree.leaves(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    for a, b in zip(same, jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
    default = nnx.graphdef(without_values(ResNet18))
    assert nnx.graphdef(without_values(ResNet18, divisor=1)) == default


@pytest.mark.parametrize("divisor", [0, -1, 3, 128])
def test_channels_must_be_divided(divisor):
    with pytest.raises(ValueError, match=f"divisor must divide 64, got {divisor}"):
        ResNet18(divisor=divisor, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": "1/8"}, "--width 1/8 is for resnet18 alone: small_cnn has no"),
        (EIGHTH | {"network": "googlenet"}, "alone: googlenet has no other width"),
        (EIGHTH | {"network": "densenet121"}, "alone: densenet121 has no other"),
        (EIGHTH | {"dataset": "imagenet2012"}, "alone: resnet18_224 has no other"),
        (EIGHTH | {"width": "1/3"}, "--width must be one of 1, 1/2, 1/4, 1/8, got '1"),
        (EIGHTH | {"network": "resnet18_eighth"}, "--network must be one of resnet18,"),
    ],
)
def test_other_widths_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ModelOptions(**options)


@pytest.mark.parametrize("width", ["3/8", "0.3", "0", "eighth"])
def test_the_command_line_refuses_what_does_not_divide(width, capsys):
    said = mistake(capsys, "train", "--dataset=cifar10", "--width", width)
    assert said.startswith(f"--width must be one of 1, 1/2, 1/4, 1/8, got {width!r}")


def test_strengths_and_numbers_of_the_whole_network():
    options = SweepOptions(ModelOptions(**EIGHTH, epochs=20), select_on="paper")
    narrow, whole = options.models, ModelOptions("cifar10", epochs=20)
    assert (narrow.model, narrow.published_network) == ("resnet18_eighth", "resnet18")
    assert options.settings() == dataclasses.replace(options, models=whole).settings()
    for table in (TABLE1, TABLE2):
        assert narrow.published(table) == whole.published(table) != {}
    absum = TABLE1["cifar10", "resnet18"]["absum"]
    assert narrow.published(TABLE1)["absum"] == absum
    assert narrow.published_strengths(TABLE4)["absum"] == 1e-5


def test_results_say_so_and_lie_apart():
    options = SweepOptions(ModelOptions(**EIGHTH), select_on="paper")
    scaled = naming.scale(options)
    assert scaled == ["an eighth of the channels"]
    assert naming.title("Table 1", options.models, scaled) == (
        "Table 1, CIFAR-10 (ResNet-18) (scaled down: an eighth of the channels)"
    )
    path = naming.path("table1", options).as_posix()
    assert path == "scaled/table1/cifar10-resnet18_eighth-paper"
    fewer = SweepOptions(ModelOptions("cifar10", width="1/2", epochs=20))
    assert naming.scale(fewer) == ["half of the channels", "20 of 350 epochs"]
    whole = SweepOptions(ModelOptions("cifar10"), select_on="paper")
    assert naming.path("table1", whole).as_posix() == "table1/cifar10-paper"
    assert naming.scale(whole) == []


def test_commands_take_the_narrow_network(prepared_cifar10, tmp_path, capsys):
    def run(command, *arguments):
        code = cli.main(
            [command, "--dataset=cifar10", f"--data-dir={prepared_cifar10}",
             "--epochs=1", "--batch-size=16", "--learning-rate=0.01", "--width=1/8",
             "--methods=l1", *arguments, f"--runs-dir={tmp_path}/runs",
             f"--cache-dir={tmp_path}/cache"]
        )  # fmt: skip
        assert code == 0
        return capsys.readouterr()

    said = run("train")
    assert "training 1 model on cifar10" in said.err
    [config] = tmp_path.glob("runs/cifar10/*/l1/1e-06/seed-0-*/config.json")
    assert config.is_relative_to(tmp_path / "runs/cifar10/resnet18_eighth")
    fields = files.read_json(config)
    assert fields["model"] == "resnet18_eighth"
    assert "width" not in fields

    said = run(
        "table3", "--test-examples=20", "--select-on=paper",
        f"--results-dir={tmp_path}/results",
    )  # fmt: skip
    assert "1 of 1 models are trained already" in said.out
    assert "(ResNet-18) (scaled down: an eighth of the channels, 1 of 350" in said.out
    # The paper's number for the whole network.
    assert "(47.01)" in said.out
    path = "results/scaled/table3/cifar10-resnet18_eighth-paper.json"
    assert files.read_json(tmp_path / path)["network"] == "resnet18_eighth"


@pytest.mark.parametrize("method", SNC_METHODS)
def test_snc_takes_every_convolution(method):
    classifier = build("resnet18_eighth", (0.5,) * 3, (0.2,) * 3)
    uses = classifier.conv_uses((32, 32, 3))
    assert len(uses) == 20
    params = jax.eval_shape(classifier.init, jax.random.key(0)).params
    apply = METHODS[method].constraint.apply
    clipped = jax.eval_shape(lambda p: apply(p, jnp.float32(0.5), uses), params)
    assert clipped == params
