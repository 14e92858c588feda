"""Names on disk stay: of folders, files, arrays and keys, of runs from before too.

They are written out here. Where a committed record has one as well, it is compared with
that, and what names files is computed here from what the records state. Change one only
if runs from before can still be read.
"""

import csv
import dataclasses
import hashlib
import itertools
import json
import pathlib

import jax
import numpy as np
import pytest
from batch_norm_network import network
from orbax.checkpoint import v1 as ocp
from stopping import stopped
from tiny_network import in_place_of_small_cnn

from experiments import cli
from experiments.config import NONE, Adversary, Recipe, RunConfig, Setting
from experiments.data import Split
from experiments.evaluation import (
    auto_attack,
    clean,
    corruption,
    frequency,
    gradient,
    single_fourier,
    singular_values,
)
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.jobs import digests, files
from experiments.models import build
from experiments.training import sweep
from experiments.training.runs import Run

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "results"
RECORDS = RESULTS / "records"

_GRAY = Recipe(epochs=100, batch_size=64, learning_rate=0.01, momentum=0.5)
_COLOR = Recipe(
    epochs=350, batch_size=128, learning_rate=0.1, momentum=0.9, milestones=(150, 250),
    augmented=True,
)  # fmt: skip


def _config(setting, recipe=_GRAY, **changes):
    """The configuration of a model in the records, or one that differs from it."""
    fields = {
        "dataset": "mnist", "data_fingerprint": "3c9f57bf62ae", "train_examples": 60000,
        "validation_examples": 0, "seed": 11, "model": "small_cnn",
        "max_pool_ties": "first",
    }  # fmt: skip
    return RunConfig(
        method=setting.method, strength=setting.strength, recipe=recipe,
        **fields | changes,
    )  # fmt: skip


def _of_cifar10(setting, recipe, **changes):
    fields = {
        "dataset": "cifar10", "data_fingerprint": "0123456789ab", "seed": 0,
        "train_examples": 50000, "model": "resnet18", "max_pool_ties": None,
    }  # fmt: skip
    return _config(setting, recipe, **fields | changes)


_RECORDED = {
    "mnist/small_cnn/none/0/seed-11-e3ffd1fd": _config(NONE),
    "mnist/small_cnn/absum/0.01/seed-11-e626ae1f": _config(Setting("absum", 0.01)),
    "mnist/small_cnn/snc/10/seed-11-9a348c29": _config(Setting("snc", 10)),
}
_NOT_RECORDED = {
    # Strengths from the command line are no integers.
    "mnist/small_cnn/snc/10/seed-11-51cb5ea2": _config(Setting("snc", 10.0)),
    # From before there was `max_pool_ties`.
    "mnist/small_cnn/absum/0.01/seed-11-bf2798bf": _config(
        Setting("absum", 0.01), max_pool_ties=None
    ),
    "mnist/small_cnn/none/0/seed-11-79eeb035": _config(
        NONE, dataclasses.replace(_GRAY, adversary=Adversary(0.3, 0.01, 40, 2 / 255))
    ),
    "cifar10/resnet18/absum/0.0001/seed-0-a0330902": _of_cifar10(
        Setting("absum", 1e-4), dataclasses.replace(_COLOR, batch_norm_groups=4),
        dtype="bfloat16",
    ),
    "cifar10/resnet18/snc/1/seed-0-584c2a8e": _of_cifar10(
        Setting("snc", 1.0), _COLOR, settle_steps=50
    ),
    "cifar10/resnet18/absum/0.01/seed-0-eedd03ce": _of_cifar10(
        Setting("absum", 0.01),
        dataclasses.replace(
            _COLOR, epochs=150, milestones=(50, 100), decay=1e-4,
            adversary=Adversary(8 / 255, 2 / 255, 7, 8 / 255),
        ),
        train_examples=45000, validation_examples=5000,
    ),
}  # fmt: skip


def test_folders_of_runs():
    for path, config in (_RECORDED | _NOT_RECORDED).items():
        assert config.path.as_posix() == path
        assert RunConfig.from_dict(config.as_dict()) == config
    for path, config in _RECORDED.items():
        assert files.read_json(RECORDS / path / "config.json") == config.as_dict()


_RECIPE = [
    "epochs", "batch_size", "learning_rate", "momentum", "milestones", "decay",
    "augmented", "adversary",
]  # fmt: skip
_CONFIG = [
    "dataset", "data_fingerprint", "train_examples", "validation_examples", "method",
    "strength", "seed", "model", "recipe", "dtype",
]  # fmt: skip


def test_keys_of_configurations():
    for path in RECORDS.glob("*/small_cnn/*/*/*/config.json"):
        recorded = json.loads(path.read_text())
        assert list(recorded) == [*_CONFIG, "max_pool_ties"]
        assert list(recorded["recipe"]) == _RECIPE
        parts = path.parent.relative_to(RECORDS)
        assert RunConfig.from_dict(recorded).path == parts
        # What names the folder, computed anew.
        text = json.dumps(recorded, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        assert parts.name == f"seed-{recorded['seed']}-{digest}"
    adversarial = _of_cifar10(
        NONE,
        dataclasses.replace(
            _COLOR, adversary=Adversary(0.1, 0.1, 1, 0.1), batch_norm_groups=2
        ),
        settle_steps=50, max_pool_ties="first",
    ).as_dict()  # fmt: skip
    assert list(adversarial) == [*_CONFIG, "max_pool_ties", "settle_steps"]
    assert list(adversarial["recipe"]) == [*_RECIPE, "batch_norm_groups"]
    assert list(adversarial["recipe"]["adversary"]) == [
        "eps", "step_size", "steps", "init_radius",
    ]  # fmt: skip


# Names, shapes and dtypes of a trained network.
_SMALL = {
    "params/conv1/bias": (10,),
    "params/conv1/kernel": (5, 5, 1, 10),
    "params/conv2/bias": (20,),
    "params/conv2/kernel": (5, 5, 10, 20),
    "params/dense1/bias": (50,),
    "params/dense1/kernel": (320, 50),
    "params/dense2/bias": (10,),
    "params/dense2/kernel": (50, 10),
}
_NORMALIZED = {
    "params/conv/kernel": (3, 3, 3, 8),
    "params/dense/kernel": (8, 10),
    "params/norm/bias": (8,),
    "params/norm/scale": (8,),
    "statistics/norm/mean": (8,),
    "statistics/norm/var": (8,),
}


def _in_progress(variables, models, optimizer):
    """What a checkpoint of models in training holds."""
    params = {
        name.removeprefix("params/"): shape
        for name, shape in variables.items()
        if name.startswith("params/")
    }
    return (
        {"state/diverged_at": models, "sums/loss": models, "sums/accuracy": models}
        | {f"state/variables/{name}": (*models, *s) for name, s in variables.items()}
        | {f"{optimizer}/{name}": (*models, *shape) for name, shape in params.items()}
    )


def _stored(path):
    """Names, shapes and dtypes of the arrays in a checkpoint, as orbax reads them."""
    leaves = jax.tree_util.tree_leaves_with_path(ocp.metadata(path).metadata)
    return {
        jax.tree_util.keystr(name, simple=True, separator="/"): (leaf.shape, leaf.dtype)
        for name, leaf in leaves
    }


def _as_stored(shapes):
    return {
        name: (shape, np.int32 if name == "state/diverged_at" else np.float32)
        for name, shape in shapes.items()
    }


def _names(folder):
    """Files and folders of checkpoints below a folder."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir() and "/checkpoint/" not in str(path)
        and "/steps/" not in str(path)
    )  # fmt: skip


_LINE = {"epoch": int, "train_loss": float, "train_accuracy": float, "checksum": str}
_DIAGNOSTICS = ["epoch", "penalty", "spectral_norm", "zero_share"]
_PROVENANCE = [
    "commit", "uncommitted_changes", "python", "absum_jax", "packages", "backend",
    "matmul_precision", "x64", "xla_flags", "device", "devices", "processes",
    "cpu_cores", "cpu_model", "platform", "seconds", "steps_in_these_seconds",
    "seeds_in_one_program", "settings_in_one_program", "devices_in_one_program",
]  # fmt: skip
_DIGESTS = [
    "config.json", "metrics.jsonl", "diagnostics.jsonl", "checkpoint", "parameters",
]  # fmt: skip


@pytest.mark.parametrize("is_small", [True, False], ids=["small", "normalized"])
def test_what_training_leaves(is_small, make_config, tmp_path):
    """Two models of one program after an epoch, and at the end; one if normalized."""
    if is_small:
        classifier, model, shape = build("small_cnn", (0.1,), (0.3,)), "small_cnn", 28
        settings = (Setting("absum", 0.1), Setting("l1", 0.1))
        runs = (
            "noise/small_cnn/absum/0.1/seed-0-d9358077",
            "noise/small_cnn/l1/0.1/seed-0-6b3d3378",
        )
        variables, optimizer = _SMALL, "state/optimizer/1/0/trace"
        place = "noise/small_cnn/in-progress/5cf301ae06d6"
    else:
        classifier, model, shape = network(10), "resnet18", 8
        settings = (Setting("absum", 0.1),)
        runs = ("noise/resnet18/absum/0.1/seed-0-9e8d7b42",)
        variables, optimizer = _NORMALIZED, "state/optimizer/0/0/trace"
        place = "noise/resnet18/in-progress/aa3a9672e9dc"
    channels = 1 if is_small else 3
    images = np.random.default_rng(0).integers(0, 256, (64, shape, shape, channels))
    split = Split(images.astype(np.uint8), (np.arange(64) % 10).astype(np.int32))
    configs = [
        make_config(s, epochs=2, model=model, data_fingerprint="", train_examples=64)
        for s in settings
    ]

    def train():
        return sweep.train_missing(
            classifier, split, configs, tmp_path, seconds_between_checkpoints=0,
            spectral_norms=True,
        )  # fmt: skip

    with stopped(1):
        train()
    logs = ("config.json", "diagnostics.jsonl", "metrics.jsonl")
    assert _names(tmp_path) == sorted(
        [f"{run}/{name}" for run in runs for name in logs] + [f"{place}/members.json"]
    )
    step = tmp_path / place / "steps" / "2"
    expected = _in_progress(variables, (1, len(settings)), optimizer)
    assert _stored(step) == _as_stored(expected)
    identity = ocp.metadata(step).custom_metadata
    assert identity.keys() == {"digest", "step", "sweep"}
    assert (identity["step"], identity["sweep"]) == (2, place.split("/")[-1])
    members = json.loads((tmp_path / place / "members.json").read_text())
    assert members == [[config.as_dict() for config in configs]]

    train()
    assert _names(tmp_path) == sorted(
        f"{run}/{name}" for run in runs for name in (*logs, "provenance.json")
    )
    for path in runs:
        folder = tmp_path / path
        assert _stored(folder / "checkpoint") == _as_stored(variables)
        for text in (folder / "metrics.jsonl").read_text().splitlines():
            line = json.loads(text)
            assert {name: type(value) for name, value in line.items()} == _LINE
            assert list(line) == list(_LINE)
        for text in (folder / "diagnostics.jsonl").read_text().splitlines():
            line = json.loads(text)
            assert list(line) == [*_DIAGNOSTICS, "checksum"]
            kernels = [name[7:] for name in variables if name.startswith("params/conv")]
            kernels = [name for name in kernels if name.endswith("kernel")]
            assert all(list(line[name]) == kernels for name in _DIAGNOSTICS[1:])
        provenance = json.loads((folder / "provenance.json").read_text())
        assert list(provenance) == [*_PROVENANCE, "digests", "checksum"]
        assert list(provenance["digests"]) == _DIGESTS
        assert provenance["devices_in_one_program"] == {
            "seeds": 1, "sweep": 1, "data": 1,
        }  # fmt: skip
        assert provenance["settings_in_one_program"] == [list(s) for s in settings]


def test_keys_of_recorded_training():
    """Of what is committed; the first lack checksums and the name of the CPU."""

    def without_checksum(line):
        return [name for name in json.loads(line) if name != "checksum"]

    of_all = [name for name in _PROVENANCE if name != "cpu_model"]
    for folder in RECORDS.glob("*/small_cnn/*/*/*"):
        first = (folder / "metrics.jsonl").read_text().splitlines()[0]
        assert without_checksum(first) == list(_LINE)[:-1]
        first = (folder / "diagnostics.jsonl").read_text().splitlines()[0]
        # Spectral norms are optional.
        expected = [name for name in _DIAGNOSTICS if name in json.loads(first)]
        assert without_checksum(first) == expected
        assert {*_DIAGNOSTICS} - {*expected} <= {"spectral_norm"}
        provenance = json.loads((folder / "provenance.json").read_text())
        provenance.pop("cpu_model", None)
        assert list(provenance)[: len(of_all)] == of_all


def test_checksums(make_config, tmp_path):
    """The literals come from zlib and hashlib alone, over JSON and bytes."""
    run = Run(tmp_path, make_config(Setting("absum", 0.1), data_fingerprint=""))
    run.begin(0)
    run.log(1, 0.5, 0.25)
    run.log(2, float("nan"), 0.25, diverged_at=7)
    texts = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert texts == [
        '{"epoch": 1, "train_loss": 0.5, "train_accuracy": 0.25, '
        '"checksum": "beac618a"}',
        '{"epoch": 2, "train_loss": null, "train_accuracy": 0.25, '
        '"diverged_at_step": 7, "checksum": "b01a9bca"}',
    ]
    arrays = {
        "a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "c": np.int32(1),
    }
    assert digests.of_arrays(arrays) == (
        "37a6821a6f12d64c62cb1adce22ee6f1c83f66eddc8f731114261614f0826dbb"
    )


# The number of arrays of a network, and a digest of their names, shapes and dtypes.
_NETWORKS = {
    "small_cnn": (8, "93d027789f3ef16f"),
    "resnet18": (102, "6d5683283b2b1c28"),
    "googlenet": (386, "4a6bb7224c3e0b12"),
    "densenet121": (602, "f97993e8d6e68fc6"),
    "resnet18_224": (102, "2d1d3921d0826479"),
}


@pytest.mark.parametrize("name", _NETWORKS)
def test_arrays_of_networks(name):
    channels = 1 if name == "small_cnn" else 3
    classifier = build(name, (0.5,) * channels, (0.25,) * channels)
    variables = jax.eval_shape(classifier.init, jax.random.key(0))
    lines = [
        f"{jax.tree_util.keystr(path, simple=True, separator='/')} "
        f"{leaf.shape} {leaf.dtype}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    ]
    if name == "small_cnn":
        assert lines == [f"{name} {shape} float32" for name, shape in _SMALL.items()]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
    assert (len(lines), digest) == _NETWORKS[name]


_PGD = {"seed": 0, "step_size": 0.05, "steps": 1, "init_radius": 0.02}
_EPS = 80 / 255
_HEADER = [
    "attack",
    "split",
    "examples",
    "data_fingerprint",
    "conditions",
    "parameters",
]
# Of each file: its conditions, the points in it and the keys or length of a value.
_EVALUATIONS = {
    "apgd-transfer-c1ca8d86.jsonl": (
        {"eps": 0.2, "seed": 0, "steps": 2},
        ["mnist/small_cnn/none/0/seed-11-e3ffd1fd@"], None,
    ),
    "auto-attack-88f8f9c0.jsonl": (
        {"eps": [0.1, 0.2], "seed": 0, "steps": 100, "queries": 5000}, ["0-4"],
        ["backward", "forward", "images", "problems"],
    ),
    "band-pass-2a270e7b.jsonl": ({}, ["0-3.5"], None),
    "band-stop-3b3dc0eb.jsonl": ({}, ["3.5-7"], None),
    "clean-0aa39126.jsonl": (
        {}, ["clean"], ["accuracy", "classes_predicted", "nan_logits"],
    ),
    "corruption-1522d7df.jsonl": (
        {"benchmark": "mnist-c", "seed": 0},
        ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise",
         "gaussian_blur", "contrast", "brightness"],
        5,
    ),
    "fourier-noise-99138d48.jsonl": ({"norm": 4.0, "seed": 0}, list(range(28)), 28),
    "high-pass-0eeb4e2a.jsonl": ({}, [7.0], None),
    "low-pass-c905d27e.jsonl": ({}, [7.0], None),
    "pgd-c035f0c8.jsonl": (_PGD, [0.1], 2),
    "power-spectrum-c5a9dc04.jsonl": (_PGD, [0.1], 28),
    "single-fourier-906d1c5a.jsonl": (
        {"eps": _EPS, "scale": "linf", "stride": 14}, [0, 14], 2,
    ),
    "singular-values-35be2bcc.jsonl": (
        {}, ["conv1/kernel", "conv2/kernel"],
        ["norm", "norm_at_zero", "mean", "radial_mean"],
    ),
    "transfer-070a6815.jsonl": (
        {"eps": 0.2, **_PGD}, ["mnist/small_cnn/none/0/seed-11-e3ffd1fd@"], None,
    ),
}  # fmt: skip
_SINGULAR_VALUES = "singular-values-35be2bcc.jsonl"
_OF_LARGE_IMAGES = {
    "clean-e9907ed7.jsonl": _EVALUATIONS["clean-0aa39126.jsonl"],
    "single-fourier-aed671da.jsonl": (
        {"eps": 8 / 255, "scale": "linf", "stride": 31, "frequencies_below": [32, 32]},
        [0, 31], 2,
    ),
}  # fmt: skip


def _evaluation(classifier, shape, config, folder):
    """Four images, and a network that was never trained."""
    pixels = np.arange(np.prod(shape), dtype=np.uint32).astype(np.uint8)
    split = Split(pixels.reshape(shape), np.arange(4, dtype=np.int32))
    run = Run(folder, config)
    run.begin(0)
    run.finish(classifier.init(jax.random.key(0)), {})
    return EvaluationSet(classifier, split, "test"), run


def _assert_written(run, expected):
    assert sorted(path.name for path in run.folder.glob("*-*.jsonl")) == list(expected)
    for name, (conditions, points, kind) in expected.items():
        lines = files.read_json_lines(run.folder / name)
        header = lines[0]
        assert list(header) == [*_HEADER, "checksum"]
        assert header["conditions"] == conditions
        assert list(header["conditions"]) == list(conditions)
        assert list(lines[1]) == ["provenance", "checksum"]
        found = [
            line["point"].split("@")[0] + "@" if "transfer" in name else line["point"]
            for line in lines[2:]
        ]
        assert found == points
        for line in lines[2:]:
            assert list(line) == ["point", "value", "checksum"]
            value = line["value"]
            if kind is None:
                assert isinstance(value, float)
            else:
                assert (len(value) if isinstance(kind, int) else list(value)) == kind


# The network, which was never trained, gives all images the same answer.
@pytest.mark.filterwarnings("ignore:`logits_fn` had no gradient")
@in_place_of_small_cnn()
def test_files_of_evaluations(tmp_path):
    classifier = build("small_cnn", (0.1,), (0.3,))
    expected = _EVALUATIONS.copy()
    del expected[_SINGULAR_VALUES]
    steps = gradient.Steps(0.05, 1, 0.02)
    images, run = _evaluation(classifier, (4, 28, 28, 1), _config(NONE), tmp_path)
    single_fourier.evaluate(images, [run], _EPS, stride=14)
    single_fourier.noise_grids(images, [run], 4.0)
    frequency.evaluate(images, [run], "low-pass", [7.0])
    frequency.evaluate(images, [run], "high-pass", [7.0])
    frequency.evaluate_bands(images, [run], "band-pass", [(0.0, 3.5)])
    frequency.evaluate_bands(images, [run], "band-stop", [(3.5, 7.0)])
    corruption.evaluate(images, [run], "mnist-c")
    gradient.white_box(images, [run], [0.1], steps)
    gradient.transferred(images, [run], [run], 0.2, steps)
    gradient.transferred(images, [run], [run], 0.2, gradient.AutoSteps(2))
    gradient.power_spectra(images, [run], 0.1, steps)
    auto_attack.evaluate(images, [run], [0.1, 0.2])
    _assert_written(run, expected)


def test_files_of_singular_values(classifier, tmp_path):
    images, run = _evaluation(classifier, (4, 28, 28, 1), _config(NONE), tmp_path)
    singular_values.evaluate(images, [run])
    _assert_written(run, {_SINGULAR_VALUES: _EVALUATIONS[_SINGULAR_VALUES]})


def test_files_of_evaluations_of_large_images(tmp_path):
    config = _of_cifar10(NONE, _COLOR)
    images, run = _evaluation(network(10), (4, 40, 40, 3), config, tmp_path)
    single_fourier.evaluate(images, [run], 8 / 255, stride=31)
    assert clean.evaluate(images, [run])[0].top5 is None
    _assert_written(run, _OF_LARGE_IMAGES)


def test_files_of_recorded_evaluations():
    """Their names are digests of what their first lines state."""
    attacks = set()
    for path in RECORDS.glob("*/small_cnn/*/*/*/*-*.jsonl"):
        with path.open() as stream:
            header, *lines = map(json.loads, itertools.islice(stream, 3))
        assert list(header) == [*_HEADER, "checksum"]
        # The earliest have no lines of provenance.
        line = next(line for line in lines if "provenance" not in line)
        assert list(line) == ["point", "value", "checksum"]
        known = {name: header[name] for name in _HEADER[:-1]}
        text = json.dumps(known, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        assert path.name == f"{header['attack']}-{digest}.jsonl"
        [(conditions, _, kind)] = [
            value
            for name, value in _EVALUATIONS.items()
            if name.startswith(header["attack"])
        ]
        assert list(header["conditions"]) == list(conditions)
        if isinstance(kind, list):
            assert list(line["value"]) == kind
        attacks.add(header["attack"])
    beyond = {
        "apgd-transfer", "auto-attack", "band-pass", "band-stop", "corruption",
        "fourier-noise",
    }  # fmt: skip
    known = {name.rpartition("-")[0] for name in _EVALUATIONS}
    assert attacks - beyond == known - beyond


_OPTIONS = [
    "dataset", "network", "width", "epochs", "batch_size", "batch_norm_groups",
    "learning_rate", "train_examples", "methods", "strengths", "max_norms", "seeds",
    "test_examples", "frequency_stride", "select_on", "selection_seeds",
]  # fmt: skip
_STATISTIC = ("mean", "std", "low", "high")
_CLAIM = [
    "claim", "verdict", "differences", "margin", "interval", "interval_90",
    "smallest_difference_of_interest", "unit", "published_difference",
    "published_difference_is_small",
]  # fmt: skip
_MODEL = ["method", "strength", "seed", "run"]
# Of each table: its keys, the numbers in its rows, what follows them, and of a model.
_TABLES = {
    "table1": (
        ["test_images", "selection", "eps", "rows", "claims", "models"],
        ["avg", "min", "max", "clean"],
        ["paper_avg", "paper_min", "paper_clean", "paper_strength"],
        [*_MODEL, "avg", "min", "max", "worst", "clean", "selection_avg",
         "lowest_train_loss", "answers_one_class", "diverged"],
    ),
    "table2": (
        ["test_images", "pgd", "rows", "claims", "methods", "seeds", "matrix"],
        ["transferred", "clean"], ["paper_transferred"], None,
    ),
    "table3": (
        ["test_images", "rows", "claims", "methods", "radii", "low_pass", "high_pass"],
        ["low", "high", "clean"], ["paper_low"], None,
    ),
    "table4": (
        ["training", "adversary", "pgd", "test_images", "rows", "claims", "models"],
        [*(f"eps={eps}" for eps in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)), "clean"], [],
        [*_MODEL, "clean", "pgd", "nan_logits", "selection_mean", "answers_one_class",
         "diverged"],
    ),
}  # fmt: skip
_SMALL_TABLE4 = (
    "--dataset=mnist5k", "--epochs=1", "--train-examples=128", "--test-examples=20",
    "--methods", "none", "absum", "--training=pgd", "--train-steps=2",
    "--test-steps=3",
)  # fmt: skip


@pytest.mark.parametrize("table", _TABLES)
def test_keys_of_tables(table, tmp_path):
    if table == "table4":
        arguments = (*_SMALL_TABLE4, f"--runs-dir={tmp_path}/runs")
        stem, options = "scaled/table4/mnist5k-paper", [
            *_OPTIONS, "training", "attack", "train_steps", "test_steps",
        ]  # fmt: skip
    else:
        methods = ("none", "weight_decay", "l1", "absum", "snc", "snc-numpy-axes")
        arguments = (
            "--methods", *methods, f"--runs-dir={RECORDS}", "--dataset=mnist",
            "--seeds", "11", "12",
        )  # fmt: skip
        stem, options = f"{table}/mnist-paper", _OPTIONS
    code = cli.main(
        [table, *arguments, "--select-on=paper", f"--results-dir={tmp_path}"]
    )
    assert code == 0
    keys, numbers, others, of_model = _TABLES[table]
    row = [f"{name}_{part}" for name in numbers for part in _STATISTIC]
    row = ["method", "strength", *row, *others]
    written = {tmp_path / stem}
    if table != "table4":
        written.add(RESULTS / stem)
    for path in written:
        document = json.loads(path.with_suffix(".json").read_text())
        assert list(document) == [
            "title", "network", "dtype", "options", *keys, "provenance",
        ]  # fmt: skip
        assert list(document["options"]) == options
        assert all(list(line) == row for line in document["rows"])
        assert all(list(claim) == _CLAIM for claim in document["claims"])
        models = document.get("models", [])
        assert bool(models) is (of_model is not None)
        assert all(list(model) == of_model for model in models)
        with path.with_suffix(".csv").open() as stream:
            assert next(csv.reader(stream)) == row
