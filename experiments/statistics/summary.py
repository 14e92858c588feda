"""Accuracy over seeds: mean, standard deviation and binomial interval."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from absum_jax import wilson_interval


def spread(values: np.ndarray) -> np.ndarray:
    """Returns the standard deviation over seeds, the first axis; 0 for a single one."""
    count = len(values)
    deviation: np.ndarray = np.std(values, axis=0, ddof=1 if count > 1 else 0)
    return deviation


@dataclasses.dataclass(frozen=True)
class Statistic:
    """Mean, standard deviation and binomial interval over seeds, as fractions."""

    mean: float
    std: float | None  # over seeds; None for a single one
    low: float  # 95 % Wilson interval of the mean over the test images
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray, images: int) -> "Statistic":
        """Summarizes one accuracy per seed, each on the same number of images."""
        mean = float(np.mean(values))
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(mean, std, *wilson_interval(mean, images))

    def __str__(self) -> str:
        """Formats the accuracy in percent, as `98.64` or `98.64 ± 0.05`."""
        spread = "" if self.std is None else f" ± {100 * self.std:.2f}"
        return f"{100 * self.mean:.2f}{spread}"
