"""Makes runs from records and the files of their parameters, to evaluate them anew."""

import dataclasses
import pathlib

from experiments.data import DatasetName, recorded
from experiments.evaluation import points
from experiments.jobs import locks
from experiments.jobs.errors import UsageError
from experiments.models import build
from experiments.options import check_seeds
from experiments.trained import find_runs, recorded_parameters
from experiments.training import weights
from experiments.training.runs import Run


@dataclasses.dataclass(frozen=True)
class RestoreOptions:
    """Make runs from records and the parameters that record --weights-dir wrote. Other
    commands evaluate them like models trained here, and record adds what they evaluate
    to the records. Finished runs that are there stay as they are."""  # noqa: D205, D209

    dataset: DatasetName = "mnist"
    """Data set whose models are restored."""

    seeds: tuple[int, ...] | None = None
    """Seeds of the models to restore; None is all."""

    records_dir: pathlib.Path = pathlib.Path("results/records")
    """Folder of records."""

    weights_dir: pathlib.Path = pathlib.Path("results/weights")
    """Folder of parameters."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of runs, to which the models are added."""

    def __post_init__(self) -> None:
        if self.seeds is not None:
            check_seeds(self.seeds)
        if recorded.file_of(self.runs_dir, self.dataset).exists():
            raise UsageError(f"--runs-dir {self.runs_dir} is a folder of records.")


def _restore(path: pathlib.Path, record: Run, options: RestoreOptions) -> bool:
    """Restores a model, and returns whether it was not there yet."""
    config = record.config
    folder = options.runs_dir / config.dataset / config.model
    with locks.exclusive(folder, "trains or attacks such models"):
        if Run(options.runs_dir, config).is_complete:
            return False
        data = recorded.load(options.records_dir, config.dataset)
        network = build(config.model, data.mean, data.std, data.classes)
        model = recorded_parameters(path, record, network)
        evaluations = [evaluation.name for evaluation, _ in points.stored(record)]
        record.copy(options.runs_dir, evaluations, model)
    return True


def run(options: RestoreOptions) -> list[pathlib.Path]:
    """Restores the models that have both a record and parameters."""
    found = find_runs(options.records_dir, dataset=options.dataset, seeds=options.seeds)
    records = {str(record.config.path): record for record in found}
    folder = options.weights_dir / options.dataset
    named = {
        name: path
        for path in sorted(folder.glob("*.safetensors"))
        for name in weights.runs(path).values()
        if name in records
    }
    if not named:
        raise UsageError(
            f"{folder} has no parameters of models of these seeds in "
            f"{options.records_dir}."
        )
    new = sum(_restore(path, records[name], options) for name, path in named.items())
    print(
        f"{new} models are restored in {options.runs_dir}, {len(named) - new} were "
        "there already"
    )
    return []
