"""Reads and writes weights of PyTorch's networks, as safetensors files.

In PyTorch, `safetensors.torch.save_file(network.state_dict(), "net.safetensors")`
writes such a file, and `network.load_state_dict(safetensors.torch.load_file(path))`
reads one. Pickle files (`.pt`, `.pth`) may run any code when they are read: none is.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from safetensors.flax import load_file
from safetensors.numpy import save

from experiments.jobs import files
from experiments.jobs.errors import UsageError, damage_named
from experiments.models.architectures import ARCHITECTURES
from experiments.models.classifier import Variables, build
from experiments.models.pytorch import converted, to_pytorch

_SAVING = (
    "save the weights in PyTorch with safetensors.torch.save_file(network.state_dict(),"
    ' "net.safetensors")'
)


def save_pytorch(
    path: str | os.PathLike[str], variables: Variables, layout: str
) -> None:
    """Writes parameters and batch statistics to a safetensors file, for PyTorch.

    Args:
      path: the file, which is replaced if it exists.
      variables: variables of a network, such as `load_model(...).variables`.
      layout: the naming scheme, as in `to_pytorch`.

    Raises:
      ValueError: as `to_pytorch`.
    """
    data = save(to_pytorch(variables, layout), {"format": "pt"})
    files.write_atomically(pathlib.Path(path), lambda stream: stream.write(data))


def load_pytorch(
    path: str | os.PathLike[str],
    network: str,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> jax.tree_util.Partial:
    """Reads a network that was trained in PyTorch from a safetensors file.

    Args:
      path: the file, from `safetensors.torch.save_file(network.state_dict(), path)`.
      network: the network, as in `from_pytorch`.
      mean: mean of each channel, by which images were normalized outside the network,
        as by `torchvision.transforms.Normalize(mean, std)`; zeros if they were not.
        pytorch-cifar has (0.4914, 0.4822, 0.4465) and (0.2023, 0.1994, 0.2010),
        torchvision for ImageNet (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225),
        PyTorch's MNIST example (0.1307,) and (0.3081,).
      std: standard deviation of each channel; ones if images were not normalized.

    Returns:
      The function from images NHWC in [0, 1] to logits, in evaluation mode, with the
      normalization inside. It is a pytree, whose `args[0]` are the variables, so that
      functions of `absum_jax` are not recompiled for other weights.

    Raises:
      ValueError: as `from_pytorch`; if the mean or deviation is not one number
        for each channel; or if the file is damaged, or a pickle file, which is not
        read.

    Example:
      >>> import pathlib, tempfile, jax, jax.numpy as jnp
      >>> from experiments.models import build, pytorch_files
      >>> variables = build("small_cnn", (0.1,), (0.3,)).init(jax.random.key(0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "cnn.safetensors"
      ...     pytorch_files.save_pytorch(path, variables, "pytorch-examples")
      ...     logits_fn = pytorch_files.load_pytorch(
      ...         path, "small_cnn", mean=[0.1307], std=[0.3081]
      ...     )
      >>> logits_fn(jnp.zeros((2, 28, 28, 1))).shape
      (2, 10)
    """
    variables, classes = converted(_read(pathlib.Path(path)), network)
    count = ARCHITECTURES[network].channels
    by = _numbers("mean", mean, count), _numbers("std", std, count)
    if min(by[1]) <= 0:
        raise ValueError(f"`std` must be positive, got {std!r}.")
    classifier = build(network, *by, classes)
    return jax.tree_util.Partial(classifier.logits, variables)


def _numbers(name: str, values: Sequence[float], count: int) -> tuple[float, ...]:
    array = np.asarray(values)
    is_number = array.dtype.kind in "iuf" and np.isfinite(array).all()
    if array.shape != (count,) or not is_number:
        raise ValueError(
            f"`{name}` must be a number for each of {count} channels, got {values!r}."
        )
    return tuple(map(float, values))


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Reads the arrays of a safetensors file, and refuses others."""
    with damage_named(path, _SAVING):
        with path.open("rb") as stream:
            start = stream.read(9)
        # A pickle, or an archive of one; the header of safetensors may begin like it.
        if start[8:] != b"{" and start.startswith((b"\x80", b"PK\x03\x04")):
            raise UsageError(
                f"{path} is a pickle file, which may run any code when it is read: "
                f"{_SAVING}."
            )
        return load_file(path)
