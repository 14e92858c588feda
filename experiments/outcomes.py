"""The models that a command asks for, trained and attacked."""

import dataclasses
import pathlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from experiments import files
from experiments.data import DATASETS, DataOptions, Dataset, Split, load
from experiments.errors import UsageError
from experiments.evaluation.single_fourier import Evaluation, Robustness, evaluate
from experiments.models import Classifier, build
from experiments.training.config import METHODS, NONE, RunConfig, Setting
from experiments.training.runs import Run
from experiments.training.sweep import train_missing

DatasetName = Literal["mnist5k", "mnist", "fashion_mnist"]
MethodName = Literal["none", "weight_decay", "l1", "absum", "snc"]

PUBLISHED_STRENGTHS = (1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
PUBLISHED_MAX_NORMS = (0.01, 0.1, 0.5, 1.0, 10.0)
PUBLISHED_EPOCHS = 100


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What to train and attack."""

    dataset: DatasetName = "mnist5k"
    """Data set; mnist5k (5,000 MNIST images) ships in a package."""

    methods: tuple[MethodName, ...] = METHODS  # type: ignore[assignment]
    """Regularization methods."""

    strengths: tuple[float, ...] = PUBLISHED_STRENGTHS
    """Regularization strengths (lambda) of weight decay, L1 and Absum."""

    max_norms: tuple[float, ...] = PUBLISHED_MAX_NORMS
    """Bounds on the spectral norm (sigma) of SNC."""

    epochs: int = PUBLISHED_EPOCHS
    """Epochs of training."""

    seeds: tuple[int, ...] = (0,)
    """Seeds; each trains every method and strength once."""

    train_examples: int | None = None
    """Training images, a fixed choice of that many; None is all."""

    test_examples: int | None = None
    """Images to attack, a fixed choice of that many; None is all. With --select-on
    validation also of the validation images, as far as there are as many."""

    select_on: Literal["test", "validation"] = "test"
    """Images that choose the strength: the test set, as in the paper, or a tenth of
    the training set, held out of training."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of trained models."""

    data: DataOptions = dataclasses.field(default_factory=DataOptions)

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        if self.dataset not in DATASETS:
            known = ", ".join(DATASETS)
            raise UsageError(f"--dataset must be one of {known}, got {self.dataset!r}.")
        if self.epochs < 1:
            raise UsageError(f"--epochs must be at least 1, got {self.epochs}.")
        for field in ("methods", "strengths", "max_norms", "seeds"):
            values, option = getattr(self, field), field.replace("_", "-")
            if not values:
                raise UsageError(f"--{option} must name at least one.")
            if len(set(values)) != len(values):
                raise UsageError(f"--{option} names one twice: {values}.")
        unknown = set(self.methods) - set(METHODS)
        if unknown:
            raise UsageError(
                f"--methods must be among {', '.join(METHODS)}, got {sorted(unknown)}."
            )
        if not all(0 < strength < float("inf") for strength in self.strengths):
            raise UsageError(
                f"--strengths must be positive numbers, got {self.strengths}; "
                "train without regularization with --methods none."
            )
        if not all(0 < max_norm < float("inf") for max_norm in self.max_norms):
            raise UsageError(
                f"--max-norms must be positive numbers, got {self.max_norms}."
            )
        if not all(0 <= seed < 2**31 for seed in self.seeds):
            raise UsageError(f"--seeds must lie in 0..2147483647, got {self.seeds}.")

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Every method at every strength; none has no strength, SNC its own."""
        strengths = {NONE.method: (0.0,), "snc": self.max_norms}
        return tuple(
            Setting(method, strength)
            for method in self.methods
            for strength in strengths.get(method, self.strengths)
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A trained model and what it withstands."""

    run: Run
    test: Robustness
    selection: Robustness  # on the images that choose the strength

    @property
    def lowest_loss(self) -> float | None:
        """The lowest training loss of any epoch, without the penalty.

        None for a model that diverged in its first epoch.
        """
        losses = [line["train_loss"] for line in self.run.metrics()]
        return min((loss for loss in losses if loss is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """The model's settings and numbers, accuracies as fractions."""
        frequencies = self.test.frequencies
        return {
            "method": self.run.config.method,
            "strength": self.run.config.strength,
            "seed": self.run.config.seed,
            "run": str(self.run.config.path),
            "avg": float(frequencies.mean),
            "min": float(frequencies.min),
            "max": float(frequencies.max),
            "worst": [int(index) for index in frequencies.worst],
            "clean": self.test.clean,
            "selection_avg": float(self.selection.frequencies.mean),
            "lowest_train_loss": self.lowest_loss,
            "answers_one_class": self.is_constant,
        }

    @property
    def is_constant(self) -> bool:
        """Whether the model answers one class whatever it sees."""
        return self.test.classes_predicted == 1


def _splits(
    options: SweepOptions, dataset: Dataset
) -> tuple[Split, Split, Split | None]:
    train, validation = dataset.train, None
    if options.select_on == "validation":
        train, validation = dataset.with_validation()
        if options.test_examples is not None:
            attacked = min(options.test_examples, len(validation))
            validation = validation.subset(attacked, "--test-examples")
    return (
        train.subset(options.train_examples, "--train-examples"),
        dataset.test.subset(options.test_examples, "--test-examples"),
        validation,
    )


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A sweep's images, network and models."""

    train: Split
    test: Split
    validation: Split | None
    classifier: Classifier
    configs: list[RunConfig]

    @property
    def folder(self) -> pathlib.Path:
        """Of such models, below the runs folder."""
        return pathlib.Path(self.configs[0].dataset, self.configs[0].model)


def _plan(options: SweepOptions, settings: Sequence[Setting]) -> _Plan:
    dataset = load(options.dataset, options.data)
    train, test, validation = _splits(options, dataset)
    fingerprint = train.fingerprint
    configs = [
        RunConfig(
            dataset=options.dataset,
            data_fingerprint=fingerprint,
            train_examples=len(train),
            validation_examples=dataset.validation_examples if validation else 0,
            method=setting.method,
            strength=setting.strength,
            seed=seed,
            epochs=options.epochs,
        )
        for seed in options.seeds
        for setting in settings
    ]
    if len(train) < configs[0].batch_size:
        raise UsageError(
            f"--train-examples must be at least a batch, {configs[0].batch_size}, "
            f"got {len(train)}."
        )
    classifier = build(configs[0].model, dataset.mean, dataset.std)
    return _Plan(train, test, validation, classifier, configs)


def _exclusive(options: SweepOptions, plan: _Plan) -> AbstractContextManager[None]:
    folder = options.runs_dir / plan.folder
    return files.exclusive(folder, "trains or attacks such models")


def trained(
    options: SweepOptions, settings: Sequence[Setting] | None = None
) -> list[Run]:
    """Trains what is missing, and returns it all.

    Args:
      options: what to train, and where it lies.
      settings: other methods and strengths than the options'.

    Raises:
      UsageError: if an option does not fit the data set, or the data is not there.
    """
    plan = _plan(options, settings or options.settings)
    with _exclusive(options, plan):
        return train_missing(
            plan.classifier, plan.train, plan.configs, options.runs_dir
        )


def run_sweep(
    options: SweepOptions, settings: Sequence[Setting] | None = None
) -> list[Outcome]:
    """Trains what is missing, attacks what is not attacked yet, and returns it all.

    Args:
      options: what to train and attack, and where it lies.
      settings: other methods and strengths than the options'.

    Raises:
      UsageError: if an option does not fit the data set, or the data is not there.
    """
    plan = _plan(options, settings or options.settings)

    def attacked(runs: list[Run], split: Split, name: str) -> list[Robustness]:
        evaluation = Evaluation(name, len(split), split.fingerprint)
        return evaluate(plan.classifier, runs, split, evaluation)

    with _exclusive(options, plan):
        runs = train_missing(
            plan.classifier, plan.train, plan.configs, options.runs_dir
        )
        on_test = attacked(runs, plan.test, "test")
        on_selection = on_test
        if plan.validation is not None:
            on_selection = attacked(runs, plan.validation, "validation")
    return [
        Outcome(*outcome) for outcome in zip(runs, on_test, on_selection, strict=True)
    ]
