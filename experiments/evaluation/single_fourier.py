"""The Single Fourier Attack on many runs at once, resumable row by row."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from experiments import files
from experiments.data import Split
from experiments.models import Classifier
from experiments.progress import progress
from experiments.training.runs import Run, stacked_params

# The magnitude on 28 x 28 images (P, "Experimental Conditions").
EPS = 80 / 255


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What determines the evaluation of a trained model."""

    split: str  # "test" or "validation"
    examples: int
    data_fingerprint: str
    eps: float = EPS
    scale: str = "linf"

    @property
    def name(self) -> str:
        """The evaluation's file in a run's folder, named after all of this."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return f"single-fourier-{hashlib.sha256(text.encode()).hexdigest()[:8]}.jsonl"


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Clean accuracy of a model and its accuracy under every frequency."""

    images: int
    clean: float
    classes_predicted: int  # of clean images; a model that says 1 is no model
    grid: np.ndarray  # (h, w), accuracy under frequency (l, m)

    @property
    def frequencies(self) -> absum_jax.SingleFourierAccuracy:
        """Mean, minimum, maximum and worst frequency."""
        pairs = np.argwhere(np.ones(self.grid.shape, bool))
        return absum_jax.summarize_frequencies(self.grid, pairs)


def _batch_size(models: int) -> int:
    """Images a forward pass; small on CPU, where larger ones leave the cache."""
    if jax.default_backend() == "cpu":
        return 50
    return max(16, 16384 // models)


@functools.partial(jax.jit, static_argnames=("classifier", "batch_size"))
def _clean(
    classifier: Classifier, params: Any, x: jax.Array, y: jax.Array, *, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Accuracy and number of predicted classes of each of the stacked models."""

    def one(params: Any) -> tuple[jax.Array, jax.Array]:
        logits_fn = jax.tree_util.Partial(classifier.logits, params)
        accuracy = absum_jax.accuracy(logits_fn, x, y, batch_size=batch_size)
        logits = jax.lax.map(
            lambda image: logits_fn(image[None])[0], x, batch_size=batch_size
        )
        predicted = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=bool)
        return accuracy, predicted.any(axis=0).sum()

    return jax.vmap(one)(params)


@functools.partial(jax.jit, static_argnames=("classifier", "scale", "batch_size"))
def _attacked(
    classifier: Classifier, params: Any, x: jax.Array, y: jax.Array, eps: jax.Array,
    frequencies: jax.Array, *, scale: str, batch_size: int,
) -> jax.Array:  # fmt: skip
    """Accuracies (models, F) of stacked models; attacked images are made once."""

    def one(params: Any) -> jax.Array:
        return absum_jax.single_fourier_accuracy(
            jax.tree_util.Partial(classifier.logits, params), x, y, eps,
            frequencies=frequencies, scale=scale, batch_size=batch_size,
        ).accuracy  # fmt: skip

    return jax.vmap(one)(params)


def _read(path: pathlib.Path) -> tuple[dict[str, Any] | None, dict[int, list[float]]]:
    """The line of clean results and the rows that a file holds."""
    lines = files.read_json_lines(path)
    clean = next((line for line in lines if "clean" in line), None)
    return clean, {line["l"]: line["accuracy"] for line in lines if "l" in line}


def evaluate(
    classifier: Classifier,
    runs: Sequence[Run],
    data: Split,
    evaluation: Evaluation,
) -> list[Robustness]:
    """Attacks trained models with every frequency; skips what is on disk already.

    All models go through one compiled program, one row of frequencies a call, and each
    row is written to the folders of the runs as it comes.

    Args:
      classifier: the network of all runs.
      runs: trained models.
      data: the images.
      evaluation: what is evaluated, describing `data`.

    Returns:
      One result for each run.
    """
    height = data.images.shape[1]
    paths = [run.folder / evaluation.name for run in runs]
    rows_done = [frozenset(_read(path)[1]) for path in paths]
    for done in sorted(set(rows_done), key=len):
        if len(done) == height:
            continue
        group = [i for i, rows in enumerate(rows_done) if rows == done]
        _evaluate_rows(
            classifier,
            [runs[i] for i in group],
            [paths[i] for i in group],
            data,
            evaluation,
            [l for l in range(height) if l not in done],
        )
    results = []
    for path in paths:
        clean, rows = _read(path)
        assert clean is not None
        assert len(rows) == height
        grid = np.array([rows[l] for l in range(height)])
        results.append(
            Robustness(
                evaluation.examples, clean["clean"], clean["classes_predicted"], grid
            )
        )
    return results


def _evaluate_rows(
    classifier: Classifier,
    runs: Sequence[Run],
    paths: Sequence[pathlib.Path],
    data: Split,
    evaluation: Evaluation,
    rows: Sequence[int],
) -> None:
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    params = stacked_params(runs, abstract)
    x = jnp.asarray(data.images).astype(jnp.float32) / 255
    y = jnp.asarray(data.labels)
    batch_size = _batch_size(len(runs))
    clean, classes = _clean(classifier, params, x, y, batch_size=batch_size)
    for path, accuracy, predicted in zip(
        paths, np.asarray(clean), np.asarray(classes), strict=True
    ):
        # What a kill cut short is dropped, and what is whole is kept.
        files.write_json_lines(
            path,
            [
                dataclasses.asdict(evaluation),
                {"clean": float(accuracy), "classes_predicted": int(predicted)},
                *(line for line in files.read_json_lines(path) if "l" in line),
            ],
        )
    width = x.shape[2]
    title = f"attacking {len(runs)} models on {evaluation.examples} images"
    with progress(len(rows) * width, title, "pattern") as advance:
        for l in rows:
            frequencies = jnp.stack([jnp.full(width, l), jnp.arange(width)], axis=1)
            accuracies = _attacked(
                classifier, params, x, y, jnp.asarray(evaluation.eps), frequencies,
                scale=evaluation.scale, batch_size=batch_size,
            )  # fmt: skip
            for path, row in zip(paths, np.asarray(accuracies), strict=True):
                files.append_json_line(path, {"l": l, "accuracy": row.tolist()})
            advance(width)
