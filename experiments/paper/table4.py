"""Table 4 of Kanai et al. (2020): adversarially trained models under PGD."""

from typing import NamedTuple


class PublishedPgd(NamedTuple):
    """One method's row, accuracies in percent at `PGD[dataset].test_eps`."""

    strength: float  # lambda, or sigma of SNC; 0 without regularization
    accuracies: tuple[float, ...]


TABLE4: dict[str, dict[str, PublishedPgd]] = {
    "mnist": {
        "absum": PublishedPgd(1e-3, (96.01, 94.92, 93.75, 92.73, 91.59, 90.78)),
        "weight_decay": PublishedPgd(1e-4, (92.97, 91.34, 89.69, 88.02, 87.05, 85.96)),
        "l1": PublishedPgd(1e-4, (93.12, 91.86, 90.60, 89.28, 88.25, 87.06)),
        "snc": PublishedPgd(10, (91.92, 89.43, 86.77, 83.89, 80.24, 76.92)),
        "none": PublishedPgd(0, (91.57, 89.85, 88.43, 86.87, 85.76, 84.86)),
    },
    "fashion_mnist": {
        "absum": PublishedPgd(1e-3, (66.94, 65.92, 65.77, 65.52, 65.24, 64.95)),
        "weight_decay": PublishedPgd(1e-5, (65.38, 63.64, 62.91, 62.60, 62.11, 61.96)),
        "l1": PublishedPgd(1e-6, (66.13, 64.16, 62.95, 62.23, 61.64, 61.66)),
        "snc": PublishedPgd(10, (51.58, 49.33, 47.31, 45.85, 44.86, 44.04)),
        "none": PublishedPgd(0, (63.36, 61.66, 61.15, 60.97, 60.46, 60.26)),
    },
    "cifar10": {
        "absum": PublishedPgd(1e-5, (69.42, 49.39, 30.22, 15.03, 6.54)),
        "weight_decay": PublishedPgd(1e-5, (69.48, 49.38, 29.37, 14.45, 6.06)),
        "l1": PublishedPgd(1e-5, (68.99, 49.45, 29.51, 14.68, 6.31)),
        "snc": PublishedPgd(10, (68.47, 48.74, 29.07, 14.32, 6.04)),
        "none": PublishedPgd(0, (68.46, 48.77, 29.20, 14.50, 6.08)),
    },
    "cifar100": {
        "absum": PublishedPgd(1e-4, (42.19, 27.25, 15.89, 8.47, 4.14)),
        "weight_decay": PublishedPgd(1e-7, (41.14, 27.05, 15.90, 8.26, 4.28)),
        "l1": PublishedPgd(1e-4, (40.75, 26.14, 14.45, 7.61, 3.67)),
        "snc": PublishedPgd(10, (40.90, 26.61, 15.53, 8.32, 4.13)),
        "none": PublishedPgd(0, (40.70, 26.24, 14.85, 7.94, 3.86)),
    },
    # Without regularization the paper gives no numbers for SVHN.
    "svhn_cropped": {
        "absum": PublishedPgd(1e-5, (77.78, 52.74, 27.39, 11.97, 5.50)),
        "weight_decay": PublishedPgd(1e-7, (76.66, 50.40, 25.05, 10.86, 5.04)),
        "l1": PublishedPgd(1e-6, (76.50, 51.49, 27.10, 12.12, 5.63)),
        "snc": PublishedPgd(1, (77.23, 50.80, 25.24, 11.04, 5.03)),
    },
}
