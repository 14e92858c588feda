"""Attacks on trained models: the library's numbers, stored point by point."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import absum_jax
from experiments.data import Split
from experiments.evaluation import (
    auto_attack,
    clean,
    corruption,
    evaluator,
    frequency,
    gradient,
    points,
    single_fourier,
)
from experiments.evaluation.attack import ATTACKS, Attack, register
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.jobs import files
from experiments.reporting.evaluated import under_pgd
from experiments.training.runs import Run, provenance

# One of the models gives all images the same answer.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`logits_fn` had no gradient"),
    pytest.mark.usefixtures("tiny_network"),
]

STEPS = gradient.Steps(step_size=0.05, steps=3, init_radius=0.02)
# At which the first model is wrong about some of the images that it gets right.
EPS = (0.008, 0.015)


@pytest.fixture
def models(classifier, runs):
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    return [Partial(classifier.logits, run.variables(shapes)) for run in runs]


@pytest.fixture
def answered(images, models):
    """The images with the labels that the first model gives them."""
    x, _ = images.arrays()
    labels = np.asarray(models[0](x).argmax(axis=-1), np.int32)
    return dataclasses.replace(images, split=Split(images.split.images, labels))


def _pgd(model, x, y, eps):
    return absum_jax.pgd(
        model, x, y, key=jax.random.key(0), eps=eps, step_size=0.05, steps=3,
        init_radius=0.02,
    )  # fmt: skip


def test_clean(images, runs, models):
    x, y = images.arrays()
    results = clean.evaluate(images, runs)
    for result, model in zip(results, models, strict=True):
        assert result.accuracy == pytest.approx(absum_jax.accuracy(model, x, y))
        assert result.classes_predicted == len(np.unique(model(x).argmax(-1)))
        assert result.nan_logits == 0
    assert results[1].classes_predicted == 1


def test_nan_logits_are_reported(classifier, images, runs):
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    variables = runs[0].variables(shapes)
    last = variables.params["dense2"]
    last["bias"] = last["bias"].at[2].set(jnp.nan)
    runs[0].finish(variables, {})
    [broken, whole] = clean.evaluate(images, runs)
    assert (broken.accuracy, broken.nan_logits) == (0, 1)
    assert whole.nan_logits == 0
    [broken, _] = gradient.white_box(images, runs, EPS, STEPS)
    assert broken[EPS[0]] == gradient.PgdAccuracy(0, 1)


def test_white_box(answered, runs, models):
    x, y = answered.arrays()
    results = gradient.white_box(answered, runs, EPS, STEPS)
    first = [results[0][eps].accuracy for eps in EPS]
    assert 1 > first[0] > first[1] > 0
    for result, model in zip(results, models, strict=True):
        for eps in EPS:
            expected = float(absum_jax.accuracy(model, _pgd(model, x, y, eps), y))
            assert result[eps].accuracy == pytest.approx(expected, abs=1e-6)
            assert result[eps].nan_logits == 0


def _apgd(model, x, y, eps):
    return absum_jax.apgd(model, x, y, key=jax.random.key(0), eps=eps, steps=4)


@pytest.mark.parametrize(
    ("steps", "by"), [(STEPS, _pgd), (gradient.AutoSteps(4), _apgd)]
)
def test_transferred(answered, runs, models, monkeypatch, steps, by):
    x, y = answered.arrays()
    made = []

    def attacked(classifier, variables, *arguments, attack=gradient._attacked, **batch):
        made.append(variables)
        return attack(classifier, variables, *arguments, **batch)

    monkeypatch.setattr(gradient, "_attacked", attacked)
    # One by one, as large networks are: each attack is made once all the same.
    large = dataclasses.replace(answered.classifier, is_small=False)
    images = dataclasses.replace(answered, classifier=large)
    matrix = gradient.transferred(images, runs, runs[::-1], EPS[1], steps)
    assert len(made) == len(runs)
    expected = [
        [
            float(absum_jax.accuracy(target, by(model, x, y, EPS[1]), y))
            for model in models[::-1]
        ]
        for target in models
    ]
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    assert 1 > matrix[0, 1] > 0


@pytest.mark.slow
def test_auto_attack_block_by_block(answered, runs, models, monkeypatch):
    """As the library attacks all images at once, and each block only once."""
    images, (x, y) = answered, answered.arrays()
    for name, number in (("_BLOCK", 6), ("STEPS", 3), ("QUERIES", 20)):
        monkeypatch.setattr(auto_attack, name, number)
    eps = (0.005, 0.01)
    found = auto_attack.evaluate(images, runs, eps)
    for of_model, model in zip(found, models, strict=True):
        expected = auto_attack.attacked(
            model, x, y, key=jax.random.key(0), eps=eps, bounds=(0, 1), steps=3,
            queries=20, components=("apgd-ce", "apgd-t", "fab-t", "square"),
            batch_size=6,
        )  # fmt: skip
        codes = np.asarray(expected.broken_by)
        counts = [np.bincount(of_eps, minlength=6) for of_eps in codes]
        np.testing.assert_array_equal(of_model.images, counts)
        np.testing.assert_allclose(of_model.accuracies, expected.accuracy, atol=1e-6)
        for name in ("forward", "backward"):
            passes = getattr(expected, name).sum(axis=1)
            np.testing.assert_array_equal(getattr(of_model, name), passes)
        np.testing.assert_array_equal(of_model.problems, expected.problems)
    # Some are broken, some are not, and one eps breaks more than the one before.
    assert 12 > found[0].images[0, 0] > found[0].images[1, 0]
    [path] = runs[0].folder.glob("auto-attack-*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    stored = [line.get("point") for line in files.read_json_lines(path)]
    assert stored == [None, None, "0-6", "6-12"]
    path.write_text("".join(lines[:-1]))
    again = auto_attack.evaluate(images, runs, eps)
    jax.tree.map(np.testing.assert_array_equal, again, found)
    assert path.read_text().splitlines(keepends=True) == lines


def test_what_is_on_disk_is_read_alone(images, runs, some_attack):
    assert evaluator.on_disk("some", images, runs, points=[1, 2]) is None
    evaluator.run("some", images, runs[:1], points=[1, 2])
    assert evaluator.on_disk("some", images, runs, points=[1, 2]) is None
    assert evaluator.on_disk("some", images, runs[:1], points=[1, 2]) == [[1, 2]]
    assert evaluator.on_disk("some", images, runs[:1], points=[1, 5]) is None
    assert some_attack == [(1, 1), (2, 1)]


@pytest.mark.parametrize("batch", [5, 12])
def test_attacked_images_do_not_depend_on_the_batch(images, runs, models, batch):
    x, y = images.arrays()
    params = jax.tree.map(lambda leaf: leaf[0], images.variables(runs[:1]))
    attacked = gradient._attacked(
        images.classifier, params, x, y, gradient.budget_of(0.1, STEPS), batch=batch
    )
    expected = _pgd(models[0], x, y, 0.1)
    # A sign may turn where a gradient is within rounding of zero.
    assert np.mean(np.abs(attacked - expected) > 1e-6) < 1e-3


def test_power_spectra(images, runs, models):
    x, y = images.arrays()
    spectra = gradient.power_spectra(images, runs, 0.1, STEPS)
    assert spectra.shape == (2, 28, 28)
    for spectrum, model in zip(spectra, models, strict=True):
        perturbation = _pgd(model, x, y, 0.1) - x
        expected = absum_jax.power_spectrum(perturbation)
        np.testing.assert_allclose(spectrum.sum(), expected.sum(), rtol=1e-3)
        np.testing.assert_allclose(spectrum, expected, atol=1e-2)


def test_filters(images, runs, models):
    x, y = images.arrays()
    radii = (0.0, 3.0, 7.0)
    for kind, passed in (
        ("low-pass", absum_jax.low_pass),
        ("high-pass", absum_jax.high_pass),
    ):
        found = frequency.evaluate(images, runs, kind, radii)
        expected = [
            [absum_jax.accuracy(model, passed(x, radius), y) for radius in radii]
            for model in models
        ]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bands(images, runs, models):
    x, y = images.arrays()
    bands = ((0.0, 3.5), (3.5, 7.0), (7.0, 20.0))
    for kind, passed in (
        ("band-pass", absum_jax.band_pass),
        ("band-stop", absum_jax.band_stop),
    ):
        found = frequency.evaluate_bands(images, runs, kind, bands)
        expected = [
            [absum_jax.accuracy(model, passed(x, *band), y) for band in bands]
            for model in models
        ]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    [path] = runs[0].folder.glob("band-stop-*.jsonl")
    stored = [line.get("point") for line in files.read_json_lines(path)]
    assert stored == [None, None, "0-3.5", "3.5-7", "7-20"]


def test_bands_of_a_data_set_have_all_frequencies_but_zero():
    assert frequency.bands_of((28, 28, 1)) == (
        (0.0, 3.5), (3.5, 7.0), (7.0, 14.0), (14.0, 20.0),
    )  # fmt: skip
    for shape in ((28, 28, 1), (32, 32, 3), (40, 24, 3)):
        bands = frequency.bands_of(shape)
        radii = absum_jax.frequency_radius(shape[:2])
        inside = [((radii > low) & (radii <= high)) for low, high in bands]
        np.testing.assert_array_equal(np.sum(inside, axis=0), radii > 0)


@pytest.mark.slow
def test_corruptions(answered, runs, models):
    images, (x, y) = answered, answered.arrays()
    found = corruption.evaluate(images, runs, "mnist-c")
    assert found.shape == (2, 7, 5)
    kinds = corruption.kinds_of("mnist-c")
    key = jax.random.key(0)
    for of_model, model in zip(found, models, strict=True):
        for kind, severity in (("shot_noise", 5), ("contrast", 2)):
            corrupted = absum_jax.corrupt(
                x, kind, severity, key=key, benchmark="mnist-c"
            )
            expected = absum_jax.accuracy(model, corrupted, y)
            of_kind = of_model[kinds.index(kind)]
            np.testing.assert_allclose(of_kind[severity - 1], expected, atol=1e-6)


def test_severities_are_those_of_the_number_of_channels():
    assert corruption.benchmark_of((28, 28, 1)) == "mnist-c"
    assert corruption.benchmark_of((32, 32, 3)) == "cifar10-c"


@pytest.mark.slow
def test_fourier_noise(images, runs, models):
    x, y = images.arrays()
    grids = single_fourier.noise_grids(images, runs, 4.0)
    frequencies = np.array([[0, 1], [27, 14]])
    for grid, model in zip(grids, models, strict=True):
        result = absum_jax.fourier_noise_accuracy(
            model, x, y, 4.0, key=jax.random.key(0), frequencies=frequencies
        )
        np.testing.assert_allclose(grid[*frequencies.T], result.accuracy, atol=1e-6)


def test_held_out_images_choose_and_test_images_are_reported(
    answered, noise, runs, models
):
    images, pictures = answered, noise.images[12:40]
    labels = models[0](pictures / np.float32(255)).argmax(axis=-1)
    split = Split(pictures, np.asarray(labels, np.int32))
    held_out = EvaluationSet(images.classifier, split, "validation")
    workspace = types.SimpleNamespace(test=images, selection=held_out)
    models = under_pgd(workspace, runs, EPS, STEPS)
    on_test = gradient.white_box(images, runs, EPS, STEPS)
    on_held_out = gradient.white_box(held_out, runs, EPS, STEPS)
    for model, test, chosen_by in zip(models, on_test, on_held_out, strict=True):
        assert model.test.accuracies.tolist() == [test[eps].accuracy for eps in EPS]
        mean = np.mean([chosen_by[eps].accuracy for eps in EPS])
        assert model.selection_score == pytest.approx(mean)
    assert any(
        model.selection_score != pytest.approx(model.test.accuracies.mean())
        for model in models
    )


@pytest.fixture
def some_attack():
    """Registers an attack that adds the index of a model to the point."""
    measured = []

    def some(images, points):
        def measure(models, point):
            count = len(jax.tree.leaves(models.variables)[0])
            measured.append((point, count))
            return point + jnp.arange(count)

        return Attack("point", points, measure, {"of": 1})

    register("some")(some)
    yield measured
    del ATTACKS["some"]


def test_points_on_disk_are_not_computed_again(images, runs, some_attack):
    assert evaluator.run("some", images, runs, points=[1, 2]) == [[1, 2], [2, 3]]
    path = runs[1].folder / images.evaluation("some", of=1).name
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:7])
    some_attack.clear()
    again = evaluator.run("some", images, runs, points=[1, 2, 5])
    # Of the second run the last point, cut short, with the new one; of the first that.
    assert some_attack == [(2, 1), (5, 1), (5, 1)]
    assert again == [[1, 2, 5], [2, 2, 5]]
    assert [line.get("point") for line in files.read_json_lines(path)] == [
        None, None, 1, 2, 5,
    ]  # fmt: skip


@pytest.mark.usefixtures("some_attack")
def test_points_are_stored_with_their_provenance(images, runs, monkeypatch):
    for flags, asked in (
        ("--a", [1]), ("--a", [1, 2, 5]), ("--b", [2, 7]), ("--b", [8]), ("--a", [9]),
    ):  # fmt: skip
        monkeypatch.setenv("XLA_FLAGS", flags)
        evaluator.run("some", images, runs, points=asked)
    [(evaluation, lines)] = points.stored(runs[0])
    assert [line["point"] for line in lines] == [1, 2, 5, 7, 8, 9]
    _, *lines = files.read_json_lines(runs[0].folder / evaluation.name)
    assert lines[-2]["provenance"] == provenance()
    assert [
        line["point"] if "point" in line else line["provenance"]["xla_flags"]
        for line in lines
    ] == ["--a", 1, 2, 5, "--b", 7, 8, "--a", 9]


def test_unknown_and_repeated_names_are_refused(images, runs, some_attack):
    with pytest.raises(ValueError, match=r"`name` must be one of .*'clean'.* got 'so'"):
        evaluator.run("so", images, runs)
    with pytest.raises(ValueError, match=r"`name` must differ .*, got 'some'"):
        register("some")


def test_other_conditions_are_another_file(images):
    names = {
        images.evaluation("pgd", steps=3).name,
        images.evaluation("pgd", steps=4).name,
        images.evaluation("transfer", steps=3).name,
        EvaluationSet(images.classifier, images.split, "validation")
        .evaluation("pgd", steps=3)
        .name,
    }
    assert len(names) == 4


def test_models_are_evaluated_in_the_same_order_by_all_processes(
    images, make_config, tmp_path, monkeypatch, some_attack
):
    """In that of the models; that of a set may differ between processes."""
    evaluation, points = images.evaluation("some", of=1), list(range(7))
    runs = [Run(tmp_path, make_config(seed=seed)) for seed in points]
    for run, own in zip(runs, points, strict=True):
        done = [{"point": point, "value": 0} for point in points if point != own]
        lines = [dataclasses.asdict(evaluation), *done]
        files.write_json_lines(run.folder / evaluation.name, lines)
    monkeypatch.setattr(EvaluationSet, "variables", lambda self, runs: jnp.zeros(1))
    evaluator.run("some", images, runs, points=points)
    assert [point for point, _ in some_attack] == points
