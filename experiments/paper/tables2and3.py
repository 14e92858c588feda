"""Tables 2 and 3 of Kanai et al. (2020), accuracies in percent."""

_METHODS = ("absum", "weight_decay", "l1", "snc", "none")


def _row(*accuracies: float) -> dict[str, float]:
    return dict(zip(_METHODS, accuracies, strict=True))


# Under PGD on a substitute model, at `PGD[dataset].transfer_eps`.
TABLE2: dict[str, dict[str, float]] = {
    "mnist": _row(76.34, 48.94, 66.48, 71.30, 65.87),
    "fashion_mnist": _row(30.08, 3.46, 18.35, 21.31, 19.74),
    "cifar10": _row(26.29, 18.48, 15.66, 48.85, 15.85),
    "cifar100": _row(18.57, 17.40, 16.68, 36.57, 16.68),
    "svhn_cropped": _row(49.11, 40.49, 52.79, 46.36, 54.39),
}

# Under the High-Frequency attack, "half of the image width".
TABLE3: dict[str, dict[str, float]] = {
    "mnist": _row(99.00, 98.98, 99.10, 98.97, 99.01),
    "fashion_mnist": _row(84.15, 83.91, 82.56, 84.30, 84.03),
    "cifar10": _row(64.51, 52.82, 47.01, 82.11, 47.46),
    "cifar100": _row(41.44, 36.15, 31.53, 61.22, 31.80),
    "svhn_cropped": _row(52.95, 28.11, 17.03, 18.75, 11.13),
}
