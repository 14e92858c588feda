"""Evaluations of trained models, kept in each run's folder as they come."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments import files
from experiments.data import Split
from experiments.models import Classifier
from experiments.progress import progress
from experiments.training.runs import Run, stacked_params

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

    def arrays(self) -> tuple[jax.Array, jax.Array]:
        """Images in [0, 1] and labels, on the device."""
        x = jnp.asarray(self.split.images).astype(jnp.float32) / 255
        return x, jnp.asarray(self.split.labels)

    def params(self, runs: Sequence[Run]) -> Any:
        """The parameters of several runs, stacked along a new first axis."""
        abstract = jax.eval_shape(self.classifier.init, jax.random.key(0))
        return stacked_params(runs, abstract)


def batch_size(models: int) -> int:
    """Images a pass through stacked models; few on a CPU, which has a small cache."""
    if jax.default_backend() == "cpu":
        return 50
    return max(16, 16384 // models)


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

    All models that miss the same points go through one program, a point a call, and
    each value is written to the folders of the runs as it comes.

    Args:
      images: what they are evaluated on.
      runs: trained models.
      evaluation: what is evaluated.
      points: the parts of the evaluation.
      compute: from stacked parameters, images, labels and a point to a value for each
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
        members = [i for i, points in enumerate(missing) if points == group]
        for i in members:
            # What a kill cut short is dropped, and what is whole is kept.
            lines = [x for x in files.read_json_lines(paths[i]) if "point" in x]
            header = dataclasses.asdict(evaluation)
            files.write_json_lines(paths[i], [header, *lines])
        params = images.params([runs[i] for i in members])
        x, y = images.arrays()
        title = (
            f"{evaluation.attack}: {len(members)} models on "
            f"{evaluation.examples} images"
        )
        with progress(len(group), title, unit) as advance:
            for point in group:
                values = compute(params, x, y, point)
                for i, value in zip(members, values, strict=True):
                    line = {"point": point, "value": value}
                    files.append_json_line(paths[i], line)
                advance(1)
    results = []
    for path in paths:
        known = _read(path)
        results.append({point: known[point] for point in points})
    return results
