"""Writes and reads trained parameters of several seeds in one safetensors file."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from experiments.jobs import digests, files
from experiments.jobs.errors import damage_named
from experiments.models import Variables

# The file of a run without a checkpoint, in its folder.
OF_A_RUN = "parameters.safetensors"


class Model(NamedTuple):
    """A trained model's parameters, and their origin."""

    seed: int
    run: str  # its folder below the runs folder
    digest: str  # of the parameters, by `digests.of_arrays`
    variables: Variables


def write(path: pathlib.Path, models: Sequence[Model]) -> pathlib.Path:
    """Writes the parameters of models that differ only in their seeds.

    The first axis of each array is that of the models. The metadata has the lists
    `seeds`, `runs` and `digests`, as JSON, and their `checksum`.
    """
    seeds, names, found, variables = zip(*models, strict=True)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *variables)
    lists = {"seeds": seeds, "runs": names, "digests": found}
    content = digests.with_checksum(lists)
    metadata = {name: json.dumps(value) for name, value in content.items()}
    data = save(digests.named(stacked), metadata)
    return files.write_atomically(path, lambda stream: stream.write(data))


def _models(stream: Any) -> list[tuple[int, str, str]]:
    """Reads the seed, run and digest of each model of an open file."""
    metadata = stream.metadata() or {}
    if "seeds" not in metadata:
        raise ValueError("it is not a file that the command record wrote")
    content = {
        name: json.loads(metadata[name])
        for name in ("seeds", "runs", "digests", "checksum")
    }
    if not digests.is_whole(content, may_lack=False):
        raise ValueError("its metadata is not as it was written")
    lists = content["seeds"], content["runs"], content["digests"]
    return list(zip(*lists, strict=True))


def runs(path: pathlib.Path) -> dict[int, str]:
    """Reads the runs in a file that `write` made, by their seeds."""
    with (
        damage_named(path, "restore it"),
        safe_open(path, framework="numpy") as stream,
    ):
        return {seed: run for seed, run, _ in _models(stream)}


def read(path: pathlib.Path, abstract: Variables) -> list[Model]:
    """Reads all models of a file that `write` made, given the shapes of one."""
    with damage_named(path, "restore it"):
        with safe_open(path, framework="numpy") as stream:
            found = _models(stream)
            stacked = [stream.get_tensor(name) for name in digests.named(abstract)]
        structure = jax.tree.structure(abstract)
        models = []
        for i, (seed, run, digest) in enumerate(found):
            variables = jax.tree.unflatten(structure, [leaf[i] for leaf in stacked])
            if digests.of_arrays(variables) != digest:
                raise ValueError(f"seed {seed} is not as it was written")
            models.append(Model(seed, run, digest, variables))
        return models
