"""Options of figures that compare one model of each method."""

import dataclasses
import pathlib
from collections.abc import Sequence

from experiments.config import Setting
from experiments.methods import LAMBDA, SIGMA
from experiments.options import (
    ModelOptions,
    check_positive,
    check_seeds,
    check_single,
    settings,
)
from experiments.published import TABLE1
from experiments.reporting import naming


@dataclasses.dataclass(frozen=True)
class OneSeedOptions:
    """One model for each method, all of one seed."""

    models: ModelOptions = dataclasses.field(default_factory=ModelOptions)

    strengths: tuple[float, ...] | None = None
    """Strength (lambda) of weight decay, L1 and Absum, exactly one; None is the paper's
    choice of each."""

    max_norms: tuple[float, ...] = (1.0,)
    """Bound on the spectral norm (sigma) of SNC, exactly one."""

    seeds: tuple[int, ...] = (0,)
    """Seed of every model, exactly one."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the figure."""

    def __post_init__(self) -> None:
        if self.strengths is not None:
            check_single("--strengths", self.strengths)
            check_positive("--strengths", self.strengths)
        check_single("--max-norms", self.max_norms)
        check_positive("--max-norms", self.max_norms)
        check_single("--seeds", self.seeds)
        check_seeds(self.seeds)
        self.settings()

    def settings(
        self, methods: Sequence[str] = ("none", "weight_decay", "l1", "absum", "snc")
    ) -> tuple[Setting, ...]:
        """Returns each method at its strength."""
        given = {LAMBDA: self.strengths, SIGMA: self.max_norms}
        return settings(self.models, methods, given, TABLE1)

    @property
    def variant(self) -> str:
        """Returns the strengths that are not the default, for file names."""
        return naming.variant(self, "strengths", "max_norms")
