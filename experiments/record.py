"""Records finished models in a small folder, without their parameters.

The command `restore` does the reverse.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax

from experiments.config import RunConfig, Setting
from experiments.data import DATASETS, DataOptions, Dataset, DatasetName, load, recorded
from experiments.data.registry import STREAMED
from experiments.evaluation import points
from experiments.evaluation.points import Evaluation, Line, Points
from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError, damage_named
from experiments.models import ARCHITECTURES, build
from experiments.options import check_seeds
from experiments.trained import find_runs
from experiments.training import weights
from experiments.training.runs import Run


@dataclasses.dataclass(frozen=True)
class RecordOptions:
    """Copy the files of finished models, except for their parameters, to a folder of
    records. Commands that need no parameters accept this folder as --runs-dir."""  # noqa: D205, D209

    dataset: DatasetName = "mnist5k"
    """Data set whose models are copied."""

    seeds: tuple[int, ...] | None = None
    """Seeds of the models to copy; None is all."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of trained models."""

    records_dir: pathlib.Path = pathlib.Path("results/records")
    """Folder of records."""

    weights_dir: pathlib.Path | None = None
    """Folder for the parameters of models trained with the published schedule, as one
    safetensors file per method and strength; None writes none."""

    data: DataOptions = dataclasses.field(default_factory=DataOptions)

    def __post_init__(self) -> None:
        if self.seeds is not None:
            check_seeds(self.seeds)
        folder = self.records_dir / self.dataset
        names = "checkpoint", weights.OF_A_RUN
        if any(any(folder.glob(f"*/*/*/seed-*/{name}")) for name in names) or (
            os.path.realpath(self.records_dir) == os.path.realpath(self.runs_dir)
        ):
            raise UsageError(f"--records-dir {self.records_dir} is a runs folder.")
        if self.dataset == STREAMED:
            raise UsageError(f"--dataset {STREAMED} has no records yet.")


class _Images(NamedTuple):
    """Images that a model was trained or evaluated on."""

    user: pathlib.Path  # the model's folder, or earlier records
    kind: str  # one of `_KINDS`
    examples: int
    fingerprint: str


_KINDS = ("train", "test", "held_in", "held_out")


def _images(run: Run, evaluations: Iterable[Evaluation]) -> Iterator[_Images]:
    """Lists the images that a model was trained and evaluated on."""
    kind = "held_in" if run.config.validation_examples else "train"
    count, fingerprint = run.config.train_examples, run.config.data_fingerprint
    yield _Images(run.folder, kind, count, fingerprint)
    for one in evaluations:
        kind = "test" if one.split == "test" else "held_out"
        yield _Images(run.folder, kind, one.examples, one.data_fingerprint)


def _describe(dataset: Dataset, used: list[_Images], folder: pathlib.Path) -> None:
    """Records which images models were trained and evaluated on; refuses others."""
    path = recorded.file_of(folder, dataset.name)
    known = files.read_json_if_there(path, "restore it")
    if known is not None:
        with damage_named(path, "restore it"):
            if not digests.is_whole(known):
                raise ValueError("it is not as it was written")
            used = used + [
                _Images(path, kind, int(count), fingerprint)
                for kind in _KINDS
                for count, fingerprint in known["splits"][kind]["fingerprints"].items()
            ]
    examples: dict[str, set[int]] = {kind: set() for kind in _KINDS}
    for one in used:
        examples[one.kind].add(one.examples)
    content = recorded.described(dataset, examples)
    for user, kind, count, fingerprint in used:
        if content["splits"][kind]["fingerprints"][str(count)] != fingerprint:
            raise UsageError(
                f"{user} is of other {kind} images ({fingerprint}) than those in "
                "--data-dir."
            )
    files.write_json(path, digests.with_checksum(content))


def _refuse_loss(
    run: Run, stored: Iterable[tuple[Evaluation, list[Line]]], records_dir: pathlib.Path
) -> None:
    """Refuses to replace the files of a record by those of a run with fewer points."""
    for evaluation, lines in stored:
        recorded = Points(run, evaluation, records_dir / run.config.path)
        own = {line["point"] for line in lines}
        lost = [l["point"] for l in recorded.read() if l["point"] not in own]
        if lost:
            raise UsageError(
                f"{recorded.path} has points that {run.folder} lacks, such as "
                f"{lost[0]}: restore the record to an empty folder, and evaluate it "
                "there."
            )


def _is_published(config: RunConfig, dataset: Dataset) -> bool:
    """Checks whether a model is small, with the published schedule on all images."""
    return (
        ARCHITECTURES[config.model].is_small
        and config.recipe == DATASETS[config.dataset].conditions.recipe
        and config.train_examples == len(dataset.train)
    )


def _write_weights(
    dataset: Dataset, runs: Iterable[Run], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Adds the parameters of runs to the files of their methods and strengths."""
    groups: dict[Setting, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.config.setting, []).append(run)
    written = []
    for (method, strength), of_setting in groups.items():
        model = of_setting[0].config.model
        network = build(model, dataset.mean, dataset.std, dataset.classes)
        abstract = jax.eval_shape(network.init, jax.random.key(0))
        path = folder / dataset.name / f"{method}-{strength:g}.safetensors"
        known = weights.read(path, abstract) if path.exists() else []
        models = {model.seed: model for model in known}
        for run in of_setting:
            seed, name = run.config.seed, str(run.config.path)
            if seed in models and models[seed].run != name:
                other = models[seed].run
                raise UsageError(f"{path} has seed {seed} of another run, {other}.")
            variables = run.variables(abstract)
            digest = digests.of_arrays(variables)
            models[seed] = weights.Model(seed, name, digest, variables)
        written.append(weights.write(path, [models[seed] for seed in sorted(models)]))
    return written


def run(options: RecordOptions) -> list[pathlib.Path]:
    """Copies the records and, if a folder is given, the parameters."""
    runs = find_runs(options.runs_dir, dataset=options.dataset, seeds=options.seeds)
    if not runs:
        raise UsageError(
            f"{options.runs_dir / options.dataset} has no finished models of these "
            "seeds."
        )
    stored = {run: [*points.stored(run)] for run in runs}
    for run, of_run in stored.items():
        _refuse_loss(run, of_run, options.records_dir)
    evaluations = {run: [one for one, _ in of_run] for run, of_run in stored.items()}
    dataset = load(options.dataset, options.data)
    used = [one for run in runs for one in _images(run, evaluations[run])]
    _describe(dataset, used, options.records_dir)
    for run in runs:
        run.copy(options.records_dir, [one.name for one in evaluations[run]])
    print(f"{len(runs)} models are recorded in {options.records_dir}")
    if options.weights_dir is None:
        return []
    published = [run for run in runs if _is_published(run.config, dataset)]
    return _write_weights(dataset, published, options.weights_dir)
