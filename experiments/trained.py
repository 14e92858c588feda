"""Finds trained models and loads them, for notebooks and programs of one's own."""

import dataclasses
import os
import pathlib
from collections.abc import Collection
from glob import escape
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import RunConfig
from experiments.data import DataOptions, Dataset, load, recorded
from experiments.evaluation import points
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.jobs import files
from experiments.jobs.errors import UsageError, damage_named
from experiments.models import ARCHITECTURES, Classifier, Variables, build
from experiments.training import weights
from experiments.training.runs import Run


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model with its records, from :func:`load_model`."""

    run: Run
    dataset: Dataset  # that it was trained on; from records, without images
    classifier: Classifier  # its network, as pure functions of variables
    variables: Variables  # params and batch_stats, nested dicts of arrays

    @property
    def config(self) -> RunConfig:
        """Returns the data set, network, method, strength and recipe of training."""
        return self.run.config

    @property
    def logits_fn(self) -> jax.tree_util.Partial:
        """Returns the function from NHWC images to logits, in evaluation mode.

        It takes images in [0, 1] and standardizes them itself. It is a pytree, so that
        functions of `absum_jax` are not recompiled for other models of the same
        network.
        """
        return jax.tree_util.Partial(self.classifier.logits, self.variables)

    def metrics(self) -> list[dict[str, Any]]:
        """Reads loss and accuracy on the training images, a row for each epoch."""
        return self.run.metrics()

    def evaluations(self) -> list[dict[str, Any]]:
        """Reads what was evaluated, a row for each point of each evaluation.

        A row has the columns `attack`, `split`, `examples`, those of the attack's
        conditions (such as `eps`), `point` (such as an eps or a row of frequencies) and
        `value`, or, if the value has names, a column for each.
        """
        rows = []
        for evaluation, lines in points.stored(self.run):
            which = {
                "attack": evaluation.attack,
                "split": evaluation.split,
                "examples": evaluation.examples,
                **evaluation.conditions,
            }
            for line in lines:
                value = line.pop("value", None)
                named = value if isinstance(value, dict) else {"value": value}
                rows.append(which | line | named)
        return rows

    def test_images(self, examples: int | None = None) -> tuple[jax.Array, jax.Array]:
        """Returns test images (N, height, width, channels) in [0, 1] and labels (N,).

        Args:
          examples: number of images, always the same subset; None is all.

        Raises:
          UsageError: if `examples` is out of range, or the data set has no images, as
            it is from records.
        """
        if isinstance(self.dataset, recorded.RecordedDataset):
            raise UsageError(
                "records have no images: give `load_model` where the data set is, such "
                "as data=DataOptions()."
            )
        chosen = self.dataset.test.subset(examples, "`examples`")
        return EvaluationSet(self.classifier, chosen, "test").arrays()

    def __repr__(self) -> str:
        """Returns a line without arrays."""
        count = sum(leaf.size for leaf in jax.tree.leaves(self.variables.params))
        return f"TrainedModel({self.config.path.as_posix()}, {count:,} parameters)"


def _finished(folder: pathlib.Path, runs_dir: pathlib.Path) -> Run | None:
    """Returns the run in a folder, None before its end; refuses a damaged one."""
    if not (folder / "provenance.json").exists():
        return None
    config, fix = folder / "config.json", f"remove or move the folder {folder}"
    fields = files.read_json(config, fix)
    with damage_named(config, fix):
        run = Run(runs_dir, RunConfig.from_dict(fields))
    if run.folder != folder:
        raise UsageError(
            f"{folder}/config.json is that of {run.config.path}: a damaged file, or a "
            "copy of a folder. Remove or move the folder."
        )
    return run if run.is_complete else None


def find_runs(
    runs_dir: str | os.PathLike[str] = "runs",
    *,
    dataset: str | None = None,
    network: str | None = None,
    method: str | None = None,
    strength: float | None = None,
    seeds: Collection[int] | None = None,
) -> list[Run]:
    """Finds finished runs in a folder of runs or records.

    Args:
      runs_dir: the folder, as in the option `--runs-dir` of commands.
      dataset: the name of the data set; None is all, here and below.
      network: the name of the network.
      method: the name of the method.
      strength: lambda or sigma, and 0 for the method `none`.
      seeds: the seeds.

    Returns:
      The runs, sorted by their folders. `run.config` is what was trained;
      `run.metrics()` has a row for each epoch; :func:`load_model` loads one.

    Raises:
      UsageError: if one of them is damaged, or `seeds` is not a collection.

    Example:
      >>> import experiments
      >>> runs = experiments.find_runs(
      ...     "results/records", dataset="mnist", method="absum", seeds=[11, 12]
      ... )
      >>> [(run.config.strength, run.config.seed) for run in runs]
      [(0.01, 11), (0.01, 12)]
    """
    if not isinstance(seeds, Collection | None) or isinstance(seeds, str):
        raise UsageError(f"`seeds` must be several, such as [11, 12], got {seeds!r}.")
    runs_dir = pathlib.Path(runs_dir)
    parts = [dataset, network, method, None if strength is None else f"{strength:g}"]
    pattern = "/".join("*" if part is None else escape(part) for part in parts)
    chosen = None if seeds is None else {str(seed) for seed in seeds}
    found = [
        _finished(folder, runs_dir)
        for folder in sorted(runs_dir.glob(f"{pattern}/seed-*"))
        if chosen is None or folder.name.split("-")[1] in chosen
    ]
    return [run for run in found if run is not None]


def _loaded(run: Run, data: DataOptions | Dataset | None) -> tuple[Dataset, Classifier]:
    """Returns the data set of a run and its network; refuses other data sets."""
    config = run.config
    if not isinstance(data, DataOptions | Dataset | None):
        raise UsageError(
            "`data` must be such as DataOptions(data_dir=...), a loaded data set, or "
            f"None, got {data!r}."
        )
    if isinstance(data, Dataset):
        dataset = data
    elif data is None and run.is_record:
        dataset = recorded.load(run.runs_dir, config.dataset)
    else:
        dataset = load(config.dataset, data)
    held_in = dataset.with_validation()[0] if config.validation_examples else None
    images = (held_in or dataset.train).subset(config.train_examples, "train_examples")
    if images.fingerprint != config.data_fingerprint:
        raise UsageError(
            f"{run.folder} was trained on other images ({config.data_fingerprint}) "
            f"than those of `data` ({images.fingerprint}), by which it standardizes."
        )
    if config.model not in ARCHITECTURES:
        raise UsageError(
            f"{run.folder}: there is no network {config.model!r}; `register` it first."
        )
    classifier = build(
        config.model, dataset.mean, dataset.std, dataset.classes, config.dtype
    )
    return dataset, classifier


def recorded_parameters(
    path: pathlib.Path, run: Run, classifier: Classifier
) -> weights.Model:
    """Reads the parameters of a run from a file of weights that names it.

    Raises:
      UsageError: if the file is damaged, or has other parameters than the run.
    """
    models = weights.read(path, jax.eval_shape(classifier.init, jax.random.key(0)))
    model = next(model for model in models if model.seed == run.config.seed)
    if run.parameters_digest not in (None, model.digest):
        raise UsageError(f"{path} has other parameters than the run {run.folder}.")
    return model


def _from_weights(
    path: pathlib.Path, seed: int | None, runs_dir: pathlib.Path,
    data: DataOptions | Dataset | None,
) -> TrainedModel:  # fmt: skip
    """Loads a model from a file of weights, and its records from `runs_dir`."""
    named = weights.runs(path)
    if seed is None and len(named) == 1:
        [seed] = named
    if seed not in named:
        raise UsageError(f"`seed` must be one of {[*named]} in {path}, got {seed!r}.")
    run = _finished(runs_dir / named[seed], runs_dir)
    if run is None:
        raise UsageError(
            f"{runs_dir / named[seed]} lacks the records of {path}: give `runs_dir`, "
            "the folder of records or runs."
        )
    dataset, classifier = _loaded(run, data)
    model = recorded_parameters(path, run, classifier)
    variables = jax.tree.map(jnp.asarray, model.variables)
    return TrainedModel(run, dataset, classifier, variables)


def load_model(
    source: Run | str | os.PathLike[str],
    *,
    seed: int | None = None,
    runs_dir: str | os.PathLike[str] | None = None,
    data: DataOptions | Dataset | None = None,
) -> TrainedModel:
    """Loads a trained model: from the folder of a run, or from a file of weights.

    Args:
      source: the folder of a finished run
        (`runs/<data set>/<network>/<method>/<strength>/seed-<seed>-<hash>`); a run of
        :func:`find_runs`; or a safetensors file that the command `record` wrote
        (`results/weights/<data set>/<method>-<strength>.safetensors`).
      seed: which model of a file of weights; None if it has only one.
      runs_dir: the folder with the records or runs of a file of weights; None is the
        folder `records` beside that of weights.
      data: where the data set is, or the loaded data set, by whose mean and deviation
        the model standardizes; None is the default folder, or the records, which have
        no images.

    Returns:
      The :class:`TrainedModel`: `logits_fn`, `variables`, `config`, and the rows
      `metrics()` and `evaluations()`, which `pandas.DataFrame` accepts.

    Raises:
      UsageError: a `ValueError`, if the run is not finished, is damaged, is a record
        without parameters, was trained on other data or with a network that is not
        registered; or for other arguments.

    Example:
      >>> import experiments, jax.numpy as jnp
      >>> path = "results/weights/mnist/absum-0.01.safetensors"
      >>> model = experiments.load_model(path, seed=11)
      >>> model
      TrainedModel(mnist/small_cnn/absum/0.01/seed-11-e626ae1f, 21,840 parameters)
      >>> model.logits_fn(jnp.zeros((2, 28, 28, 1))).shape
      (2, 10)
      >>> model.metrics()[-1]["epoch"]
      100
      >>> clean = [row for row in model.evaluations() if row["attack"] == "clean"]
      >>> [(row["examples"], round(row["accuracy"], 3)) for row in clean]
      [(10000, 0.99), (1000, 0.994), (200, 0.995)]
    """
    if not isinstance(source, Run) and pathlib.Path(source).suffix == ".safetensors":
        path = pathlib.Path(source)
        beside = path.absolute().parent.parent.parent / "records"
        records = beside if runs_dir is None else pathlib.Path(runs_dir)
        return _from_weights(path, seed, records, data)
    run = source if isinstance(source, Run) else _run_in(pathlib.Path(source))
    for name, value in (("seed", seed), ("runs_dir", runs_dir)):
        if value is not None:
            raise UsageError(f"`{name}` is for files of weights, got {value}.")
    if run.is_record:
        raise UsageError(
            f"{run.folder} is a record, without parameters: give its file of weights, "
            "or the run that it was made from."
        )
    dataset, classifier = _loaded(run, data)
    loaded = run.variables(jax.eval_shape(classifier.init, jax.random.key(0)))
    variables = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), loaded)
    return TrainedModel(run, dataset, classifier, variables)


def _run_in(folder: pathlib.Path) -> Run:
    whole = folder.absolute()
    run = _finished(whole, whole.parents[4]) if len(whole.parents) > 4 else None
    if run is None:
        raise UsageError(f"{folder} is not the folder of a finished run.")
    return run
