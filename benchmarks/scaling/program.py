"""Runs in each timed process: some steps of training for each line that it reads.

It prints a line when it is ready, and one after each time.
"""

import sys
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.config import NONE
from experiments.jobs.joining import HostOptions
from experiments.models import Variables, build
from experiments.training import devices, optimization, programs, step

BATCH = 64
SIZE = 16  # of the images of ResNet-18, half of what CIFAR has, to be quick
MODELS = 28  # of a table of the small CNN
SWEEP_STEPS = 10
_LEARNING_RATE, _MOMENTUM = 0.01, 0.5
# When it is compiled, and each time it has been told to go.
READY, DONE = ANSWERS = "ready", "done"


def _noise(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    return images, rng.integers(0, 10, shape[:1]).astype(np.int32)


def resnet_step() -> Callable[[], Any]:
    """A step of CIFAR's ResNet-18, its batch divided over all devices."""
    classifier = build("resnet18", (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
    [placement] = devices.separate_placements(1, BATCH, None)
    h = optimization.hyperparameters((NONE,), _LEARNING_RATE, _MOMENTUM)
    h = optimization.without_unused(h, (NONE,))
    state = step.init_sweep(classifier, jnp.array([0]), h)
    spec = step.TrainSpec(classifier, BATCH, epoch_steps=1, placement=placement)
    state = devices.put(state, placement.state)
    h = devices.put(h, placement.settings)
    seeds = devices.put(np.array([0]), placement.seeds)
    x, y = devices.put(_noise((BATCH, SIZE, SIZE, 3)), placement.batch)

    def run() -> Variables:
        nonlocal state
        state, _ = programs.train_batch(
            spec, state, seeds, h, x, y, optimization.schedule(0, 1), jnp.asarray(0)
        )
        return state.variables

    return run


def sweep_steps() -> Callable[[], Any]:
    """Some steps of many small CNNs in one program, divided over all devices."""
    classifier = build("small_cnn", (0.13,), (0.31,))
    settings = (NONE,) * MODELS
    placement = devices.joint_placement(1, MODELS, BATCH, None)
    spec = step.TrainSpec(classifier, BATCH, SWEEP_STEPS, placement=placement)
    padded = placement.padded(MODELS)
    h = optimization.hyperparameters(settings, _LEARNING_RATE, _MOMENTUM)
    state = step.init_sweep(classifier, jnp.array([0]), h)
    state = devices.put(devices.pad_settings(state, 1, padded), placement.state)
    h = devices.put(devices.pad_settings(h, 0, padded), placement.settings)
    seeds = devices.put(np.array([0]), placement.seeds)
    data = _noise((SWEEP_STEPS * BATCH, 28, 28, 1))
    images, labels = devices.put(data, placement.replicated)

    def run() -> Variables:
        nonlocal state
        state, _ = programs.train_steps(
            spec, state, seeds, h, images, labels, optimization.schedule(0, 1), 0,
            SWEEP_STEPS,
        )  # fmt: skip
        return state.variables

    return run


def main(
    work: Literal["resnet", "sweep"], options: tyro.conf.OmitArgPrefixes[HostOptions]
) -> None:
    """Joins the others, compiles, and waits to be told to go.

    Args:
      work: what is timed.
      options: the other processes.
    """
    options.join()
    run = resnet_step() if work == "resnet" else sweep_steps()
    jax.block_until_ready(run())
    print(READY, flush=True)
    for _ in sys.stdin:
        jax.block_until_ready(run())
        print(DONE, flush=True)


if __name__ == "__main__":
    tyro.cli(main)
