"""Options of figures that compare one model of each method."""

import dataclasses
import pathlib
from collections.abc import Sequence

from experiments import options
from experiments.config import Setting
from experiments.published import TABLE1
from experiments.reporting import naming


@dataclasses.dataclass(frozen=True)
class OneSeedOptions:
    """One model of each method, all with the same seed."""

    models: options.ModelOptions = dataclasses.field(
        default_factory=options.ModelOptions
    )

    strengths: tuple[float, ...] | None = None
    """Strength (lambda) of weight decay, L1 and Absum, a single value; None is the one
    that the paper selects for each method."""

    max_norms: tuple[float, ...] = (1.0,)
    """Bound on the spectral norm (sigma) of SNC, a single value."""

    seeds: tuple[int, ...] = (0,)
    """Seed of all models, a single value."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the figure."""

    def __post_init__(self) -> None:
        if self.strengths is not None:
            options.check_single("--strengths", self.strengths)
            options.check_positive("--strengths", self.strengths)
        options.check_single("--max-norms", self.max_norms)
        options.check_positive("--max-norms", self.max_norms)
        options.check_single("--seeds", self.seeds)
        options.check_seeds(self.seeds)

    def settings(
        self, methods: Sequence[str] = ("none", "weight_decay", "l1", "absum", "snc")
    ) -> tuple[Setting, ...]:
        """Returns each method at its strength."""
        return options.settings(
            self.models, methods, self.strengths, self.max_norms, TABLE1
        )

    @property
    def variant(self) -> str:
        """Returns the strengths that are not the default, for file names."""
        return naming.variant(self, "strengths", "max_norms")
