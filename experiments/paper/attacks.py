"""The strengths of the paper's attacks (P, conditions, appendix, Tables 2 and 4)."""

from typing import NamedTuple


class Pgd(NamedTuple):
    """PGD on one data set, in training and evaluation, for pixels in [0, 1]."""

    step_size: float
    init_radius: float  # of the uniform random start
    train_eps: float
    train_steps: int
    test_eps: tuple[float, ...]
    test_steps: int
    transfer_eps: float  # Table 2


# The appendix ends its list at 0.4, Table 4 at 0.30.
_GRAY = Pgd(
    step_size=0.01,
    init_radius=2 / 255,
    train_eps=0.3,
    train_steps=40,
    test_eps=(0.05, 0.10, 0.15, 0.20, 0.25, 0.30),
    test_steps=40,
    transfer_eps=0.2,
)
_COLOR = Pgd(
    step_size=2 / 255,
    init_radius=2 / 255,
    train_eps=8 / 255,
    train_steps=7,
    test_eps=(4 / 255, 8 / 255, 12 / 255, 16 / 255, 20 / 255),
    test_steps=100,
    transfer_eps=4 / 255,
)

# The paper has no PGD on ImageNet.
PGD: dict[str, Pgd] = {
    "mnist": _GRAY,
    "fashion_mnist": _GRAY,
    "cifar10": _COLOR,
    "cifar100": _COLOR,
    "svhn_cropped": _COLOR,
}
# Magnitude of the Single Fourier Attack, for pixels in [0, 1].
SINGLE_FOURIER_EPS: dict[str, float] = {
    "mnist": 80 / 255,
    "fashion_mnist": 80 / 255,
    "cifar10": 10 / 255,
    "cifar100": 10 / 255,
    "svhn_cropped": 10 / 255,
    "imagenet2012": 10 / 255,
}
# Its l and m lie in 0..31, or 0..27 on smaller images: on ImageNet too, whose images of
# 224 x 224 have more.
SINGLE_FOURIER_FREQUENCIES = 32
# Figure 7 is drawn for CIFAR-10; its eps is not published, 8/255 is that of training.
SPECTRUM_EPS = 8 / 255
