"""Options that commands share."""

import dataclasses
import itertools
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

from experiments.config import NONE, Adversary, Recipe, Setting
from experiments.data import DATASETS, DataOptions, DatasetName, pgd_of, recorded
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.jobs.joining import HostOptions
from experiments.methods import LAMBDA, METHODS, SIGMA, MethodName, default, listed
from experiments.models import (
    ARCHITECTURES,
    WIDTHS,
    NetworkName,
    networks_for,
    with_width,
)
from experiments.published import TABLE1, TABLE1_TOP5, Published, published_row
from experiments.training import devices, tensorboard

WidthName = Literal["1", "1/2", "1/4", "1/8"]


def check_choices(
    option: str, values: Sequence[Any], known: Collection[str] | None = None
) -> None:
    """Refuses an empty list, duplicates, and values that are not known."""
    if not values:
        raise UsageError(f"{option} must name at least one.")
    if len(set(values)) != len(values):
        raise UsageError(f"{option} names one twice: {values}.")
    if known is not None and (unknown := set(values) - set(known)):
        raise UsageError(
            f"{option} must be among {', '.join(known)}, got {sorted(unknown)}."
        )


def check_positive(option: str, values: Sequence[float]) -> None:
    """Refuses none, twice the same, and what is no positive number."""
    check_choices(option, values)
    if not all(0 < value < float("inf") for value in values):
        raise UsageError(f"{option} must be positive numbers, got {values}.")


def check_seeds(seeds: Sequence[int], option: str = "--seeds") -> None:
    """Refuses none, twice the same, and what no seed can be."""
    check_choices(option, seeds)
    if not all(0 <= seed < 2**31 for seed in seeds):
        raise UsageError(f"{option} must lie in 0..2147483647, got {seeds}.")


def pairs(seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs the first seed with the second, the third with the fourth, and so on.

    No seed is in two pairs, so that pairs are independent; the last of an odd number
    is in none.
    """
    return list(zip(seeds[::2], seeds[1::2], strict=False))


def filled_up(seeds: Sequence[int]) -> tuple[int, ...]:
    """Adds the seed after the largest to an odd number of seeds."""
    if len(seeds) % 2 == 0:
        return tuple(seeds)
    following = (seed % 2**31 for seed in itertools.count(max(seeds) + 1))
    return (*seeds, next(seed for seed in following if seed not in seeds))


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """How models are computed."""

    dtype: Literal["float32", "bfloat16"] | None = None
    """What convolutions of large networks compute in; None is float32 on a CPU and
    bfloat16 elsewhere. Parameters and statistics are float32."""

    data_parallel: int | None = None
    """Devices that share a batch; None is one for small networks, and for large ones as
    many as leave none idle. The other devices train other models."""

    checkpoint_seconds: int = 10
    """The least time between two checkpoints of a training run."""

    diagnostics: bool = False
    """Log the spectral norm of each convolution while training, after up to 20 epochs,
    beside its sums, which are always logged. Trains the same models."""

    tensorboard: bool = False
    """Log loss and accuracy of what is trained for TensorBoard too, in the folder
    tensorboard of each run (needs tensorboardX)."""

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        if self.checkpoint_seconds < 0:
            raise UsageError(
                "--checkpoint-seconds must not be negative, got "
                f"{self.checkpoint_seconds}."
            )
        if self.tensorboard:
            tensorboard.check_installed()


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which models to train, and where they lie."""

    dataset: DatasetName = "mnist5k"
    """Data set, or a file of arrays (docs/data.md); mnist5k (5,000 MNIST images) ships
    in a package."""

    network: NetworkName | None = None
    """Network; None is the paper's first for the data set."""

    width: WidthName = "1"
    """Share of its channels that ResNet-18 on small images has in every layer. 1 is the
    paper's network; the others have their own names, such as resnet18_eighth."""

    epochs: int | None = None
    """Epochs of training; None is the paper's number. The milestones of the learning
    rate keep their shares."""

    batch_size: int | None = None
    """Images a step of training, of all devices together; None is the paper's."""

    batch_norm_groups: int = 1
    """Equal parts of a batch, each with its own statistics in batch normalization; 1 is
    the whole batch, as in the paper. Devices that divide their number need not wait for
    each other in it; the model is the same on any number of devices."""

    learning_rate: float | None = None
    """Learning rate before the first milestone; None is the paper's, whatever the
    batch."""

    train_examples: int | None = None
    """Training images, a fixed choice of that many; None is all."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of trained models."""

    data: DataOptions = dataclasses.field(default_factory=DataOptions)

    compute: ComputeOptions = dataclasses.field(default_factory=ComputeOptions)

    hosts: HostOptions = dataclasses.field(default_factory=HostOptions)

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        if self.dataset not in DATASETS:
            known = ", ".join(DATASETS)
            raise UsageError(f"--dataset must be one of {known}, got {self.dataset!r}.")
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"--epochs must be at least 1, got {self.epochs}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size must be at least 1, got {self.batch_size}.")
        if self.learning_rate is not None:
            check_positive("--learning-rate", (self.learning_rate,))
        networks = networks_for(self.dataset)
        if not networks:
            shape = DATASETS[self.dataset].image_shape
            raise UsageError(
                f"--dataset {self.dataset}: no network is for its images of "
                f"{' x '.join(map(str, shape))}."
            )
        if self.network is not None and self.network not in networks:
            raise UsageError(
                f"--network must be one of {', '.join(networks)} on {self.dataset}, "
                f"got {self.network!r}."
            )
        if self.width not in get_args(WidthName):
            raise UsageError(
                f"--width must be one of 1, {', '.join(WIDTHS)}, got {self.width!r}."
            )
        if self.model not in ARCHITECTURES:
            raise UsageError(
                f"--width {self.width} is for resnet18 alone: {self.published_network} "
                "has no other width."
            )
        if self.hosts.distributed and (self.data.download or self.data.manual_dir):
            raise UsageError(
                "--distributed does not go with --download and --manual-dir: prepare "
                "the data set first, by one process."
            )
        self._check_batch_norm_groups()
        if self.compute.dtype == "bfloat16" and self.model == "small_cnn":
            raise UsageError("--dtype bfloat16 is for large networks, not small_cnn.")

    def _check_batch_norm_groups(self) -> None:
        """Refuses groups that a batch cannot have, or no network needs."""
        groups, batch_size = self.batch_norm_groups, self.recipe().batch_size
        if groups < 1 or batch_size % groups:
            raise UsageError(
                f"--batch-norm-groups must divide the {batch_size} images of a batch "
                f"(--batch-size), got {groups}."
            )
        if groups > 1 and self.model == "small_cnn":
            raise UsageError(
                f"--batch-norm-groups {groups} is for large networks: small_cnn has no "
                "batch normalization."
            )

    @property
    def model(self) -> str:
        """The network's name, and that of its folder."""
        return with_width(self.published_network, self.width)

    @property
    def published_network(self) -> str:
        """The network of the paper, which has all channels."""
        return self.network or self.paper_model

    @property
    def paper_model(self) -> str:
        """The network of the paper's Tables 2 to 4 on this data set."""
        return networks_for(self.dataset)[0]

    @property
    def has_records(self) -> bool:
        """Whether the runs folder has records, which nothing is added to."""
        return files.exists(recorded.file_of(self.runs_dir, self.dataset))

    @property
    def dtype(self) -> str:
        """What convolutions compute in."""
        if self.compute.dtype is not None or self.model == "small_cnn":
            return self.compute.dtype or "float32"
        return "float32" if devices.on_cpu() else "bfloat16"

    @property
    def has_device_for_each_core(self) -> bool:
        """Whether each core of a CPU is to be a device, which trains its own models.

        Not in one of several processes, where batches and padding depend on how many
        devices there are.
        """
        return ARCHITECTURES[self.model].is_small and not self.hosts.distributed

    @property
    def asked_for(self) -> dict[str, Any]:
        """The options that say what is made, not where, how fast or by whom."""
        fields = self.of_all_processes
        for name in ("compute", "division"):
            fields.pop(name, None)
        return fields

    @property
    def of_all_processes(self) -> dict[str, Any]:
        """The options that are the same for all processes of a command."""
        fields = dataclasses.asdict(self)
        for name in ("runs_dir", "results_dir", "data", "hosts"):
            fields.pop(name, None)
        return fields

    def published_recipe(self, *, adversarial: bool = False) -> Recipe:
        """Returns how the paper trains."""
        if adversarial:
            return pgd_of(self.dataset).recipe
        return DATASETS[self.dataset].conditions.recipe

    def recipe(self, adversary: Adversary | None = None) -> Recipe:
        """How to train, in as many epochs as asked for."""
        published = self.published_recipe(adversarial=adversary is not None)
        return dataclasses.replace(
            published.scaled(self.epochs or published.epochs),
            batch_size=self.batch_size or published.batch_size,
            learning_rate=self.learning_rate or published.learning_rate,
            adversary=adversary,
            batch_norm_groups=self.batch_norm_groups,
        )


@dataclasses.dataclass(frozen=True)
class MethodOptions(ModelOptions):
    """What to train."""

    methods: tuple[MethodName, ...] = ("none",)
    """Regularization methods."""

    strengths: tuple[float, ...] | None = None
    """Regularization strengths (lambda) of weight decay, L1 and Absum; None is the one
    that the paper selects."""

    max_norms: tuple[float, ...] | None = None
    """Bounds on the spectral norm (sigma) of SNC; None is the one that the paper
    selects."""

    seeds: tuple[int, ...] = (0,)
    """Seeds; each trains every method and strength once."""

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        check_choices("--methods", self.methods, listed())
        check_seeds(self.seeds)
        if self.strengths is not None:
            if 0 in self.strengths:
                raise UsageError(
                    f"--strengths must be positive numbers, got {self.strengths}; "
                    "train without regularization with --methods none."
                )
            check_positive("--strengths", self.strengths)
        if self.max_norms is not None:
            check_positive("--max-norms", self.max_norms)

    @property
    def published(self) -> dict[str, Published]:
        """The row of Table 1, empty where the paper has none."""
        return published_row(TABLE1, self.dataset, self.published_network)

    @property
    def published_top5(self) -> dict[str, Published]:
        """The row of the five largest logits, empty where the paper has none."""
        return published_row(TABLE1_TOP5, self.dataset, self.published_network)

    @property
    def published_strengths(self) -> dict[str, float]:
        """The strength that the paper selects of each method that has one."""
        return {method: cell.strength for method, cell in self.published.items()}

    def strengths_of(self, method: str) -> tuple[float, ...]:
        """The strengths to try of a method.

        Raises:
          UsageError: if none are given and the paper selects none.
        """
        kind = METHODS[method].strength
        if kind is None:
            return (NONE.strength,)
        given: tuple[float, ...] | None = getattr(self, kind.option)
        if given is not None:
            return given
        if method not in self.published_strengths:
            raise UsageError(
                f"the paper has no {method} of {self.model} on {self.dataset}: "
                f"give {kind.flag}."
            )
        return (self.published_strengths[method],)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Every method at every strength that is to be tried."""
        return tuple(
            Setting(method, strength)
            for method in self.methods
            for strength in self.strengths_of(method)
        )


@dataclasses.dataclass(frozen=True)
class SweepOptions(MethodOptions):
    """What to train and attack."""

    methods: tuple[MethodName, ...] = dataclasses.field(default_factory=default)
    """Regularization methods."""

    strengths: tuple[float, ...] = LAMBDA.grid
    """Regularization strengths (lambda) of weight decay, L1 and Absum."""

    max_norms: tuple[float, ...] = SIGMA.grid
    """Bounds on the spectral norm (sigma) of SNC."""

    test_examples: int | None = None
    """Images to attack, a fixed choice of that many; None is all. With --select-on
    validation also of the validation images, as far as there are as many."""

    frequency_stride: int = 1
    """Attack with every so many-th l and m alone; 1 is all frequencies."""

    select_on: Literal["test", "validation", "paper"] = "test"
    """What chooses the strength: the test set, as in the paper; a tenth of the training
    set, held out of training; or the paper, whose choices alone are then trained."""

    selection_seeds: tuple[int, ...] | None = None
    """Seeds of --seeds that every strength is trained with, and chosen by; the others
    train the chosen strengths alone. None is all."""

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        if self.frequency_stride < 1:
            raise UsageError(
                f"--frequency-stride must be at least 1, got {self.frequency_stride}."
            )
        if self.selection_seeds is not None:
            self._check_selection_seeds(self.selection_seeds)
        if self.select_on == "paper" and not self.published_strengths:
            raise UsageError(
                f"--select-on paper: the paper has no {self.model} on {self.dataset}."
            )
        if self.select_on == "paper":
            for method in self.methods:
                self._check_one_strength(method)

    def _check_selection_seeds(self, seeds: Sequence[int]) -> None:
        """Refuses other seeds than those that are trained, and any without a choice."""
        check_choices("--selection-seeds", seeds)
        if not set(seeds) <= set(self.seeds):
            raise UsageError(
                f"--selection-seeds must be among --seeds, {self.seeds}, got {seeds}."
            )
        if self.select_on == "paper":
            raise UsageError(
                "--selection-seeds does not go with --select-on paper, which compares "
                "no strengths."
            )

    @property
    def trial_seeds(self) -> tuple[int, ...]:
        """The seeds that every strength is trained with."""
        return self.selection_seeds or self.seeds

    def _check_one_strength(self, method: str) -> None:
        """Refuses a method of which the paper selects no strength and several are."""
        strengths, kind = self.strengths_of(method), METHODS[method].strength
        if kind is not None and len(strengths) > 1:
            raise UsageError(
                f"--select-on paper: the paper has no {method} of {self.model} on "
                f"{self.dataset}; {kind.flag} must be the one to take, got "
                f"{strengths}, or leave {method} out of --methods."
            )

    def strengths_of(self, method: str) -> tuple[float, ...]:
        """The strengths to try of a method."""
        published, entry = self.published_strengths, METHODS[method]
        if self.select_on == "paper" and method in published:
            return (published[method],)
        given = super().strengths_of(method)
        if entry.grid and entry.strength and given == entry.strength.grid:
            return entry.grid
        return given
