"""Training and evaluation that one process and two do alike."""

import pathlib
from unittest import mock

import numpy as np
from batch_norm_network import network
from stopping import stopped

from experiments.config import NONE, Adversary, Recipe, RunConfig, Setting
from experiments.data import Split
from experiments.data.streamed import whole
from experiments.evaluation import clean, frequency, gradient, single_fourier
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.studies import snc_constraints  # noqa: F401
from experiments.training import loop, sweep
from experiments.training.runs import Run

EPOCHS = 3


def noise() -> Split:
    """128 images of noise with labels that their brightness tells."""
    rng = np.random.default_rng(0)
    labels = (np.arange(128) % 4).astype(np.int32)
    images = rng.integers(0, 120, (128, 8, 8, 3)) + 40 * labels[:, None, None, None]
    return Split(images.astype(np.uint8), labels)


LARGE, OF_PICTURES = network(4), network(1_000, stride=8)

_PLAIN = Recipe(epochs=EPOCHS, batch_size=32, learning_rate=0.1, momentum=0.9)
_ATTACKED = Recipe(
    epochs=EPOCHS, batch_size=32, learning_rate=0.1, momentum=0.9, augmented=True,
    milestones=(2,), decay=1e-3, adversary=Adversary(0.1, 0.05, 2, 0.05),
)  # fmt: skip


# 30 pictures make three steps an epoch.
_STREAMED = Recipe(epochs=2, batch_size=8, learning_rate=0.1, momentum=0.9)


def _config(setting, recipe=_PLAIN, dataset="noise"):
    return RunConfig(
        dataset=dataset, data_fingerprint="", train_examples=0, validation_examples=0,
        method=setting.method, strength=setting.strength, seed=0, model="batch_norm",
        recipe=recipe,
    )  # fmt: skip


# SNC every step, as the 100 of the paper are not reached.
CONFIGS = [
    _config(Setting("absum", 0.1)),
    _config(Setting("snc-every-step", 0.5)),
]
ATTACKED = [_config(NONE, _ATTACKED)]
PICTURES = [_config(Setting("absum", 0.1), _STREAMED, "pictures")]


def train(configs, folder: pathlib.Path) -> list[Run]:
    """Trains what is missing in a folder, saved after 3 and 4 steps of each epoch."""
    with mock.patch.object(loop, "_CPU_STEPS", 3):
        return sweep.train_missing(
            LARGE, noise(), configs, folder, seconds_between_checkpoints=0
        )


def train_on_pictures(prepared: pathlib.Path, folder: pathlib.Path) -> list[Run]:
    """The same on streamed images, saved after two and three steps of each epoch."""
    with mock.patch.object(loop, "_STREAMED_STEPS", 2):
        return sweep.train_missing(
            OF_PICTURES, whole(prepared, "train", 0), PICTURES, folder,
            seconds_between_checkpoints=0,
        )  # fmt: skip


def stopped_in_the_last_model():
    """Stops training of the second of two models within its last epoch."""
    return stopped(2 * EPOCHS + 2 * 2 + 1)


def stopped_among_pictures():
    """Stops training within the second epoch, at the step after a checkpoint."""
    return stopped(3 + 2, "train_batch")


def evaluations(runs: list[Run]) -> dict:
    """What each kind of attack leaves of the models' accuracy."""
    split = noise()
    images = EvaluationSet(LARGE, split.take(np.arange(40)), "test")
    steps = gradient.Steps(0.05, 2, 0.1)
    grids = single_fourier.evaluate(images, runs, 0.2, stride=4)
    # Of a number that does not divide over two processes, each takes all.
    odd = EvaluationSet(LARGE, split.take(np.arange(41)), "test")
    return {
        "clean": [answer.accuracy for answer in clean.evaluate(images, runs)],
        "odd": [answer.accuracy for answer in clean.evaluate(odd, runs)],
        "single_fourier": [grid.grid.tolist() for grid in grids],
        "noise": single_fourier.noise_grids(images, runs[:1], 0.5).tolist(),
        "pgd": [
            {str(eps): value.accuracy for eps, value in row.items()}
            for row in gradient.white_box(images, runs, [0.05, 0.1], steps)
        ],
        "transferred": gradient.transferred(
            images, runs, runs[:2], 0.1, steps
        ).tolist(),
        "spectra": gradient.power_spectra(images, runs[:1], 0.1, steps).tolist(),
        "low-pass": frequency.evaluate(images, runs, "low-pass", [1, 2]).tolist(),
    }


def evaluations_on_pictures(prepared: pathlib.Path, runs: list[Run]) -> dict:
    """The same on streamed images."""
    images = EvaluationSet(OF_PICTURES, whole(prepared, "validation", 0), "test")
    [robustness] = single_fourier.evaluate(images, runs, 0.2, stride=16)
    return {
        "clean": [robustness.clean, robustness.top5.clean],
        "grid": robustness.grid.tolist(),
        "grid of the five largest": robustness.top5.grid.tolist(),
    }
