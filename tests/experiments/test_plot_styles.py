"""How figures look: methods that differ without color, titles, ticks and legends."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from absum_jax.plotting import whole_numbers
from experiments import methods
from experiments.config import NONE, Setting
from experiments.figures import diagnostics, figure3, figure8, spectra
from experiments.methods import ABSUM_AUTODIFF, METHODS, Method
from experiments.options import ModelOptions
from experiments.reporting import naming
from experiments.reporting.curves import Curves
from experiments.reporting.plots import heatmaps, lines, saving
from experiments.reporting.plots.axes import log_scale
from experiments.reporting.plots.runtimes import TIMED_METHODS, timed_style
from experiments.reporting.plots.styles import method_style, spread_markers
from experiments.studies.snc_constraints import OTHER_READINGS

LISTED = methods.listed()
LONG = naming.figure_title(
    "Figure 0", ModelOptions(epochs=2, train_examples=512), ["much", "more"] * 20
)


def _pairs(styles):
    return [(style["linestyle"], style["marker"]) for style in styles]


@pytest.fixture
def others():
    """Methods that are registered with a name, a label and a color alone."""
    before = dict(METHODS)
    added = [f"other-{i}" for i in range(10)]
    methods.register(*(Method(name, name, "#17becf") for name in added))
    yield added
    METHODS.clear()
    METHODS.update(before)


def test_no_two_methods_share_dash_and_marker(others):
    assert set(OTHER_READINGS) < METHODS.keys()
    pairs = _pairs(map(method_style, METHODS))
    assert None not in sum(pairs, ())
    assert len(set(pairs)) == len(pairs) == len(METHODS)
    for name in others:
        assert method_style(name)["label"] == name
        assert method_style(name)["color"] == "#17becf"


def test_a_method_keeps_the_dash_and_marker_it_is_registered_with(others):
    [first] = _pairs([method_style(others[0])])
    methods.register(Method("own", "Own", "red", *first))
    assert _pairs([method_style("own")]) == [first]
    pairs = _pairs(map(method_style, METHODS))
    assert len(set(pairs)) == len(pairs)


def test_methods_that_figures_compare_have_colors_of_their_own():
    compared = [*LISTED, ABSUM_AUTODIFF]
    for key in ("color", "marker", "linestyle"):
        assert len({method_style(name)[key] for name in compared}) == len(compared)
    timed = _pairs(map(timed_style, TIMED_METHODS))
    assert len(set(timed)) == len(TIMED_METHODS)


def test_markers_of_coinciding_lines_are_seen():
    ax = Figure().subplots()
    for name in LISTED:
        ax.plot(np.arange(100), np.zeros(100), **method_style(name))
    spread_markers(ax)
    marked = [
        set(range(100)[slice(start, None, step)])
        for start, step in (line.get_markevery() for line in ax.get_lines())
    ]
    assert all(len(points) == 10 for points in marked)
    assert len(set.union(*marked)) == 10 * len(LISTED)


@pytest.mark.parametrize("points", [1, 7])
def test_few_points_are_all_marked(points):
    ax = Figure().subplots()
    for name in LISTED:
        ax.plot(np.arange(points), np.zeros(points), **method_style(name))
    spread_markers(ax)
    assert {line.get_markevery() for line in ax.get_lines()} == {(0, 1)}


def test_titles_name_data_set_network_and_scale():
    models = ModelOptions("mnist")
    assert naming.figure_title("Table 3", models, []) == "Table 3, MNIST (small CNN)"
    models = ModelOptions("cifar10", width="1/8", epochs=2)
    assert naming.figure_title("Figure 7", models, naming.model_scale(models)) == (
        "Figure 7, CIFAR-10 (ResNet-18)\n"
        "scaled down: an eighth of the channels, 2 of 350 epochs"
    )


METHODS_6 = ("none", "weight_decay", "l1", "absum", "snc", "snc-numpy-axes")
GRIDS = dict.fromkeys(METHODS_6, np.linspace(0, 1, 64).reshape(8, 8))
VALUES = np.ones((2, 4, 4, 2)) + np.arange(4)[:, None, None]
SETTINGS = [NONE, Setting("absum", 0.01)]
LAYERS = {"conv1/kernel": [0.1, 0.5], "conv2/kernel": [0.2, 0.7]}
CONVERGENCE = figure8.Convergence(np.ones(2), np.ones(2), np.zeros(2))
DRAWN = {
    "lines": lambda: lines.draw(
        (0, 1), {"one": dict.fromkeys(METHODS_6, np.eye(2))}, xlabel="x", ylabel="y"
    ),
    "heatmaps": lambda: heatmaps.draw(GRIDS, dict.fromkeys(GRIDS, 1.0)),
    "figure3": figure3.draw,
    "figure8": lambda: figure8.draw(
        {"absum": [CONVERGENCE], ABSUM_AUTODIFF: [CONVERGENCE]}
    ),
    "spectra": lambda: spectra.draw(SETTINGS, {"conv1": VALUES}, {"conv1": VALUES[:1]}),
    "diagnostics": lambda: diagnostics.draw(
        SETTINGS, [dict.fromkeys(diagnostics._KINDS, Curves([1, 2], LAYERS))] * 2
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_legends_and_titles_cover_nothing(name, tmp_path):
    figure = DRAWN[name]()
    saving.save(figure, LONG, tmp_path / name)
    figure.draw_without_rendering()
    [legend] = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    box, title = legend.get_window_extent(), figure._suptitle.get_window_extent()
    assert figure.get_suptitle().split() == LONG.split()
    # Half a pixel of rounding.
    assert title.x0 > -1
    assert title.x1 < figure.bbox.x1 + 1
    for other in [*(ax.get_tightbbox() for ax in figure.axes if ax.axison)]:
        assert not title.padded(-1).overlaps(other)
    for ax in figure.axes:
        assert not box.padded(-1).overlaps(ax.get_window_extent())
    assert not box.overlaps(title)


def _labels(axis):
    axis.figure.draw_without_rendering()
    return [
        text.get_text()
        for text in axis.get_majorticklabels() + axis.get_minorticklabels()
        if text.get_text()
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.02, 30), {"0.1", "1", "10"}),
        ((1, 9999), {"1", "10", "100", "1000"}),
        ((1e-7, 1), {"$10^{-7}$", "$10^{-1}$"}),
        ((0.2, 0.6), {"0.2", "0.3", "0.4", "0.6"}),
        ((2e-7, 6e-7), {r"$2 \times 10^{-7}$", r"$6 \times 10^{-7}$"}),
    ],
)
def test_log_axes_have_plain_numbers_or_powers(values, expected):
    ax = Figure().subplots()
    ax.plot(values, values)
    for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
        log_scale(ax, name)
        labels = set(_labels(axis))
        assert expected <= labels
        assert not any(re.search(r"\de", label) for label in labels)


@pytest.mark.parametrize("epochs", [1, 2, 3, 20, 350])
def test_epochs_are_whole(epochs):
    ax = Figure().subplots()
    ax.plot(np.arange(1, epochs + 1), np.zeros(epochs))
    whole_numbers(ax.xaxis)
    labels = _labels(ax.xaxis)
    assert labels
    assert all(
        label.replace("\N{MINUS SIGN}", "-").lstrip("-").isdigit() for label in labels
    )
