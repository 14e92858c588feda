"""Figure 6(a): what an epoch is, what is counted into it, and that it is kept."""

import csv
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import mistake

from experiments import cli
from experiments.data import DATASETS
from experiments.figures import figure6a
from experiments.figures.figure6a import Figure6aOptions
from experiments.jobs import files
from experiments.reporting.plots import runtimes
from experiments.runtimes import one_epoch
from experiments.runtimes.log import Log
from experiments.training import optimization


def _measurement(method="absum", dataset="cifar10", **options):
    options = Figure6aOptions(datasets=(dataset,), methods=(method,), **options)
    return options.measurements()[dataset][0]


def test_an_epoch_is_as_the_paper_trains():
    measurements = Figure6aOptions(methods=("none",)).measurements()
    # P, appendix: 60,000 images in batches of 64; 50,000 and 73,257 in batches of 128.
    found = {
        name: (m.model, m.epoch_steps, m.steps) for name, [m] in measurements.items()
    }
    assert found == {
        "mnist": ("small_cnn", 937, 937),
        "fashion_mnist": ("small_cnn", 937, 937),
        "cifar10": ("resnet18", 390, 390),
        "cifar100": ("resnet18", 390, 390),
        "svhn_cropped": ("resnet18", 572, 572),
    }
    assert measurements["cifar10"][0].recipe.augmented
    assert _measurement(steps=1000).steps == 390
    assert _measurement(dtype="bfloat16").dtype == "bfloat16"
    assert _measurement(dataset="mnist", dtype="bfloat16").dtype == "float32"


def test_methods_and_strengths_of_the_paper():
    group = Figure6aOptions(datasets=("cifar10",)).measurements()["cifar10"]
    # P, appendix, "Computational Cost": lambda 1e-4, sigma 1.
    assert [(m.method, m.strength, m.clip) for m in group] == [
        ("none", None, None), ("weight_decay", 1e-4, None), ("l1", 1e-4, None),
        ("absum", 1e-4, None), ("snc", 1.0, "eigh"), ("snc_numpy", 1.0, "numpy"),
    ]  # fmt: skip


def test_noise_is_as_large_as_the_data_set():
    noise = one_epoch.noise(_measurement(dataset="mnist5k"))
    assert noise.images.shape == (4000, 28, 28, 1)
    assert noise.images.dtype == np.uint8
    assert set(noise.labels) == set(range(10))


def test_noise_for_imagenet_is_as_much_as_its_steps_take():
    measurement = _measurement("snc", "imagenet2012", steps=1)
    noise = one_epoch.noise(measurement)
    assert noise.images.shape == (256, 224, 224, 3)
    assert len(set(noise.labels)) > 200
    assert (measurement.model, measurement.is_held) == ("resnet18_224", False)
    # 1,281,167 images in batches of 256; a clip every 100 steps.
    assert measurement.epoch_seconds(2.0, 5.0) == pytest.approx(5004 * 2 + 50.04 * 5)
    for steps in (None, 1000):
        most = _measurement("snc", "imagenet2012", steps=steps)
        assert (most.steps, most.examples, most.clips_timed) == (100, 25_600, 1)
        assert most.epoch_seconds(2.0, 5.0) == pytest.approx(50.04 * 2)
    assert _measurement("none", "svhn_cropped").is_held


@pytest.mark.parametrize(
    ("method", "steps", "seconds"),
    [
        ("absum", 10, 39 * 2),
        # 3.9 clips of 5 seconds.
        ("snc", 10, 39 * 2 + 3.9 * 5),
        ("snc_numpy", 10, 39 * 2 + 3.9 * 5),
        # Three are among the steps timed, or one in 195 steps.
        ("snc", 390, 2 + 0.9 * 5),
        ("snc", 195, 2 * 2 + (3.9 - 2) * 5),
        # None is, as NumPy does not clip within the program.
        ("snc_numpy", 390, 2 + 3.9 * 5),
    ],
)
def test_an_average_epoch_has_a_clip_every_100_steps(method, steps, seconds):
    measurement = _measurement(method, steps=steps)
    assert measurement.epoch_seconds(2.0, 5.0) == pytest.approx(seconds)
    assert bool(measurement.constrained) == (method == "snc" and steps >= 100)


@pytest.mark.parametrize("method", runtimes.TIMED_METHODS)
def test_the_program_has_its_own_regularizer_alone_and_does_the_same(method):
    measurement = _measurement(method)
    h = one_epoch.hyperparameters(measurement)
    regularizers = {"weight_decay", "l1", "absum"}
    bounds = {"snc": 1.0} if method.startswith("snc") else {}
    left = {name: float(value[0]) for name, value in h.strengths.items()}
    expected = dict.fromkeys(regularizers & {method}, 1e-4) | bounds
    assert left == pytest.approx(expected)
    assert h.decay is None
    # With strengths of zero beside it.
    zeros = {name: jnp.zeros(1) for name in regularizers}
    more = h._replace(decay=jnp.zeros(1), strengths=zeros | h.strengths)
    rng = np.random.default_rng(0)
    params, grads = (
        {"conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32)}}
        for _ in range(2)
    )
    updates = []
    for each in (h, more):
        tx = optimization.optimizer(jax.tree.map(lambda leaf: leaf[0], each))
        updates.append(tx.update(grads, tx.init(params), params)[0])
    np.testing.assert_array_equal(*(u["conv"]["kernel"] for u in updates))


@pytest.fixture
def tiny(monkeypatch):
    """256 images, which are four steps."""
    small = dataclasses.replace(DATASETS["mnist5k"], train_examples=256)
    monkeypatch.setitem(DATASETS, "mnist5k", small)


def _arguments(folder, *more):
    methods = ["none", "snc", "snc-numpy"]
    return ["figure6a", "--datasets", "mnist5k", "--methods", *methods,
            "--repeats=2", f"--results-dir={folder}", *more]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_network")
def test_the_command_measures_once(tiny, tmp_path, capsys, monkeypatch):
    assert cli.main(_arguments(tmp_path, "--timed-steps=2")) == 0
    said = capsys.readouterr()
    assert "timing epochs: 3 of 3 runtimes" in said.err
    assert re.search(r"\| +2 of 4 \|", said.out)
    assert "scaled up to the epoch" in said.out
    folder = tmp_path / "scaled" / "figure6a"
    assert {path.name for path in folder.iterdir()} == {
        "epochs.json", "epochs.csv", "epochs.md", "figure6a.png", "figure6a.pdf",
    }  # fmt: skip
    # Timings serve other options too.
    path = tmp_path / "figure6a" / "measurements.jsonl"
    lines = files.read_json_lines(path)
    # In turns: steps of all methods, then the clips.
    assert [(line["measurement"]["method"], line["kind"]) for line in lines] == [
        *[(m, "epoch_s") for m in ("none", "snc", "snc_numpy")] * 2,
        *[(m, "clip_s") for m in ("snc", "snc_numpy")] * 2,
    ]
    document = files.read_json(folder / "epochs.json")
    none, snc, _ = document["rows"]
    seconds = [line["seconds"] for line in lines]
    assert none["epoch_s"] == pytest.approx(2 * np.mean(seconds[:6:3]))
    assert snc["epoch_s"] == pytest.approx(
        2 * np.mean(seconds[1:6:3]) + 0.04 * np.mean(seconds[6::2])
    )
    assert snc["ratio_to_none"] == pytest.approx(snc["epoch_s"] / none["epoch_s"])
    assert document["provenance"]["backend"] == "cpu"
    with (folder / "epochs.csv").open() as stream:
        assert [row["clip"] for row in csv.DictReader(stream)] == [
            "", "eigh", "numpy",
        ]  # fmt: skip

    # Killed before the last clips, it does those alone.
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    monkeypatch.setattr(one_epoch._Model, "train", None)
    assert cli.main(_arguments(tmp_path, "--timed-steps=2")) == 0
    again = files.read_json_lines(path)
    assert again[:-2] == lines[:-2]
    assert len(again) == len(lines)


@pytest.fixture
def rows(tmp_path):
    """Rows of made-up timings: a second a step, three with SNC, and none to scale."""
    options = Figure6aOptions(methods=("none", "snc_numpy"), steps=1)
    log = Log(tmp_path / "measurements.jsonl")
    for group in options.measurements().values():
        for measurement in group:
            for seconds in (0.5, 1.0, 9.0):
                log.add(measurement, "epoch_s", seconds)
            if measurement.clip is not None:
                log.add(measurement, "clip_s", 200.0)
    return options, figure6a.records(options.measurements(), log)


def test_the_table_and_the_figure_show_the_rows(rows):
    options, records = rows
    about = {
        "device": "TPU", "cpu_cores": 2, "cpu_model": "AMD EPYC",
        "packages": {"jax": "1", "numpy": "2"},
    }  # fmt: skip
    lines = figure6a.markdown(options, records, about).splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines[2:9]]
    assert cells[0][3:] == ["no regularization", "SNC, NumPy"]
    assert cells[4] == [
        "CIFAR-10", "ResNet-18, float32", "1 of 390", "390", "1,170 (3.00x)",
    ]  # fmt: skip
    assert "TPU, 2 CPU cores (AMD EPYC), jax 1" in lines[-1]
    (ax,) = figure6a.draw(records).axes
    assert ax.get_yscale() == "log"
    assert not ax.patches  # bars would suggest ratios that a log axis does not show
    none, by_numpy = ax.containers
    steps = np.array([937, 937, 390, 390, 572])
    np.testing.assert_allclose(none.lines[0].get_ydata(), steps)
    np.testing.assert_allclose(by_numpy.lines[0].get_ydata(), 3 * steps)
    # From half a second to nine a step, and two more of clips with SNC.
    for group, clips in ((none, 0), (by_numpy, 2)):
        [bars] = group.lines[2]
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, np.outer(steps, [0.5 + clips, 9 + clips]))
    assert [label.get_text() for label in ax.get_xticklabels()][1:3] == [
        "Fashion-MNIST\nsmall CNN", "CIFAR-10\nResNet-18",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, []),
        ({"repeats": 1, "dtype": "bfloat16"}, []),
        ({"datasets": ("imagenet2012", *Figure6aOptions.datasets), "steps": 10**6},
         ["100 steps timed"]),
        ({"steps": 500}, ["500 steps timed"]),
        ({"methods": ("none", "snc")},
         ["without weight decay, L1, Absum, SNC, NumPy"]),
        ({"datasets": ("cifar10", "mnist"), "steps": 10},
         ["only CIFAR-10, MNIST", "10 steps timed"]),
    ],
)  # fmt: skip
def test_how_it_is_scaled_down(changes, parts):
    options = Figure6aOptions(**changes)
    assert options.scaled == parts
    end = f" (scaled down: {', '.join(parts)})" if parts else ""
    assert options.title == f"Figure 6(a), runtime of an epoch{end}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--datasets", "--datasets must name at least one"),
        ("--datasets mnist mnist", "--datasets names one twice"),
        ("--datasets imagenet", "did you mean imagenet2012?"),
        ("--datasets own.npz", "--datasets must be among mnist5k, mnist, fashion_mn"),
        ("--methods sgd", "sgd"),
        ("--timed-steps 0", "--timed-steps must be at least 1, got 0"),
        ("--repeats 0", "--repeats must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_said(capsys, tmp_path, arguments, message):
    output = mistake(
        capsys, "figure6a", f"--results-dir={tmp_path}", *arguments.split()
    )
    assert message in output
