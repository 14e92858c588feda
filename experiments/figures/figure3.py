"""Draws Figure 3: the search spaces of Absum and L1 in two dimensions."""

import dataclasses
import pathlib

import numpy as np
from matplotlib.figure import Figure

from experiments.methods import METHODS
from experiments.reporting.plots.axes import legend_beside
from experiments.reporting.plots.saving import save
from experiments.reporting.plots.styles import method_style


@dataclasses.dataclass(frozen=True)
class Figure3Options:
    """Draw the search spaces of Absum and L1 for two coefficients (Figure 3)."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the figure."""


# A quadratic loss whose minimum lies outside of both search spaces.
_MINIMUM = np.array([2.4, -0.4])
_HESSIAN = np.array([[1.0, 0.5], [0.5, 1.4]])


def loss(k: np.ndarray) -> np.ndarray:
    """Computes the loss at points (..., 2)."""
    offset = k - _MINIMUM
    return 0.5 * np.einsum("...i,ij,...j->...", offset, _HESSIAN, offset)


def constrained_minimum(kind: str) -> np.ndarray:
    """Searches the boundary of a search space for the minimum of the loss.

    Of `"absum"` it is the line k1 + k2 = 1, of `"l1"` the square |k1| + |k2| = 1.
    """
    low, high = (-4, 4) if kind == "absum" else (0, 1)
    along = np.linspace(low, high, 4001)
    edges = [np.stack([along, 1 - along], axis=-1)]
    if kind == "l1":
        edges += [edges[0] * sign for sign in ([1, -1], [-1, 1], [-1, -1])]
    candidates = np.concatenate(edges)
    return candidates[np.argmin(loss(candidates))]


def draw() -> Figure:
    """Draws both search spaces, contours of the loss and its constrained minima."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    ax = figure.subplots()
    limits = -3.2, 3.2
    axis = np.linspace(*limits, 401)
    k1, k2 = np.meshgrid(axis, axis)
    ax.fill_between(
        axis, -1 - axis, 1 - axis, color=METHODS["absum"].color, alpha=0.3,
        label=r"Absum: $|k_1 + k_2| \leq c$",
    )  # fmt: skip
    ax.fill(
        [1, 0, -1, 0], [0, 1, 0, -1], color=METHODS["l1"].color, alpha=0.5,
        label=r"$L_1$: $|k_1| + |k_2| \leq c$",
    )  # fmt: skip
    values = loss(np.stack([k1, k2], axis=-1))
    ax.contour(k1, k2, values, levels=10, colors="black", linewidths=0.5, alpha=0.6)
    ax.plot(*_MINIMUM, "k*", markersize=9, label=r"minimum of $f(\theta)$")
    for kind in ("absum", "l1"):
        style = {"linestyle": "none", "label": f"minimum, with {METHODS[kind].label}"}
        ax.plot(*constrained_minimum(kind), **method_style(kind) | style)
    ax.set(xlim=limits, ylim=limits, xlabel="$k_1$", ylabel="$k_2$")
    ax.set_aspect("equal")
    legend_beside(ax)
    return figure


def run(options: Figure3Options) -> list[pathlib.Path]:
    """Draws and writes the figure."""
    title = "Figure 3, search spaces of Absum and L1"
    return save(draw(), title, options.results_dir / "figure3" / "search_spaces")
