"""The networks of the paper and their sizes."""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import jax
from flax import nnx

import absum_jax
from experiments.data import DATASETS
from experiments.models.architectures import ARCHITECTURES, without_values
from experiments.reporting.columns import Column, Table


@dataclasses.dataclass(frozen=True)
class ModelsOptions:
    """List the networks, the data sets they are for, how many parameters they have, and
    how many of these are regularized."""  # noqa: D205, D209


class Size(NamedTuple):
    """How large a network is."""

    parameters: int
    kernels: int  # the convolution kernels, 1x1 ones too
    in_kernels: int  # parameters in them


@functools.cache
def size(model: str, classes: int) -> Size:
    """Computes the size of a network; running statistics are no parameters."""
    network = without_values(ARCHITECTURES[model].create, classes=classes)
    params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    leaves = jax.tree.leaves(params)
    marked = zip(leaves, jax.tree.leaves(absum_jax.conv_kernels(params)), strict=True)
    kernels = [leaf.size for leaf, is_kernel in marked if is_kernel]
    return Size(sum(leaf.size for leaf in leaves), len(kernels), sum(kernels))


_COLUMNS: tuple[Column[tuple[str, str, int, Size]], ...] = (
    Column("model", "model", lambda row: row[0]),
    Column("dataset", "data set", lambda row: row[1]),
    Column("classes", "classes", lambda row: row[2]),
    Column("parameters", "parameters", lambda row: f"{row[3].parameters:,}"),
    Column("kernels", "convolution kernels", lambda row: row[3].kernels),
    Column(
        "in_kernels",
        "parameters in them (%)",
        lambda row: f"{100 * row[3].in_kernels / row[3].parameters:.2f}",
    ),
)


def run(options: ModelsOptions) -> list[pathlib.Path]:
    """Prints the table; writes nothing."""
    del options
    rows = [
        (model, dataset, info.classes, size(model, info.classes))
        for model, architecture in ARCHITECTURES.items()
        for dataset, info in DATASETS.items()
        if architecture.is_for(info.image_shape)
    ]
    print("\n".join(Table(_COLUMNS, rows).markdown()))
    return []
