"""Figure 6(b): the paper's clip, what a step does, and that no timing is lost."""

import csv
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import mistake
from flax import nnx

import absum_jax
from experiments import cli
from experiments.figures import figure6b
from experiments.figures.figure6b import Figure6bOptions
from experiments.jobs import files
from experiments.reporting.plots import runtimes
from experiments.runtimes import log, numpy_snc, one_step
from experiments.runtimes.log import Log

pytestmark = pytest.mark.slow


class _TinyNet(nnx.Module):
    """A stand-in for ResNet-18 that compiles in a second."""

    def __init__(self, *, classes, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, padding=1, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dense = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, x):
        return self.dense(nnx.relu(self.norm(self.conv(x))).mean(axis=(1, 2)))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(figure6b, "ResNet18", _TinyNet)


@pytest.mark.parametrize(
    ("shape", "size"), [((3, 3, 5, 4), (8, 6)), ((3, 3, 2, 4), (3, 3))]
)
def test_numpy_clip_is_the_librarys_at_stride_1(shape, size):
    kernel = np.random.default_rng(0).normal(size=shape)
    with jax.enable_x64(True):
        expected = np.asarray(
            absum_jax.clip_conv_spectral_norm(kernel, size, 1.0, method="svd")
        )
    clipped = numpy_snc.clip_kernel(kernel, size, 1.0)
    np.testing.assert_allclose(clipped, expected, atol=1e-12)
    assert np.abs(clipped - kernel).max() > 0.1
    np.testing.assert_allclose(numpy_snc.clip_kernel(kernel, size, 1e3), kernel)
    assert numpy_snc.clip_kernel(kernel.astype(np.float32), size, 1.0).dtype == "f4"


def test_numpy_clips_the_kernels_alone():
    rng = np.random.default_rng(0)
    params = {"conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 2))),
                       "bias": jnp.full(2, 9.0)}}  # fmt: skip
    uses = absum_jax.conv_input_shapes(
        lambda params, x: jax.lax.conv_general_dilated(
            x, params["conv"]["kernel"], (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ),
        params, jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32),
    )  # fmt: skip
    clipped = numpy_snc.clip_kernels(params, 0.5, uses)
    np.testing.assert_array_equal(clipped["conv"]["bias"], 9.0)
    np.testing.assert_array_equal(
        clipped["conv"]["kernel"],
        numpy_snc.clip_kernel(np.asarray(params["conv"]["kernel"]), (8, 8), 0.5),
    )


def test_a_step_of_each_method_does_what_the_method_says():
    model = _TinyNet(classes=10, rngs=nnx.Rngs(0))
    # The figure's strengths would hardly show in one step.
    strengths = {"weight_decay": 0.5, "l1": 0.5, "absum": 0.5}
    options = Figure6bOptions(sizes=(32,))
    kernels = {}
    for measurement in options.measurements()[32]:
        method = measurement.method
        strength = strengths.get(method, measurement.strength)
        measurement = dataclasses.replace(measurement, strength=strength)
        step, seconds = one_step._compiled_step(model, measurement)
        assert seconds > 0
        kernels[method] = step()[0]["conv"]["kernel"][...]
        # Each call starts anew.
        np.testing.assert_array_equal(step()[0]["conv"]["kernel"], kernels[method])
    assert tuple(kernels) == runtimes.TIMED_METHODS
    initial, none = model.conv.kernel[...], kernels["none"]
    assert np.abs(none - initial).max() > 1e-4
    # Learning rate 0.1.
    for method, expected in (
        ("weight_decay", none - 0.1 * 0.5 * initial),
        ("l1", absum_jax.prox_l1(none, 0.05)),
        ("absum", absum_jax.prox_absum(none, 0.05)),
        ("snc", absum_jax.clip_conv_spectral_norm(none, (32, 32), 1.0, strides=2)),
        ("snc_numpy", numpy_snc.clip_kernel(np.asarray(none), (32, 32), 1.0)),
    ):
        np.testing.assert_allclose(kernels[method], expected, atol=1e-5)
        assert np.abs(kernels[method] - none).max() > 1e-3


def test_sizes_methods_and_strengths_of_the_paper():
    cases = [
        (m.size, m.method, m.strength, m.clip)
        for group in Figure6bOptions().measurements().values()
        for m in group
    ]
    # P, appendix, "Computational Cost": lambda 1e-4, sigma 1.
    assert len(cases) == 6 * 5 + 3
    assert cases[:6] == [
        (32, "none", None, None), (32, "weight_decay", 1e-4, None),
        (32, "l1", 1e-4, None), (32, "absum", 1e-4, None),
        (32, "snc", 1.0, "eigh"), (32, "snc_numpy", 1.0, "numpy"),
    ]  # fmt: skip
    by_numpy = [size for size, method, *_ in cases if method == "snc_numpy"]
    assert by_numpy == [32, 64, 128]
    assert cases[-1] == (1024, "snc", 1.0, "eigh")


def _arguments(folder, *more):
    return ["figure6b", "--sizes", "32", "--methods", "none", "snc",
            f"--results-dir={folder}", *more]  # fmt: skip


def _lines(folder):
    return files.read_json_lines(folder / "figure6b" / "measurements.jsonl")


def _steps(folder):
    return [line["seconds"] for line in _lines(folder) if line["kind"] == "step_s"]


def test_the_command_measures_once(tiny, tmp_path, capsys, monkeypatch):
    assert cli.main(_arguments(tmp_path, "--repeats=3")) == 0
    said = capsys.readouterr()
    assert "timing ResNet-18: 2 of 2 runtimes" in said.err
    assert re.search(r"\| input +\| no regularization \| +SNC \|", said.out)
    folder = tmp_path / "scaled" / "figure6b"
    assert {path.name for path in folder.iterdir()} == {
        "resnet18.json", "resnet18.csv", "resnet18.md", "figure6b.png", "figure6b.pdf",
    }  # fmt: skip
    lines = _lines(tmp_path)
    methods = [line["measurement"]["method"] for line in lines]
    # Compiled one after the other, then timed in turns.
    assert methods == ["none", "snc"] * 4
    assert [line["kind"] for line in lines] == ["compile_s"] * 2 + ["step_s"] * 6

    document = files.read_json(folder / "resnet18.json")
    none, snc = document["rows"]
    for i, row in enumerate((none, snc)):
        assert row["ms"] == pytest.approx(1e3 * np.median(_steps(tmp_path)[i::2]))
        assert row["steps_timed"] == 3
        assert row["compile_s"] == lines[i]["seconds"]
    assert none["ms_clipping_every_100"] is None
    assert snc["ms_clipping_every_100"] == pytest.approx(
        0.99 * none["ms"] + 0.01 * snc["ms"]
    )
    assert document["provenance"]["backend"] == "cpu"
    with (folder / "resnet18.csv").open() as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == ["none", "snc"]

    monkeypatch.setattr(figure6b, "measure", None)
    assert cli.main(_arguments(tmp_path, "--repeats=3")) == 0
    assert _lines(tmp_path) == lines
    assert files.read_json(folder / "resnet18.json")["rows"] == document["rows"]


def test_a_killed_command_goes_on(tiny, tmp_path):
    assert cli.main(_arguments(tmp_path, "--repeats=3")) == 0
    path = tmp_path / "figure6b" / "measurements.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    # Killed while it wrote the second step of SNC.
    path.write_text("".join(lines[:5]) + lines[5][:20])
    assert cli.main(_arguments(tmp_path, "--repeats=3")) == 0
    assert path.read_text().startswith("".join(lines[:5]))
    steps = [
        line["measurement"]["method"]
        for line in _lines(tmp_path) if line["kind"] == "step_s"
    ]  # fmt: skip
    assert sorted(steps) == ["none"] * 3 + ["snc"] * 3

    # More steps are added to those.
    assert cli.main(_arguments(tmp_path, "--repeats=4")) == 0
    assert len(_steps(tmp_path)) == 8


def test_what_identifies_a_measurement(tmp_path):
    log = Log(tmp_path / "measurements.jsonl")
    options = Figure6bOptions(sizes=(32,), methods=("snc",), snc_method="polar")
    [measurement] = options.measurements()[32]
    log.add(measurement, "step_s", 1.5)
    log = Log(tmp_path / "measurements.jsonl")
    assert log[measurement].step_s == [1.5]
    for changed in (
        {"method": "none"}, {"strength": 0.5}, {"clip": "eigh"}, {"size": 64},
        {"model": "resnet34"}, {"backend": "gpu"}, {"device": "NVIDIA H100"},
        {"cpu_cores": 1000}, {"cpu_model": "another"}, {"jax_version": "0"},
        {"absum_jax_version": "0"},
        {"openblas_num_threads": "3"}, {"xla_flags": "--xla_x"},
    ):  # fmt: skip
        assert log[dataclasses.replace(measurement, **changed)].step_s == []
    assert len(dataclasses.fields(measurement)) == 13


def test_a_long_step_is_done_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(log, "_ENOUGH_SECONDS", 1e-9)
    assert cli.main(_arguments(tmp_path)) == 0
    assert len(_steps(tmp_path)) == 2


@pytest.fixture
def rows(tmp_path):
    """Rows of made-up timings: a millisecond a pixel, twice that with NumPy."""
    options = Figure6bOptions(sizes=(32, 256), methods=("none", "snc_numpy"))
    log = Log(tmp_path / "measurements.jsonl")
    for group in options.measurements().values():
        for measurement in group:
            factor = 2 if measurement.method == "snc_numpy" else 1
            log.add(measurement, "compile_s", 7.0)
            for share in (1, 3, 0.5):
                seconds = share * factor * measurement.size / 1e3
                log.add(measurement, "step_s", seconds)
    return options, figure6b.records(options.measurements(), log)


def test_the_table_shows_medians_and_leaves_out_numpy_on_large_images(rows):
    options, records = rows
    about = {
        "device": "TPU", "cpu_cores": 2, "cpu_model": "AMD EPYC",
        "packages": {"jax": "1", "numpy": "2"},
    }  # fmt: skip
    lines = figure6b.markdown(options, records, about).splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines[2:6]]
    assert cells[0] == ["input", "no regularization", "SNC, NumPy"]
    assert cells[2:] == [["32 x 32", "32.0", "64.0"], ["256 x 256", "256.0", ""]]
    assert "up to 128 x 128" in lines[7]
    assert "TPU, 2 CPU cores (AMD EPYC), jax 1" in lines[9]


def test_the_figure_shows_the_rows(rows):
    (ax,) = figure6b.draw(rows[1]).axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    none, by_numpy = ax.get_lines()
    np.testing.assert_allclose(none.get_xydata(), [(32, 32), (256, 256)])
    np.testing.assert_allclose(by_numpy.get_xydata(), [(32, 64)])
    assert by_numpy.get_label() == "SNC, NumPy"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, []),
        ({"repeats": 1, "numpy_sizes_up_to": 1024, "snc_method": "eigh"}, []),
        ({"sizes": (32, 48)}, ["only sizes 32, 48"]),
        ({"methods": ("none", "snc", "snc_numpy"), "numpy_sizes_up_to": 32},
         ["without weight decay, L1, Absum", "NumPy up to 32"]),
    ],
)  # fmt: skip
def test_how_it_is_scaled_down(changes, parts):
    options = Figure6bOptions(**changes)
    assert options.scaled == parts
    assert options.title.endswith(f"scaled down: {', '.join(parts)})") == bool(parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--sizes", "--sizes must name at least one"),
        ("--sizes 32 32", "--sizes names one twice"),
        ("--sizes 16", "--sizes must be multiples of 8 from 32 up, got 16"),
        ("--sizes 100", "--sizes must be multiples of 8"),
        ("--methods", "--methods must name at least one"),
        ("--methods sgd", "sgd"),
        ("--repeats 0", "--repeats must be at least 1, got 0"),
        ("--snc-method svd", "svd"),
        ("--methods snc-numpy --sizes 256", "--numpy-sizes-up-to 128 leaves nothing"),
    ],
)
def test_a_mistake_is_said(capsys, tmp_path, arguments, message):
    output = mistake(
        capsys, "figure6b", f"--results-dir={tmp_path}", *arguments.split()
    )
    assert message in output
    assert not (tmp_path / "figure6b").exists()
