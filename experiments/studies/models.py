"""The networks of the paper and their sizes."""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import jax
from flax import nnx

import absum_jax
from absum_jax.markdown import aligned
from experiments.data import DATASETS
from experiments.models.architectures import ARCHITECTURES, without_values


@dataclasses.dataclass(frozen=True)
class ModelsOptions:
    """List the networks with the data sets they are for, how many parameters they have,
    and how many of these regularization acts on."""  # noqa: D205, D209


class Size(NamedTuple):
    """How large a network is."""

    parameters: int
    kernels: int  # the convolution kernels, 1x1 ones too
    in_kernels: int  # parameters in them

    @property
    def share(self) -> float:
        """Of the parameters in convolution kernels."""
        return self.in_kernels / self.parameters


@functools.cache
def size(model: str, classes: int) -> Size:
    """The size of a network; running statistics are no parameters.

    Args:
      model: one of `ARCHITECTURES`.
      classes: how many classes there are.
    """
    network = without_values(ARCHITECTURES[model].create, classes=classes)
    params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    leaves = jax.tree.leaves(params)
    marked = zip(leaves, jax.tree.leaves(absum_jax.conv_kernels(params)), strict=True)
    kernels = [leaf.size for leaf, is_kernel in marked if is_kernel]
    return Size(sum(leaf.size for leaf in leaves), len(kernels), sum(kernels))


def run(options: ModelsOptions) -> list[pathlib.Path]:
    """Prints the table; writes nothing."""
    del options
    header = (
        *("model", "data set", "classes", "parameters"),
        *("convolution kernels", "parameters in them (%)"),
    )
    rows = []
    for model, architecture in ARCHITECTURES.items():
        for dataset, info in DATASETS.items():
            if not architecture.is_for(info.image_shape):
                continue
            its = size(model, info.classes)
            rows.append(
                (
                    *(model, dataset, str(info.classes), f"{its.parameters:,}"),
                    *(str(its.kernels), f"{100 * its.share:.2f}"),
                )
            )
    print("\n".join(aligned(header, rows)))
    return []
