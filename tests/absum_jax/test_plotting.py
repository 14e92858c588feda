"""plotting.py: what the pictures hold."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

import absum_jax


@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (28, 28), (3, 6)])
def test_heatmap_has_each_frequency_at_its_place(shape):
    height, width = shape
    grid = np.arange(height * width).reshape(shape)
    [image] = absum_jax.plot_frequency_heatmap(grid).images
    shown = image.get_array()
    left, right, bottom, top = image.get_extent()
    # Pixels are squares of one cycle per image, the first row at the top.
    assert (right - left, bottom - top) == (width, height)
    for row, column in np.ndindex(*shape):
        l, m = top + row + 0.5, left + column + 0.5  # the centre of the pixel
        assert shown[row, column] == grid[int(l) % height, int(m) % width]
        assert (l, m) == (int(l), int(m))
        assert abs(l) <= height / 2
        assert abs(m) <= width / 2
    assert shown[height // 2, width // 2] == grid[0, 0]


def test_heatmap_options():
    ax = absum_jax.plot_frequency_heatmap(np.eye(4))
    assert ax.images[-1].get_clim() == (0, 1)
    ax = absum_jax.plot_frequency_heatmap(np.eye(4), vmin=0.5, cmap="gray")
    image = ax.images[-1]
    assert image.get_clim() == (0.5, 1)
    assert image.get_cmap().name == "gray"


@pytest.mark.parametrize(
    "plot",
    [
        absum_jax.plot_frequency_heatmap,
        absum_jax.plot_power_spectrum,
        absum_jax.plot_radial_mean,
    ],
)
def test_draws_on_given_axes_or_the_current_ones(plot):
    _, (first, second) = plt.subplots(1, 2)  # the second becomes current
    assert plot(np.eye(4), ax=first) is first
    assert not second.has_data()
    assert plot(np.eye(4)) is second
    assert "cycles per image" in first.get_xlabel()
    first.figure.draw_without_rendering()
    for ax in (first, second):
        assert all(tick == int(tick) for tick in ax.get_xticks())


def test_radial_mean_line():
    grid = np.random.default_rng(0).uniform(size=(6, 5))
    [line] = absum_jax.plot_radial_mean(grid, label="none", color="black").lines
    np.testing.assert_allclose(line.get_ydata(), absum_jax.radial_mean(grid))
    np.testing.assert_array_equal(line.get_xdata(), np.arange(len(line.get_ydata())))
    assert (line.get_label(), line.get_color()) == ("none", "black")


def test_without_matplotlib(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
    report = absum_jax.RobustnessReport(images=1, rows=(), grid=None, conditions={})
    for plot in (
        lambda: absum_jax.plot_frequency_heatmap(np.zeros((4, 4))),
        lambda: absum_jax.plot_radial_mean(np.zeros((4, 4))),
        lambda: absum_jax.plot_power_spectrum(np.zeros((4, 4))),
        report.plot,
    ):
        with pytest.raises(ModuleNotFoundError, match=r"'absum-jax\[plot\]'"):
            plot()
