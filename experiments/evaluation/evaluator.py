"""Evaluates trained models under attacks, and stores the values in their folders."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax

from experiments.evaluation.attack import ATTACKS, Attack, Models
from experiments.evaluation.evaluation_set import EvaluationSet, Range
from experiments.evaluation.points import Line, Point, Points
from experiments.jobs.progress import progress
from experiments.training import devices
from experiments.training.runs import Run

# Chunks of images, each with the points that lack it.
_Missing = tuple[tuple[Range, tuple[Point, ...]], ...]


def run(
    name: str, images: EvaluationSet, runs: Sequence[Run], **parameters: Any
) -> list[list[Any]]:
    """Evaluates trained models under an attack; computes only what is not on disk.

    For each run, returns the value at each point.

    All models that lack the same points go through one program, large ones one by one,
    a point a call, and each value is written to the folders of the runs at once. For
    streamed images, numbers of images are written for each chunk. They are integers, so
    neither the size of the chunks nor their order affects the value.
    """
    attack, files = _prepared(name, images, runs, parameters)
    missing = [_missing(file, images, attack.points) for file in files]
    # In an order that is the same for all processes, as that of a set is not.
    groups = [group for group in dict.fromkeys(missing) if group]
    for group in sorted(groups, key=_evaluations, reverse=True):
        alike = [i for i, of_run in enumerate(missing) if of_run == group]
        for members in [alike] if images.classifier.is_small else [[i] for i in alike]:
            part = [runs[i] for i in members], [files[i] for i in members]
            _evaluate(name, attack, images, *part, group)
    return [_values(file, images, attack) for file in files]


def on_disk(
    name: str, images: EvaluationSet, runs: Sequence[Run], **parameters: Any
) -> list[list[Any]] | None:
    """Reads what `run` returns; None if it would have to compute anything."""
    attack, files = _prepared(name, images, runs, parameters)
    if any(_missing(file, images, attack.points) for file in files):
        return None
    return [_values(file, images, attack) for file in files]


def _prepared(
    name: str, images: EvaluationSet, runs: Sequence[Run], parameters: dict[str, Any]
) -> tuple[Attack, list[Points]]:
    """Returns an attack, and the file of each run for it."""
    if name not in ATTACKS:
        raise ValueError(f"`name` must be one of {[*ATTACKS]}, got {name!r}.")
    attack = ATTACKS[name](images, **parameters)
    if images.are_streamed and not attack.is_streamable:
        raise ValueError(
            f"`images` must not be streamed, as {name!r} needs all of them at once."
        )
    evaluation = images.evaluation(name, **attack.conditions)
    return attack, [Points(run, evaluation) for run in runs]


def _evaluate(
    name: str, attack: Attack, images: EvaluationSet, runs: Sequence[Run],
    files: Sequence[Points], missing: _Missing,
) -> None:  # fmt: skip
    """Evaluates models that lack the same points, in one program."""
    for file in files:
        file.begin()
    variables = images.variables(runs)
    plural = "model" if len(runs) == 1 else "models"
    title = f"{name}: {len(runs)} {plural} on {len(images.split)} images"
    if images.are_streamed:
        title += f", {len(missing)} chunks of up to {images.chunk_size}"
    with (
        progress(_evaluations(missing), title, attack.unit, compiles=True) as advance,
        contextlib.closing(images.chunks([chunk for chunk, _ in missing])) as chunks,
    ):
        for (chunk, points), (x, y) in zip(missing, chunks, strict=True):
            models = Models(images, variables, x, y)
            for point in points:
                measured = _unstacked(attack.measure(models, point))
                for file, of_model in zip(files, measured, strict=True):
                    line: Line = {"point": point}
                    if images.are_streamed:
                        line |= {"images": chunk, "counts": _counts(of_model, len(y))}
                    else:
                        line |= {"value": attack.value(of_model)}
                    file.append(line)
                advance(1)


def _evaluations(missing: _Missing) -> int:
    return sum(len(points) for _, points in missing)


def _unstacked(measured: Any) -> list[Any]:
    """Converts a tree of arrays (models, ...) to a tree of lists for each model."""
    leaves, structure = jax.tree.flatten(devices.to_numpy(measured))
    models = zip(*(leaf.tolist() for leaf in leaves), strict=True)
    return [jax.tree.unflatten(structure, of_model) for of_model in models]


def _counts(fractions: Any, images: int) -> Any:
    """Converts fractions to numbers of images: exact, as no chunk has 2^23 of them."""
    return jax.tree.map(lambda fraction: round(fraction * images), fractions)


def _read(file: Points, images: EvaluationSet) -> dict[Point, dict[Range, Line]]:
    """Reads the lines of each point by their chunks."""
    lines: dict[Point, dict[Range, Line]] = {}
    for line in file.read():
        start, stop = line.get("images", (0, len(images.split)))
        lines.setdefault(line["point"], {})[start, stop] = line
    return lines


def _missing(file: Points, images: EvaluationSet, points: Sequence[Point]) -> _Missing:
    lines = _read(file, images)
    missing: dict[Range, list[Point]] = {}
    for point in points:
        for chunk in images.missing_chunks(lines.get(point, ())):
            missing.setdefault(chunk, []).append(point)
    return tuple((chunk, tuple(missing[chunk])) for chunk in sorted(missing))


def _values(file: Points, images: EvaluationSet, attack: Attack) -> list[Any]:
    lines, total = _read(file, images), len(images.split)
    of_points = [[*lines[point].values()] for point in attack.points]
    if not images.are_streamed:
        return [line["value"] for line, *_ in of_points]
    counts = [[line["counts"] for line in of_point] for of_point in of_points]
    return [attack.value(jax.tree.map(lambda *n: sum(n) / total, *c)) for c in counts]
