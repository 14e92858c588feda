"""Evaluations that tell shares of the images, held or streamed.

Streamed images come in chunks. What is kept of each are numbers of images, of which the
shares of all images are made: integers, so that neither the size of the chunks nor
their order matters.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from experiments.evaluation.kept import EvaluationSet, Range, kept
from experiments.evaluation.points import Evaluation, Point, Points
from experiments.jobs.progress import progress
from experiments.training import devices
from experiments.training.runs import Run

# Fractions of some images, or lists and dicts of them, as JSON holds them.
Shares = Any


def _counts(shares: Shares, images: int) -> Any:
    """Numbers of images: exact, as no chunk has 2^23 of them."""
    return jax.tree.map(lambda share: round(share * images), shares)


def gaps(
    done: Iterable[Range], images: int, size: int, shared_by: int = 1
) -> list[Range]:
    """What is left of some images, in ranges of at most a size.

    Args:
      done: disjoint ranges.
      images: how many there are.
      size: at least 1.
      shared_by: devices; what all ranges but those of fewer images divide by.
    """
    left: list[Range] = []
    at = 0
    for start, stop in [*sorted(done), (images, images)]:
        # What does not divide is less than an image a device, in a range of its own.
        whole = start - (start - at) % shared_by
        for end, step in (
            (whole, max(shared_by, size - size % shared_by)),
            (start, size),
        ):
            left += [(i, min(i + step, end)) for i in range(at, end, step)]
            at = max(at, end)
        at = stop
    return left


def kept_shares(
    images: EvaluationSet,
    runs: Sequence[Run],
    evaluation: Evaluation,
    points: Sequence[Point],
    compute: Callable[[Any, jax.Array, jax.Array, Any], Sequence[Shares]],
    unit: str,
    told: Callable[[Shares], Any] = lambda shares: shares,
) -> list[dict[Any, Any]]:
    """Evaluates trained models as `kept` does, chunk by chunk if images are streamed.

    Args:
      images: what they are evaluated on.
      runs: trained models.
      evaluation: what is evaluated.
      points: the parts of the evaluation.
      compute: from stacked variables, images, labels and a point to shares of these
        images for each model.
      unit: what a point is called, in the singular.
      told: from the shares of all images to the value at a point.

    Returns:
      The value at each point, of each run.
    """
    if images.are_streamed:
        return [
            _streamed(images, run, evaluation, points, compute, unit, told)
            for run in runs
        ]

    def values(*arguments: Any) -> list[Any]:
        return [told(shares) for shares in compute(*arguments)]

    return kept(images, runs, evaluation, points, values, unit)


def _streamed(
    images: EvaluationSet, run: Run, evaluation: Evaluation, points: Sequence[Point],
    compute: Callable[..., Sequence[Shares]], unit: str, told: Callable[[Shares], Any],
) -> dict[Any, Any]:  # fmt: skip
    """One model, as large networks are evaluated one by one."""
    own = Points(run, evaluation)
    total = len(images.split)

    def counts() -> dict[Point, dict[Range, Any]]:
        known: dict[Point, dict[Range, Any]] = {point: {} for point in points}
        for line in own.read():
            if line.get("point") in known:
                start, stop = line["images"]
                known[line["point"]][start, stop] = line["counts"]
        return known

    missing: dict[Range, list[Point]] = {}
    for point, done in counts().items():
        for part in gaps(done, total, images.chunk_size, len(devices.available())):
            missing.setdefault(part, []).append(point)
    if missing:
        own.begin()
        variables = images.variables([run])
        parts = sorted(missing)
        title = (
            f"{evaluation.attack}: 1 model on {total} images, {len(parts)} chunks of "
            f"up to {images.chunk_size}"
        )
        with (
            progress(sum(map(len, missing.values())), title, unit) as advance,
            contextlib.closing(images.chunks(parts)) as chunks,
        ):
            for part, (x, y) in zip(parts, chunks, strict=True):
                for point in missing[part]:
                    [shares] = compute(variables, x, y, point)
                    line = {"point": point, "images": part}
                    own.append(line | {"counts": _counts(shares, len(y))})
                    advance(1)
    return {
        point: told(jax.tree.map(lambda *n: sum(n) / total, *of_chunks.values()))
        for point, of_chunks in counts().items()
    }
