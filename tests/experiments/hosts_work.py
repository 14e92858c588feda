"""Training and evaluation that one process and two do alike."""

import contextlib
import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from experiments.data import Split
from experiments.evaluation import clean, frequency, gradient, single_fourier
from experiments.evaluation.kept import Images
from experiments.models import Classifier, Variables
from experiments.training import feeds, step, sweep
from experiments.training.config import NONE, Adversary, Recipe, RunConfig, Setting
from experiments.training.runs import Run

EPOCHS = 4


def noise() -> Split:
    """128 images of noise with labels that their brightness tells."""
    rng = np.random.default_rng(0)
    labels = (np.arange(128) % 4).astype(np.int32)
    images = rng.integers(0, 120, (128, 8, 8, 3)) + 40 * labels[:, None, None, None]
    return Split(images.astype(np.uint8), labels)


def _convolve(params, x):
    return jax.lax.conv_general_dilated(
        x, params["conv"]["kernel"], (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _init(key):
    conv, dense = jax.random.split(key)
    params = {
        "conv": {"kernel": 0.3 * jax.random.normal(conv, (3, 3, 3, 8))},
        "norm": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "dense": {"kernel": 0.3 * jax.random.normal(dense, (8, 4))},
    }
    return Variables(params, {"norm": {"mean": jnp.zeros(8), "var": jnp.ones(8)}})


def _forward(params, x, statistics=None):
    """Logits, and the statistics of the batch where none are given."""
    x = _convolve(params, x - 0.5)
    if statistics is None:
        statistics = {"mean": x.mean((0, 1, 2)), "var": x.var((0, 1, 2))}
    x = (x - statistics["mean"]) * jax.lax.rsqrt(statistics["var"] + 1e-5)
    x = jax.nn.relu(x * params["norm"]["scale"] + params["norm"]["bias"])
    return x.mean((1, 2)) @ params["dense"]["kernel"], statistics


def _train_logits(variables, x, key):
    del key
    logits, batch = _forward(variables.params, x)
    old = variables.statistics["norm"]
    return logits, {"norm": jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, old, batch)}


def _logits(variables, x):
    return _forward(variables.params, x, variables.statistics["norm"])[0]


def _uses(image_shape):
    shapes = jax.eval_shape(_init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return absum_jax.conv_input_shapes(_convolve, shapes.params, x)


# A network with batch normalization, as a large one: alone, its batches divided.
LARGE = Classifier(_init, _train_logits, _logits, _uses, is_small=False)

_PLAIN = Recipe(epochs=EPOCHS, batch_size=32, learning_rate=0.1, momentum=0.9)
_ATTACKED = Recipe(
    epochs=EPOCHS, batch_size=32, learning_rate=0.1, momentum=0.9, augmented=True,
    milestones=(2,), decay=1e-3, adversary=Adversary(0.1, 0.05, 2, 0.05),
)  # fmt: skip


def _config(setting, recipe=_PLAIN):
    split = noise()
    return RunConfig(
        dataset="noise", data_fingerprint=split.fingerprint, train_examples=len(split),
        validation_examples=0, method=setting.method, strength=setting.strength, seed=0,
        model="batch_norm", recipe=recipe,
    )  # fmt: skip


# SNC every step, as the 100 of the paper are not reached.
CONFIGS = [
    _config(NONE),
    _config(Setting("absum", 0.1)),
    _config(Setting("snc-every-step", 0.5)),
]
ATTACKED = [_config(NONE, _ATTACKED)]


def train(configs, folder: pathlib.Path) -> list[Run]:
    """Trains what is missing in a folder, saved after 3 and 4 steps of each epoch."""
    with mock.patch.object(feeds, "_CPU_STEPS", 3):
        return sweep.train_missing(
            LARGE, noise(), configs, folder, seconds_between_checkpoints=0
        )


@contextlib.contextmanager
def stopped_in_the_last_model():
    """Stops training of the last of three models within its third epoch."""
    train_part, calls = step.train_part, iter(range(2 * 2 * EPOCHS + 2 * 2 + 1))

    def stopping(*args, **kwargs):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return train_part(*args, **kwargs)

    with (
        mock.patch.object(step, "train_part", stopping),
        contextlib.suppress(KeyboardInterrupt),
    ):
        yield
        raise AssertionError("training was not stopped")


def variables(run: Run) -> Variables:
    return run.variables(jax.eval_shape(_init, jax.random.key(0)))


def evaluations(runs: list[Run]) -> dict:
    """What each kind of attack leaves of the models' accuracy."""
    split = noise()
    images = Images(LARGE, split.take(np.arange(40)), "test")
    steps = gradient.Steps(0.05, 2, 0.1)
    grids = single_fourier.evaluate(images, runs, 0.2, stride=4)
    return {
        "clean": [answer.accuracy for answer in clean.evaluate(images, runs)],
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
