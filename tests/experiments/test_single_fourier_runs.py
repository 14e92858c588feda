"""The attack on trained runs: the library's numbers, kept row by row."""

import jax
import numpy as np
import pytest

import absum_jax
from experiments.evaluation import single_fourier
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.evaluation.single_fourier import Robustness, evaluate
from experiments.jobs import files

pytestmark = pytest.mark.usefixtures("tiny_network")


@pytest.mark.slow
def test_results_are_the_librarys(classifier, runs, images):
    x, y = images.arrays()
    results = evaluate(images, runs, 80 / 255)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    for run, result in zip(runs, results, strict=True):
        logits_fn = jax.tree_util.Partial(classifier.logits, run.variables(shapes))
        expected = absum_jax.single_fourier_accuracy(logits_fn, x, y, 80 / 255)
        np.testing.assert_allclose(result.grid, expected.accuracy, atol=1e-6)
        assert result.clean == pytest.approx(absum_jax.accuracy(logits_fn, x, y))
        assert result.frequencies.mean == pytest.approx(expected.mean)
        assert result.frequencies.worst.tolist() == expected.worst.tolist()
        predicted = np.unique(np.argmax(logits_fn(x), axis=-1))
        assert result.classes_predicted == len(predicted)
    assert results[1].classes_predicted == 1


def test_rows_on_disk_are_not_computed_again(runs, images, monkeypatch):
    results = evaluate(images, runs, 80 / 255)
    [path] = runs[0].folder.glob("single-fourier-*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    # A kill in the middle of the third row: two whole rows and a piece of one.
    path.write_text("".join(lines[:4]) + lines[4][:9])
    asked = []
    attacked = single_fourier.attacked_accuracies

    def recording(classifier, params, x, y, frequencies, eps, **options):
        asked.append((int(frequencies[0, 0]), jax.tree.leaves(params)[0].shape[0]))
        return attacked(classifier, params, x, y, frequencies, eps, **options)

    monkeypatch.setattr(single_fourier, "attacked_accuracies", recording)
    again = evaluate(images, runs, 80 / 255)
    assert asked == [(l, 1) for l in range(2, 28)]
    for one, two in zip(results, again, strict=True):
        np.testing.assert_array_equal(one.grid, two.grid)
        assert one.clean == two.clean
    points = [line["point"] for line in files.read_json_lines(path) if "point" in line]
    assert points == [*range(28)]


def test_other_images_are_another_evaluation(classifier, images):
    data = images.split

    def name(split_name="test", split=data, **conditions):
        conditions = {"eps": 0.3, "scale": "linf"} | conditions
        images = EvaluationSet(classifier, split, split_name)
        return images.evaluation("single-fourier", **conditions).name

    names = {
        name(),
        name("validation"),
        name(split=data.take(np.arange(11))),
        name(split=data.take(np.arange(12)[::-1])),
        name(eps=0.1),
        name(scale="l2"),
    }
    assert len(names) == 6
    assert name() in names


def test_frequencies_of_a_grid():
    grid = np.array([[0.5, 1.0], [0.25, 0.75]])
    frequencies = Robustness(4, 1.0, 2, grid).frequencies
    assert float(frequencies.mean) == 0.625
    assert (float(frequencies.min), float(frequencies.max)) == (0.25, 1.0)
    assert frequencies.worst.tolist() == [1, 0]
