"""Options of figures that compare one model of each method."""

import dataclasses
import pathlib

from experiments.config import NONE, Setting
from experiments.jobs.errors import UsageError
from experiments.options import ModelOptions, check_positive, check_seeds
from experiments.published import TABLE1, Published, published_row
from experiments.reporting import naming


@dataclasses.dataclass(frozen=True)
class OneSeedOptions(ModelOptions):
    """One model for each method, all of one seed."""

    strength: float | None = None
    """Strength (lambda) of weight decay, L1 and Absum; None is the paper's choice of
    each."""

    max_norm: float = 1.0
    """Bound on the spectral norm (sigma) of SNC."""

    seed: int = 0
    """Seed of every model."""

    results_dir: pathlib.Path = pathlib.Path("runs/results")
    """Folder for the figure."""

    def __post_init__(self) -> None:
        """Refuses options out of range."""
        super().__post_init__()
        if self.strength is not None:
            check_positive("--strength", (self.strength,))
        elif not self._published:
            raise UsageError(
                f"the paper has no {self.published_network} on {self.dataset}; give a "
                "--strength."
            )
        check_positive("--max-norm", (self.max_norm,))
        check_seeds((self.seed,))

    @property
    def _published(self) -> dict[str, Published]:
        return published_row(TABLE1, self.dataset, self.published_network)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Returns no regularization, and each method at its strength."""
        methods = ("weight_decay", "l1", "absum")
        if self.strength is None:
            published = self._published
            regularized = [Setting(name, published[name].strength) for name in methods]
        else:
            regularized = [Setting(name, self.strength) for name in methods]
        return (NONE, *regularized, Setting("snc", self.max_norm))

    @property
    def variant(self) -> str:
        """Returns the strengths that are not the default, for file names."""
        return naming.variant(self, "strength", "max_norm")
