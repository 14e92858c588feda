"""Options that commands share."""

import dataclasses
import itertools
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from experiments.config import NONE, Adversary, Recipe, Setting
from experiments.data import DATASETS, DataOptions, DatasetName, pgd_of, recorded
from experiments.data.loading import validation_examples
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.jobs.joining import HostOptions
from experiments.methods import LAMBDA, METHODS, SIGMA, MethodName, default, listed
from experiments.models import ARCHITECTURES, NetworkName, networks_for, with_width
from experiments.names import suggestion
from experiments.published import (
    SINGLE_FOURIER_FREQUENCIES,
    TABLE1,
    Cell,
    Table,
    published_row,
)
from experiments.training import devices, tensorboard
from experiments.training.constraints import SETTLE_STEPS

WidthName = Literal["1", "1/2", "1/4", "1/8"]
# PGD as in the paper, or what AutoAttack has in its place.
AttackName = Literal["pgd", "auto"]


def shown(values: Sequence[Any] | None) -> str:
    """Returns values as on the command line, for messages; none if there are none."""
    if not values:
        return "none"
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def check_choices(
    option: str, values: Sequence[Any], known: Collection[str] | None = None
) -> None:
    """Refuses an empty list, duplicates, and values that are not known."""
    if not values:
        raise UsageError(f"{option} must name at least one.")
    if len(set(values)) != len(values):
        raise UsageError(f"{option} names one twice: {shown(values)}.")
    for value in values:
        if known is not None and value not in known:
            raise UsageError(
                f"{option} must be among {', '.join(known)}, got "
                f"{value!r}{suggestion(value, known)}"
            )


def check_positive(option: str, values: Sequence[float]) -> None:
    """Refuses an empty list, duplicates, and values that are not positive numbers."""
    check_choices(option, values)
    if not all(0 < value < float("inf") for value in values):
        raise UsageError(f"{option} must be positive numbers, got {shown(values)}.")


def check_at_least_1(option: str, value: int | None) -> None:
    """Refuses numbers below 1; None is the default."""
    if value is not None and value < 1:
        raise UsageError(f"{option} must be at least 1, got {value}.")


def check_single(option: str, values: Sequence[float]) -> None:
    """Refuses any other number of values than one."""
    if len(values) != 1:
        raise UsageError(f"{option} must be exactly one, got {shown(values)}.")


def check_seeds(seeds: Sequence[int], option: str = "--seeds") -> None:
    """Refuses an empty list, duplicates, and values that cannot be seeds."""
    check_choices(option, seeds)
    if not all(0 <= seed < 2**31 for seed in seeds):
        raise UsageError(f"{option} must lie in 0..2147483647, got {shown(seeds)}.")


def pairs(seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs the first seed with the second, and so on; an odd last one has no pair."""
    return list(zip(seeds[::2], seeds[1::2], strict=False))


def both_ways(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Lists each pair in both directions."""
    return [directed for a, b in pairs for directed in ((a, b), (b, a))]


def filled_up(seeds: Sequence[int]) -> tuple[int, ...]:
    """Adds the seed after the largest to an odd number of seeds."""
    if len(seeds) % 2 == 0:
        return tuple(seeds)
    following = (seed % 2**31 for seed in itertools.count(max(seeds) + 1))
    return (*seeds, next(seed for seed in following if seed not in seeds))


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """How training uses the hardware, and what it logs."""

    dtype: Literal["float32", "bfloat16"] | None = None
    """Precision of the convolutions of large networks; None is float32 on a CPU and
    bfloat16 elsewhere. Parameters and statistics are always float32."""

    data_parallel: int | None = None
    """Number of devices that share each batch; the other devices train other models.
    None is 1 for small networks, and for large ones as many as leave no device idle."""

    checkpoint_seconds: int = 10
    """Minimum number of seconds between two checkpoints."""

    diagnostics: bool = False
    """Also log the spectral norm of each convolution, after up to 20 of the epochs.
    Sums of filters are always logged. The trained models are the same."""

    tensorboard: bool = False
    """Also log loss and accuracy for TensorBoard, in the folder tensorboard of each run
    (needs tensorboardX)."""

    def __post_init__(self) -> None:
        if self.checkpoint_seconds < 0:
            raise UsageError(
                "--checkpoint-seconds must not be negative, got "
                f"{self.checkpoint_seconds}."
            )
        if self.tensorboard:
            tensorboard.check_installed()


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which models to train, and where they are stored."""

    dataset: DatasetName = "mnist5k"
    """Data set, or a file of arrays (docs/data.md). mnist5k, 5,000 MNIST images, needs
    no download."""

    network: NetworkName | None = None
    """Network; None is the first that the paper uses on the data set."""

    width: WidthName = "1"
    """Fraction of the channels that each layer of ResNet-18 (for small images) has. 1
    is the paper's network; others are stored by names such as resnet18_eighth."""

    epochs: int | None = None
    """Epochs of training; None is the paper's number. The learning rate drops after the
    same fractions of the training as in the paper."""

    batch_size: int | None = None
    """Images per training step, on all devices together; None is the paper's number."""

    batch_norm_groups: int = 1
    """Number of equal groups of a batch, with separate statistics in batch
    normalization; 1, as in the paper, is the whole batch. Devices whose number divides
    that of groups need not exchange statistics. The model does not depend on the number
    of devices."""

    learning_rate: float | None = None
    """Initial learning rate; None is the paper's, whatever the batch size."""

    train_examples: int | None = None
    """Number of training images, always the same random subset; None is all."""

    runs_dir: pathlib.Path = pathlib.Path("runs")
    """Folder of trained models."""

    data: DataOptions = dataclasses.field(default_factory=DataOptions)

    compute: ComputeOptions = dataclasses.field(default_factory=ComputeOptions)

    hosts: HostOptions = dataclasses.field(default_factory=HostOptions)

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            known = ", ".join(DATASETS)
            raise UsageError(f"--dataset must be one of {known}, got {self.dataset!r}.")
        check_at_least_1("--epochs", self.epochs)
        check_at_least_1("--batch-size", self.batch_size)
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
                f"got {self.network!r}{suggestion(self.network, networks)}"
            )
        if self.width not in (widths := get_args(WidthName)):
            raise UsageError(
                f"--width must be one of {', '.join(widths)}, got {self.width!r}."
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
        groups, batch_size = self.batch_norm_groups, self.recipe().batch_size
        if groups < 1 or batch_size % groups:
            raise UsageError(
                f"--batch-norm-groups must divide the {batch_size} images of a batch "
                f"(--batch-size), got {groups}."
            )
        if groups > 1 and not ARCHITECTURES[self.model].has_batch_norm:
            raise UsageError(
                f"--batch-norm-groups {groups} is for large networks: {self.model} has "
                "no batch normalization."
            )
        if self.compute.dtype == "bfloat16" and self.is_small:
            raise UsageError(
                f"--dtype bfloat16 is for large networks, not {self.model}."
            )

    @property
    def model(self) -> str:
        """Returns the network's name, and that of its folder."""
        return with_width(self.published_network, self.width)

    @property
    def is_small(self) -> bool:
        """Checks whether many models of the network share a program."""
        return ARCHITECTURES[self.model].is_small

    @property
    def published_network(self) -> str:
        """Returns the network of the paper, which has all channels."""
        return self.network or networks_for(self.dataset)[0]

    @property
    def settle_steps(self) -> int | None:
        """Returns how many steps at the end of training have no clip of SNC."""
        return SETTLE_STEPS if ARCHITECTURES[self.model].has_batch_norm else None

    @property
    def has_records(self) -> bool:
        """Checks whether the runs folder has records, which are only read."""
        return files.exists(recorded.file_of(self.runs_dir, self.dataset))

    @property
    def dtype(self) -> str:
        """Returns what convolutions compute in."""
        if self.compute.dtype is not None or self.is_small:
            return self.compute.dtype or "float32"
        return "float32" if devices.on_cpu() else "bfloat16"

    @property
    def has_device_for_each_core(self) -> bool:
        """Checks whether each core of a CPU is to be a device for models of its own."""
        # In one of several processes batches and padding depend on the devices' number.
        return self.is_small and not self.hosts.distributed

    def published(self, table: Table[Cell]) -> dict[str, Cell]:
        """Returns the row of a table of the paper; empty where it has none."""
        return published_row(table, self.dataset, self.published_network)

    def published_strengths(self, table: Table[Any]) -> dict[str, float]:
        """Returns the strength of each method that has one in a table of the paper."""
        cells = self.published(table).items()
        return {name: cell.strength for name, cell in cells if name != NONE.method}

    def published_recipe(self, *, adversarial: bool = False) -> Recipe:
        """Returns how the paper trains."""
        if adversarial:
            return pgd_of(self.dataset).recipe
        return DATASETS[self.dataset].conditions.recipe

    def recipe(self, adversary: Adversary | None = None) -> Recipe:
        """Returns how to train, with the epochs, batch and rate that options change."""
        published = self.published_recipe(adversarial=adversary is not None)
        return dataclasses.replace(
            published.scaled(self.epochs or published.epochs),
            batch_size=self.batch_size or published.batch_size,
            learning_rate=self.learning_rate or published.learning_rate,
            adversary=adversary,
            batch_norm_groups=self.batch_norm_groups,
        )

    def training_steps(
        self, *, adversarial: bool = False, hold_out: bool = False
    ) -> int:
        """Counts the steps of training, on all images but those that are held out."""
        published = self.published_recipe(adversarial=adversarial)
        examples = self.train_examples
        if examples is None:
            examples = DATASETS[self.dataset].train_examples
            examples -= validation_examples(examples) if hold_out else 0
        epoch_steps = examples // (self.batch_size or published.batch_size)
        return (self.epochs or published.epochs) * epoch_steps


def check_models(
    methods: Sequence[str],
    strengths: Sequence[float] | None,
    max_norms: Sequence[float] | None,
    seeds: Sequence[int],
) -> None:
    """Refuses methods, strengths and seeds that models cannot have."""
    check_choices("--methods", methods, listed())
    check_seeds(seeds)
    if strengths is not None:
        if 0 in strengths:
            raise UsageError(
                f"--strengths must be positive numbers, got {shown(strengths)}; train "
                "without regularization with --methods none."
            )
        check_positive("--strengths", strengths)
    if max_norms is not None:
        check_positive("--max-norms", max_norms)


def settings(
    models: ModelOptions,
    methods: Sequence[str],
    strengths: Sequence[float] | None,
    max_norms: Sequence[float] | None,
    table: Table[Any],
) -> tuple[Setting, ...]:
    """Returns each method at the given strengths, or at the one of the paper.

    A method that the paper does not have may have a single strength in its grid.
    """
    published = models.published_strengths(table)
    given = {LAMBDA.option: strengths, SIGMA.option: max_norms}

    def strengths_of(method: str) -> Sequence[float]:
        entry = METHODS[method]
        kind = entry.strength
        if kind is None:
            return (NONE.strength,)
        if (chosen := given[kind.option]) is not None:
            return chosen
        if method not in published:
            if len(grid := entry.grid or kind.grid) == 1:
                return grid
            raise UsageError(
                f"the paper has no {method} of {models.model} on {models.dataset}: "
                f"give {kind.flag}."
            )
        return (published[method],)

    return tuple(Setting(m, strength) for m in methods for strength in strengths_of(m))


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Which models to train and attack."""

    models: ModelOptions = dataclasses.field(default_factory=ModelOptions)

    methods: tuple[MethodName, ...] = dataclasses.field(default_factory=default)
    """Regularization methods."""

    strengths: tuple[float, ...] = LAMBDA.grid
    """Regularization strengths (lambda) of weight decay, L1 and Absum. Of
    fourier-noise, L2 norms of the noise, 4 if none are given."""

    max_norms: tuple[float, ...] = SIGMA.grid
    """Bounds on the spectral norm (sigma) of SNC."""

    seeds: tuple[int, ...] = (0,)
    """Seeds; each trains every method and strength once."""

    test_examples: int | None = None
    """Number of test images to attack, always the same random subset; None is all. With
    --select-on validation, at most as many validation images are attacked too."""

    frequency_stride: int = 1
    """Attack only with every N-th l and m; 1 is all frequencies."""

    select_on: Literal["test", "validation", "paper"] = "test"
    """How to select each method's strength. test: by the accuracy on the test set, as
    in the paper. validation: on a tenth of the training set, which is held out of
    training. paper: the paper's choices; no other strengths are trained."""

    selection_seeds: tuple[int, ...] | None = None
    """Those of --seeds with which every strength is trained and compared; the others
    train only the selected strengths. None is all."""

    def __post_init__(self) -> None:
        check_models(self.methods, self.strengths, self.max_norms, self.seeds)
        check_at_least_1("--frequency-stride", self.frequency_stride)
        if (seeds := self.selection_seeds) is not None:
            check_choices("--selection-seeds", seeds)
            if not set(seeds) <= set(self.seeds):
                raise UsageError(
                    f"--selection-seeds must be among --seeds {shown(self.seeds)}, got "
                    f"{shown(seeds)}."
                )
            if self.select_on == "paper":
                raise UsageError(
                    "--selection-seeds does not go with --select-on paper, which "
                    "compares no strengths."
                )
        self.check_published(TABLE1)

    def check_published(self, table: Table[Any]) -> None:
        """Refuses --select-on paper where a table does not decide on the strengths."""
        if self.select_on != "paper":
            return
        network = f"{self.models.model} on {self.models.dataset}"
        if not (published := self.models.published_strengths(table)):
            raise UsageError(f"--select-on paper: the paper has no {network}.")
        for method in self.methods:
            strengths = self._strengths_of(method, published)
            kind = METHODS[method].strength
            if kind is not None and len(strengths) > 1:
                raise UsageError(
                    f"--select-on paper: the paper has no {method} of {network}; "
                    f"{kind.flag} must be the one to take, got {shown(strengths)}, or "
                    f"leave {method} out of --methods."
                )

    @property
    def trial_seeds(self) -> tuple[int, ...]:
        """Returns the seeds that every strength is trained with."""
        return self.selection_seeds or self.seeds

    def _strengths_of(
        self, method: str, published: Mapping[str, float]
    ) -> tuple[float, ...]:
        entry = METHODS[method]
        if entry.strength is None:
            return (NONE.strength,)
        if self.select_on == "paper" and method in published:
            return (published[method],)
        given: tuple[float, ...] = getattr(self, entry.strength.option)
        is_given = given != getattr(type(self), entry.strength.option)
        return given if is_given else entry.grid or entry.strength.grid

    def settings(self, table: Table[Any] = TABLE1) -> tuple[Setting, ...]:
        """Returns every method at every strength to try.

        The table has the strengths of --select-on paper.
        """
        published = self.models.published_strengths(table)
        return tuple(
            Setting(method, strength)
            for method in self.methods
            for strength in self._strengths_of(method, published)
        )


def check_fourier_noise(sweep: SweepOptions, norm: float) -> None:
    """Refuses norms of Fourier basis noise, and sweeps that it is not for."""
    if not 0 < norm < float("inf"):
        raise UsageError(f"--norm must be a positive number, got {norm}.")
    if (stride := sweep.frequency_stride) != 1:
        raise UsageError(
            "--frequency-stride must be 1 for Fourier basis noise, which has all "
            f"frequencies, got {stride}."
        )
    dataset = sweep.models.dataset
    height, width, _ = DATASETS[dataset].image_shape
    if height > SINGLE_FOURIER_FREQUENCIES:
        raise UsageError(
            f"--dataset {dataset}: Fourier basis noise has all frequencies, of which "
            f"{height} x {width} images have {height * width:,}; table1 attacks with "
            "those of the paper."
        )
