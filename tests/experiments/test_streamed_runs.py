"""Streamed images: the library's numbers, chunk by chunk, stored at once."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stopping import stopped
from streaming import InMemory

import absum_jax
from experiments.config import Setting
from experiments.data import Split
from experiments.evaluation import clean, frequency, gradient, single_fourier
from experiments.evaluation.batches import map_batches
from experiments.evaluation.evaluation_set import EvaluationSet, missing_ranges
from experiments.jobs import files
from experiments.models import Classifier, Variables
from experiments.reporting.evaluated import under_single_fourier
from experiments.training import devices
from experiments.training.runs import Run

CLASSES, EPS = 7, 0.3
# Larger than the paper's 32 frequencies, neither square.
SHAPE = (40, 36, 3)


def _init(key):
    keys = jax.random.split(key, 2)
    kernel = jax.random.normal(keys[0], (5, 5, 3, 8))
    dense = jax.random.normal(keys[1], (8, CLASSES))
    return Variables({"conv": {"kernel": kernel}, "dense": dense}, {})


def _logits(variables, x):
    y = jax.lax.conv_general_dilated(
        x - 0.5, variables.params["conv"]["kernel"], (2, 2), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return jnp.tanh(y).mean(axis=(1, 2)) @ variables.params["dense"]


CLASSIFIER = Classifier(_init, None, _logits, None, is_small=False)


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    smooth = rng.uniform(60, 190, (11, 1, 1, 3)) + rng.normal(0, 30, (11, *SHAPE))
    labels = np.arange(11, dtype=np.int32) % CLASSES
    return Split(np.clip(smooth, 0, 255).astype(np.uint8), labels)


@pytest.fixture
def images(split, monkeypatch):
    """Eleven images in chunks of four, the last of three."""
    monkeypatch.setattr(EvaluationSet, "chunk_size", 4)
    return EvaluationSet(CLASSIFIER, InMemory(split), "test")


@pytest.fixture
def runs(make_config, tmp_path):
    runs = []
    for seed in (0, 1):
        run = Run(tmp_path, make_config(Setting("absum", 0.1), seed))
        run.begin(0)
        run.finish(CLASSIFIER.init(jax.random.key(seed)), {})
        runs.append(run)
    return runs


@pytest.fixture
def models(runs):
    shapes = jax.eval_shape(CLASSIFIER.init, jax.random.key(0))
    return [jax.tree_util.Partial(_logits, run.variables(shapes)) for run in runs]


def test_single_fourier_is_the_librarys_of_all_images(images, split, runs, models):
    results = single_fourier.evaluate(images, runs, EPS, stride=8)
    x = split.images / np.float32(255)
    pairs = [(l, m) for l in (0, 8, 16, 24) for m in (0, 8, 16, 24)]
    for result, model in zip(results, models, strict=True):
        expected = absum_jax.single_fourier_accuracy(
            model, x, split.labels, EPS, frequencies=pairs, top_k=(1, 5)
        )
        grids = np.stack([result.grid, result.top5.grid])
        # Of whole numbers of images, unlike the library's in float32.
        right = np.rint(11 * np.asarray(expected.accuracy, float)).reshape(2, 4, 4)
        np.testing.assert_array_equal(grids, right / 11)
        plain = absum_jax.accuracy(model, x, split.labels, top_k=(1, 5))
        np.testing.assert_allclose([result.clean, result.top5.clean], plain, rtol=1e-6)
        assert result.frequencies.worst.tolist() == expected.worst[0].tolist()
        assert result.top5.frequencies.min == pytest.approx(float(expected.min[1]))
        assert (result.images, result.stride, result.top5.images) == (11, 8, 11)
    assert len(np.unique(grids)) > 3


def test_all_frequencies_of_larger_images_are_the_papers(images, runs, monkeypatch):
    def attack(classifier, variables, x, y, frequencies, eps, **options):
        # As many right as l says, and one more of the five largest.
        assert frequencies[:, 1].tolist() == list(range(32))
        right = jnp.clip(frequencies[0, 0] + jnp.array([0, 1]), 0, len(y)) / len(y)
        return jnp.broadcast_to(right[None, :, None], (1, 2, 32))

    monkeypatch.setattr(single_fourier, "attacked_accuracies", attack)
    [result] = single_fourier.evaluate(images, runs[:1], EPS)
    assert result.grid.shape == (32, 32)
    # Chunks of 4, 4 and 3.
    np.testing.assert_allclose(result.grid[:6, 0], np.array([0, 3, 6, 9, 11, 11]) / 11)
    np.testing.assert_allclose(result.top5.grid[:3, 5], np.array([3, 6, 9]) / 11)


def test_clean_counts_classes_over_all_chunks(images, split, runs, models):
    results = clean.evaluate(images, runs)
    x = split.images / np.float32(255)
    for result, model in zip(results, models, strict=True):
        accuracy, top5 = absum_jax.accuracy(model, x, split.labels, top_k=(1, 5))
        assert result.accuracy == pytest.approx(accuracy)
        assert result.top5 == pytest.approx(top5)
        answers = np.asarray(model(x)).argmax(axis=1)
        assert result.classes_predicted == len(np.unique(answers)) > 1
        assert result.nan_logits == 0
        # No chunk has them all, and what one has is not all that another has.
        of_chunks = [set(answers[i : i + 4]) for i in (0, 4, 8)]
    assert any(of_chunk < set(answers) for of_chunk in of_chunks)


def test_nan_logits_of_some_images(images, runs, monkeypatch):
    def logits(variables, x):
        return jnp.where(
            x.mean((1, 2, 3))[:, None] > 0.5, jnp.nan, _logits(variables, x)
        )

    broken = Classifier(_init, None, logits, None, is_small=False)
    images = EvaluationSet(broken, images.split, "test")
    means = images.split.split.images.mean(axis=(1, 2, 3)) / 255
    [result] = clean.evaluate(images, runs[:1])
    assert result.nan_logits == pytest.approx((means > 0.5).mean())
    assert 0 < result.nan_logits < 1


@pytest.mark.parametrize(
    ("kind", "passed"),
    [("low-pass", absum_jax.low_pass), ("high-pass", absum_jax.high_pass)],
)
def test_filters(images, split, runs, models, kind, passed):
    radii = (0.0, 3.0, 9.0)
    found = frequency.evaluate(images, runs, kind, radii)
    x = split.images / np.float32(255)
    expected = [
        [absum_jax.accuracy(m, passed(x, r), split.labels) for r in radii]
        for m in models
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(np.unique(found)) > 1


def test_bands(images, split, runs, models):
    bands = ((0.0, 3.0), (3.0, 9.0))
    found = frequency.evaluate_bands(images, runs, "band-stop", bands)
    x = split.images / np.float32(255)
    expected = [
        [absum_jax.accuracy(m, absum_jax.band_stop(x, *b), split.labels) for b in bands]
        for m in models
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_numbers_of_images_are_stored(images, runs):
    single_fourier.evaluate(images, runs[:1], EPS, stride=16)
    [path] = runs[0].folder.glob("single-fourier-*.jsonl")
    header, _, *lines = files.read_json_lines(path)
    assert header["examples"] == 11
    assert header["conditions"]["frequencies_below"] == [32, 32]
    assert [(line["images"], line["point"]) for line in lines] == [
        (part, l) for part in ([0, 4], [4, 8], [8, 11]) for l in (0, 16)
    ]
    for line in lines:
        top1, top5 = line["counts"]
        start, stop = line["images"]
        assert all(type(n) is int and n <= stop - start for n in (*top1, *top5))
        assert all(a <= b for a, b in zip(top1, top5, strict=True))


@pytest.mark.parametrize("chunk", [4, 3])
def test_goes_on_where_a_kill_cut_it(images, runs, monkeypatch, chunk):
    stream = images.split
    [whole] = single_fourier.evaluate(images, runs[:1], EPS, stride=16)
    assert stream.read_so_far[:3] == [(0, 4), (4, 8), (8, 11)]
    [path] = runs[0].folder.glob("single-fourier-*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    # Of the second chunk the first row, and a piece of the second.
    path.write_text("".join(lines[:5]) + lines[5][:30])
    calls = []
    attack = single_fourier.attacked_accuracies

    def recording(classifier, variables, x, y, frequencies, eps, **options):
        calls.append((len(y), int(frequencies[0, 0])))
        return attack(classifier, variables, x, y, frequencies, eps, **options)

    monkeypatch.setattr(single_fourier, "attacked_accuracies", recording)
    monkeypatch.setattr(EvaluationSet, "chunk_size", chunk)
    stream.asked.clear()
    [again] = single_fourier.evaluate(images, runs[:1], EPS, stride=16)
    if chunk == 4:
        assert stream.asked == [[(4, 8), (8, 11)]]
        assert calls == [(4, 16), (3, 0), (3, 16)]
    else:
        # In other chunks it takes what is left of each row.
        assert stream.asked == [[(4, 7), (7, 10), (8, 11), (10, 11)]]
        assert sorted(calls) == [(1, 16), (3, 0), (3, 16), (3, 16)]
    np.testing.assert_array_equal(again.grid, whole.grid)
    np.testing.assert_array_equal(again.top5.grid, whole.top5.grid)
    assert len(stream.closed) == 3  # two of the attack and one of clean images
    stream.asked.clear()
    single_fourier.evaluate(images, runs[:1], EPS, stride=16)
    assert stream.asked == []


def test_an_interruption_closes_what_is_read(images, runs):
    with stopped(0, "attacked_accuracies", single_fourier):
        single_fourier.evaluate(images, runs, EPS)
    assert images.split.read_so_far == [(0, 4)]
    assert images.split.closed == [True]


@pytest.mark.parametrize(
    ("done", "left"),
    [
        ([], [(0, 4), (4, 8), (8, 10)]),
        ([(0, 4)], [(4, 8), (8, 10)]),
        ([(6, 9), (0, 2)], [(2, 6), (9, 10)]),
        ([(0, 10)], []),
        ([(0, 3), (3, 10)], []),
        ([(9, 10)], [(0, 4), (4, 8), (8, 9)]),
    ],
)
def test_missing_ranges(done, left):
    assert missing_ranges(done, 10, 4) == left


@pytest.mark.parametrize(
    ("images", "size", "shared_by", "left"),
    [
        (
            50,
            12,
            8,
            [(0, 8), (8, 16), (16, 24), (24, 32), (32, 40), (40, 48), (48, 50)],
        ),
        (48, 16, 8, [(0, 16), (16, 32), (32, 48)]),
        (50, 64, 8, [(0, 48), (48, 50)]),
        (5, 4, 8, [(0, 4), (4, 5)]),
        # Fewer than devices at a time are still as many as devices.
        (16, 4, 8, [(0, 8), (8, 16)]),
    ],
)
def test_devices_share_all_but_a_remainder(images, size, shared_by, left):
    assert missing_ranges([], images, size, shared_by) == left


def test_batches_stay_on_their_devices():
    x = jnp.arange(22.0).reshape(11, 2)
    np.testing.assert_array_equal(map_batches(lambda x: 2 * x, x, 4), 2 * x)
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.device_put(jnp.arange(64.0).reshape(32, 2), sharding)
    program = jax.jit(lambda x: map_batches(lambda x: 2 * x, x, 8)).lower(x).compile()
    np.testing.assert_array_equal(program(x), 2 * x)
    assert "all-gather" not in program.as_text()


def test_chunks_lie_over_the_devices(images, monkeypatch):
    monkeypatch.setattr(devices, "available", jax.devices)
    found = []
    for x, y in images.chunks([(0, 8), (8, 11), (2, 4)]):
        assert x.sharding == y.sharding
        found.append((len(y), len(x.sharding.device_set), float(x.max()) <= 1))
    # The four virtual devices where they divide a chunk.
    assert found == [(8, 4, True), (3, 3, True), (2, 2, True)]


def test_chunks_are_as_large_as_a_device_holds(split, monkeypatch):
    images = EvaluationSet(CLASSIFIER, InMemory(split), "test")
    assert (images.batch_size(1), images.chunk_size) == (50, 200)
    monkeypatch.setattr(devices, "available", jax.devices)
    monkeypatch.setattr(devices, "on_cpu", lambda: False)
    # Batches of 256 a device, and 0.6 GB of images of 224 x 224 in float32.
    assert (images.batch_size(1), images.chunk_size) == (4 * 256, 4 * 1024)


def test_values_of_images_in_memory_are_stored(split, runs):
    """Files of earlier versions stay valid."""
    images = EvaluationSet(CLASSIFIER, split, "test")
    assert images.top_k == 1
    [answer] = clean.evaluate(images, runs[:1])
    assert answer.top5 is None
    [path] = runs[0].folder.glob("clean-*.jsonl")
    _, _, line = files.read_json_lines(path)
    del line["checksum"]
    assert line == {
        "point": "clean",
        "value": {
            "accuracy": answer.accuracy,
            "classes_predicted": answer.classes_predicted,
            "nan_logits": 0.0,
        },
    }


def test_attacks_that_need_all_images_at_once(images, runs):
    steps = gradient.Steps(0.1, 1, 0.1)
    with pytest.raises(ValueError, match="`images` must not be streamed, as 'pgd'"):
        gradient.white_box(images, runs, [0.1], steps)
    with pytest.raises(ValueError, match="must not be streamed, as 'fourier-noise'"):
        single_fourier.noise_grids(images, runs, 1.0)


def test_models_of_streamed_images(images, runs):
    options = types.SimpleNamespace(dataset="imagenet2012")
    workspace = types.SimpleNamespace(options=options, test=images, selection=images)
    for model in under_single_fourier(workspace, runs, stride=16):
        numbers = model.as_dict()
        assert numbers["top5"]["avg"] == pytest.approx(
            float(model.test.top5.grid.mean()), abs=1e-6
        )
        assert numbers["top5"]["avg"] > numbers["avg"]
        assert model.selection_score == float(model.test.frequencies.mean)
