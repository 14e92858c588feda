"""Table 1 of Kanai et al. (2020): accuracy under the Single Fourier Attack."""

from typing import NamedTuple


class Published(NamedTuple):
    """One method's cells of a row, accuracies in percent."""

    avg: float  # averaged over all (l, m)
    min: float  # at the worst (l, m)
    clean: float
    strength: float  # selected lambda, or sigma of SNC


TABLE1: dict[str, dict[str, Published]] = {
    "mnist": {
        "absum": Published(98.64, 94.76, 99.14, 1e-2),
        "weight_decay": Published(98.59, 86.84, 99.10, 1e-3),
        "l1": Published(98.48, 78.01, 99.18, 1e-4),
        "snc": Published(98.55, 91.79, 99.10, 10),
    },
    "fashion_mnist": {
        "absum": Published(83.11, 60.12, 88.46, 1e-3),
        "weight_decay": Published(83.09, 47.57, 86.99, 1e-2),
        "l1": Published(82.49, 58.38, 87.05, 1e-3),
        "snc": Published(82.60, 55.36, 87.50, 10),
    },
}
