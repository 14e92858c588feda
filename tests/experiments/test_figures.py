"""Figures show the numbers they are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from streaming import InMemory

import absum_jax
from experiments.config import NONE, Setting
from experiments.data import Split
from experiments.evaluation.single_fourier import Robustness
from experiments.figures import figure1, figure3
from experiments.reporting.evaluated import SingleFourierModel
from experiments.reporting.plots import heatmaps, saving, strength
from experiments.training.runs import Run


@pytest.fixture
def models(make_config, tmp_path):
    made = []
    for setting, shift in (
        (NONE, 0.0), (Setting("l1", 0.1), 0.1), (Setting("l1", 0.001), 0.2),
        (Setting("absum", 0.1), 0.3),
    ):  # fmt: skip
        for seed in (0, 1):
            run = Run(tmp_path, make_config(setting, seed))
            run.begin(0)
            run.log(1, shift + 0.2 * seed + 0.1, 0.5)
            grid = np.array([[0.2, 0.4], [0.6, 0.2]]) + shift + 0.1 * seed
            result = Robustness(10, 0.9, 10, grid)
            made.append(SingleFourierModel(run, result))
    return made


def _line(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def test_figure2_is_l1_at_its_worst_frequency(models):
    (ax,) = strength.figure2(models).axes
    line = _line(ax, "L1")
    np.testing.assert_allclose(line.get_xdata(), [0.001, 0.1])
    # Minimum of the grid is 0.2 + shift, averaged over two seeds 0.1 apart, percent.
    np.testing.assert_allclose(line.get_ydata(), [45.0, 35.0])


def test_figure4_has_min_mean_max_of_each_method(models):
    figure = strength.figure4(models)
    assert [ax.get_title() for ax in figure.axes] == ["L1", "Absum"]
    l1 = figure.axes[0]
    np.testing.assert_allclose(_line(l1, "min").get_ydata(), [45.0, 35.0])
    np.testing.assert_allclose(_line(l1, "avg").get_ydata(), [60.0, 50.0])
    np.testing.assert_allclose(_line(l1, "max").get_ydata(), [85.0, 75.0])


def test_figure5_is_the_lowest_loss(models):
    (ax,) = strength.figure5(models).axes
    np.testing.assert_allclose(_line(ax, "L1").get_ydata(), [0.4, 0.3])
    np.testing.assert_allclose(_line(ax, "Absum").get_ydata(), [0.5])


def test_no_figure_without_its_method(models):
    none = [o for o in models if o.run.config.method == "none"]
    assert strength.figure2(none) is None
    assert strength.figure4(none) is None
    assert strength.figure5(none) is None


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_figure1_shows_attacked_images(shape):
    images = np.random.default_rng(0).random((2, *shape), np.float32)
    figure = figure1.draw(images, ((0, 3), (5, 2)), 0.2)
    shown = [np.asarray(ax.get_images()[0].get_array()) for ax in figure.axes]
    np.testing.assert_array_equal(shown[1], images[1].squeeze())
    attacked = absum_jax.single_fourier_attack(jnp.asarray(images), 5, 2, 0.2)
    np.testing.assert_allclose(shown[5], attacked[1].squeeze())


def test_figure1_takes_streamed_images_of_different_classes():
    labels = np.array([3, 3, 1, 3, 2, 0], np.int32)
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3))
    stream = InMemory(Split(images.astype(np.uint8), labels))
    chosen = figure1._one_a_class(stream, 3)
    assert chosen.shape == (3, 4, 4, 3)
    assert chosen[:, 0, 0, 0].tolist() == [0, 2, 4]
    # No more are read than it takes.
    assert stream.read_so_far[-1] == (4, 5)
    assert stream.closed == [True]
    held = figure1._one_a_class(stream.split, 3)
    assert held[:, 0, 0, 0].tolist() == [5, 2, 4]


def test_figure3_minima_are_those_of_a_projected_gradient():
    """The minimum over each search space, found by proximal gradient on its gauge."""
    hessian, centre = jnp.asarray(figure3._HESSIAN), jnp.asarray(figure3._MINIMUM)

    def project_absum(k):
        return k - jnp.sign(k.sum()) * jnp.maximum(jnp.abs(k.sum()) - 1, 0) / 2

    def project_l1(k):
        # The projection onto the L1 ball of radius 1 by bisection on the threshold.
        low, high = jnp.zeros(()), jnp.abs(k).max()
        for _ in range(50):
            middle = (low + high) / 2
            inside = jnp.maximum(jnp.abs(k) - middle, 0).sum() <= 1
            low, high = jnp.where(inside, low, middle), jnp.where(inside, middle, high)
        soft = jnp.sign(k) * jnp.maximum(jnp.abs(k) - high, 0)
        return jnp.where(jnp.abs(k).sum() <= 1, k, soft)

    for kind, project in (("absum", project_absum), ("l1", project_l1)):

        def step(_, k, project=project):
            return project(k - 0.2 * hessian @ (k - centre))

        expected = jax.lax.fori_loop(0, 300, step, jnp.zeros(2))
        np.testing.assert_allclose(
            figure3.constrained_minimum(kind), expected, atol=3e-3
        )


def test_heatmaps_name_the_numbers(tmp_path):
    grid = np.full((28, 28), 0.9)
    grid[0, 3] = 0.5
    figure = heatmaps.draw(
        {"none": grid, "absum": grid + 0.1}, {"none": 0.9, "absum": 1}
    )
    titles = [ax.get_title() for ax in figure.axes[:2]]
    assert titles == [
        "no regularization, clean 90.0 %\nmean 89.9 %, worst 50.0 %",
        "Absum, clean 100.0 %\nmean 99.9 %, worst 60.0 %",
    ]
    first, second, rings, bar = figure.axes
    np.testing.assert_allclose(first.images[0].get_array()[14, 17], 50)  # (0, 3)
    assert first.images[0].get_clim() == second.images[0].get_clim() == (50, 100)
    assert {rings.get_ylabel(), bar.get_ylabel()} == {"accuracy (%)"}
    highest = [line.get_ydata().max() for line in rings.get_lines()]
    np.testing.assert_allclose(highest, [90, 100], rtol=1e-6)
    written = saving.save(figure, "Title", tmp_path / "picture")
    assert figure.get_suptitle() == "Title"
    assert [path.suffix for path in written] == [".png", ".pdf"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert written[1].read_bytes().startswith(b"%PDF")


def test_figure5_without_a_finite_loss(make_config, tmp_path):
    run = Run(tmp_path, make_config(Setting("l1", 10.0)))
    run.begin(0)
    run.log(1, float("inf"), 0.1)
    result = Robustness(10, 0.1, 1, np.full((2, 2), 0.1))
    model = SingleFourierModel(run, result)
    assert model.lowest_loss is None
    saving.save(strength.figure5([model]), "Title", tmp_path / "figure5")
