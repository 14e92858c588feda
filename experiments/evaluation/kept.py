"""Evaluations of trained models, kept in each run's folder as they come."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments import files
from experiments.data import Split
from experiments.models import Classifier, Variables
from experiments.progress import progress
from experiments.training import devices
from experiments.training.runs import Run, stacked_variables

# Few, as a CPU has a small cache.
_CPU_BATCH = 50
# Images of a large network a device: enough to fill it.
_LARGE_BATCH = 2048

# What tells the parts of an evaluation apart, such as an eps or a row of frequencies.
Point = int | float | str


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What determines the evaluation of a trained model."""

    attack: str
    split: str  # "test" or "validation"
    examples: int
    data_fingerprint: str
    conditions: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The evaluation's file in a run's folder, named after all of this."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.attack}-{digest}.jsonl"


@dataclasses.dataclass(frozen=True)
class Images:
    """A network, and the images that its models are evaluated on."""

    classifier: Classifier
    split: Split
    name: str  # "test" or "validation"

    def evaluation(self, attack: str, **conditions: Any) -> Evaluation:
        """What an attack on these images under some conditions is called."""
        fingerprint = self.split.fingerprint
        return Evaluation(attack, self.name, len(self.split), fingerprint, conditions)

    @property
    def _devices(self) -> int:
        """How many devices the images divide over."""
        return devices.largest_divisor(len(self.split), len(devices.available()))

    def arrays(self) -> tuple[jax.Array, jax.Array]:
        """Images in [0, 1] and labels, divided over as many devices as share them."""
        shared = np.array(devices.available()[: self._devices])
        mesh = Mesh(shared, ("data",), axis_types=(AxisType.Auto,))
        images, labels = jax.device_put(
            (self.split.images, self.split.labels),
            NamedSharding(mesh, PartitionSpec("data")),
        )
        return images.astype(jnp.float32) / 255, labels

    def variables(self, runs: Sequence[Run]) -> Variables:
        """The networks of several runs, stacked along a new first axis."""
        abstract = jax.eval_shape(self.classifier.init, jax.random.key(0))
        return stacked_variables(runs, abstract)

    def batch_size(self, models: int) -> int:
        """Images a pass through stacked models."""
        if jax.default_backend() == "cpu":
            return _CPU_BATCH
        if self.classifier.is_small:
            return max(16, 16384 // models)
        return _LARGE_BATCH * self._devices

    def groups(self, members: Sequence[int]) -> list[Sequence[int]]:
        """Which models are evaluated in one program."""
        if self.classifier.is_small:
            return [members]
        return [[member] for member in members]


def _read(path: pathlib.Path) -> dict[Point, Any]:
    lines = files.read_json_lines(path)
    return {line["point"]: line["value"] for line in lines if "point" in line}


def kept(
    images: Images,
    runs: Sequence[Run],
    evaluation: Evaluation,
    points: Sequence[Point],
    compute: Callable[[Any, jax.Array, jax.Array, Any], Sequence[Any]],
    unit: str,
) -> list[dict[Any, Any]]:
    """Evaluates trained models at several points; skips what is on disk already.

    All models that miss the same points go through one program, large ones one by one,
    a point a call, and each value is written to the folders of the runs as it comes.

    Args:
      images: what they are evaluated on.
      runs: trained models.
      evaluation: what is evaluated.
      points: the parts of the evaluation.
      compute: from stacked variables, images, labels and a point to a value for each
        model, which JSON holds.
      unit: what a point is called, in the singular.

    Returns:
      The value at each point, of each run.
    """
    paths = [run.folder / evaluation.name for run in runs]
    missing = []
    for path in paths:
        done = _read(path)
        missing.append(tuple(point for point in points if point not in done))
    for group in sorted(set(missing) - {()}, key=len, reverse=True):
        alike = [i for i, points in enumerate(missing) if points == group]
        for members in images.groups(alike):
            for i in members:
                # What a kill cut short is dropped, and what is whole is kept.
                lines = [x for x in files.read_json_lines(paths[i]) if "point" in x]
                header = dataclasses.asdict(evaluation)
                files.write_json_lines(paths[i], [header, *lines])
            variables = images.variables([runs[i] for i in members])
            x, y = images.arrays()
            plural = "model" if len(members) == 1 else "models"
            title = (
                f"{evaluation.attack}: {len(members)} {plural} on "
                f"{evaluation.examples} images"
            )
            with progress(len(group), title, unit) as advance:
                for point in group:
                    values = compute(variables, x, y, point)
                    for i, value in zip(members, values, strict=True):
                        line = {"point": point, "value": value}
                        files.append_json_line(paths[i], line)
                    advance(1)
    results = []
    for path in paths:
        known = _read(path)
        results.append({point: known[point] for point in points})
    return results
