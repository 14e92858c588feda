"""Measures the runtime of an epoch of training, on images of noise."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import NONE, Recipe, Setting
from experiments.data import DATASETS, Split
from experiments.models import Classifier, build
from experiments.runtimes import numpy_snc
from experiments.runtimes.log import Conditions, Log
from experiments.training import constraints, optimization, programs, step

# Limit for images that are stored on the device.
_MOST_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class Measurement(Conditions):
    """Conditions that determine the runtime of steps of an epoch, and of a clip."""

    method: str
    strength: float | None  # lambda, for SNC sigma
    clip: str | None  # how SNC clips: "polar", "eigh" or "numpy"
    dataset: str
    model: str
    dtype: str  # of convolutions
    steps: int  # timed

    @property
    def recipe(self) -> Recipe:
        """Returns the paper's training on the data set."""
        return DATASETS[self.dataset].conditions.recipe

    @property
    def epoch_steps(self) -> int:
        """Returns the number of steps of a whole epoch."""
        return self.recipe.epoch_steps(DATASETS[self.dataset].train_examples)

    @property
    def is_held(self) -> bool:
        """Checks whether the device stores the data set, and crops and flips."""
        info = DATASETS[self.dataset]
        return info.train_examples * math.prod(info.image_shape) <= _MOST_BYTES

    @property
    def most_steps(self) -> int:
        """Returns the limit of timed steps: for streamed images those up to a clip."""
        return self.epoch_steps if self.is_held else constraints.CLIP_EVERY

    @property
    def examples(self) -> int:
        """Returns the number of images: of the data set, or of the timed steps."""
        if self.is_held:
            return DATASETS[self.dataset].train_examples
        return self.steps * self.recipe.batch_size

    @property
    def constrained(self) -> tuple[constraints.Constrained, ...]:
        """Returns the constraint within the steps: SNC on the device, if they clip."""
        timed = [Setting(self.method, 0.0)] if self.clips_timed else []
        return constraints.constrained(timed)

    @property
    def clips_timed(self) -> int:
        """Returns the number of clips that the timed steps contain."""
        return self.steps // constraints.CLIP_EVERY if self.method == "snc" else 0

    def epoch_seconds(self, steps_s: float, clip_s: float) -> float:
        """Computes the seconds of an average epoch.

        Extrapolates the seconds of the timed steps, and adds the clips that they lack
        (not always a whole number), from the seconds of one separate clip.
        """
        scale = self.epoch_steps / self.steps
        seconds = steps_s * scale
        if self.clip is not None:
            due = self.epoch_steps / constraints.CLIP_EVERY
            seconds += (due - self.clips_timed * scale) * clip_s
        return seconds


def noise(measurement: Measurement) -> Split:
    """Draws images and labels of the shape of a data set at random."""
    info = DATASETS[measurement.dataset]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (measurement.examples, *info.image_shape), np.uint8)
    return Split(images, rng.integers(0, info.classes, measurement.examples, np.int32))


def _classifier(measurement: Measurement) -> Classifier:
    info = DATASETS[measurement.dataset]
    *_, channels = info.image_shape
    mean, std = (0.5,) * channels, (0.25,) * channels
    return build(measurement.model, mean, std, info.classes, measurement.dtype)


def hyperparameters(measurement: Measurement) -> optimization.Hyperparameters:
    """Returns those of one model, without the regularizers of other methods."""
    recipe = measurement.recipe
    method = "snc" if measurement.clip is not None else measurement.method
    strength = measurement.strength
    setting = NONE if strength is None else Setting(method, strength)
    h = optimization.hyperparameters([setting], recipe.learning_rate, recipe.momentum)
    return optimization.without_unused(h, [setting])


class _Model:
    """A model that trains like a sweep of one, further with every call."""

    def __init__(self, measurement: Measurement, variables: Any, data: tuple[Any, Any]):
        self._measurement = measurement
        self._classifier = _classifier(measurement)
        self._data = data
        self._h = hyperparameters(measurement)
        recipe = measurement.recipe
        self._spec = step.TrainSpec(
            self._classifier,
            recipe.batch_size,
            recipe.epoch_steps(measurement.examples),
            augmented=recipe.augmented and measurement.is_held,
            constrained=measurement.constrained,
        )
        one = jax.tree.map(lambda leaf: leaf[0], self._h)
        state = step.TrainState(
            variables,
            optimization.optimizer(one).init(variables.params),
            jnp.zeros([], jnp.int32),
        )
        # A copy: training overwrites its state.
        self._state = jax.tree.map(lambda leaf: jnp.array(leaf)[None, None], state)

    def train(self, steps: int) -> step.TrainState:
        """Takes the first steps of an epoch."""
        recipe = self._measurement.recipe
        at = optimization.schedule(0, recipe.epochs, recipe.milestones)
        self._state, _ = programs.train_steps(
            self._spec, self._state, jnp.array([0]), self._h, *self._data, at, 0, steps
        )
        return self._state

    def clip(self) -> Callable[[], Any]:
        """Returns a function that clips the parameters once, as training does."""
        uses = self._classifier.conv_uses(self._data[0].shape[1:])
        params = jax.tree.map(lambda leaf: leaf[0], self._state.variables.params)
        bounds = {"snc": self._h.strengths["snc"]}
        if self._measurement.clip == "numpy":
            params = jax.tree.map(lambda leaf: leaf[0], params)
            return functools.partial(
                numpy_snc.clip_kernels, params, float(bounds["snc"][0]), uses
            )
        groups = constraints.constrained([Setting("snc", 0.0)])

        @jax.jit
        def clipped(params: Any, bounds: Any, at: jax.Array) -> Any:
            return constraints.constrain(params, bounds, uses, groups, at, at)

        return functools.partial(
            clipped, params, bounds, jnp.asarray(constraints.CLIP_EVERY)
        )


def measure(measurements: Sequence[Measurement], repeats: int, log: Log) -> None:
    """Times steps and clips of several methods in turns, until each has enough.

    Timings of earlier runs in the log count; new ones are added as they are measured.
    All measurements have the same data set, network and number of steps.
    """
    [_] = {(m.dataset, m.model, m.steps) for m in measurements}
    split = noise(measurements[0])
    data = jax.device_put((split.images, split.labels))
    init = jax.jit(_classifier(measurements[0]).init)
    variables = init(jax.random.key(0))
    models = {m: _Model(m, variables, data) for m in measurements}
    training = {
        m: functools.partial(model.train, m.steps)
        for m, model in models.items()
        if log.lacks(m, "epoch_s", repeats)
    }
    for m in training:
        jax.block_until_ready(models[m].train(1))  # compiles it
    log.time_in_turns(training, "epoch_s", repeats)
    clips = {
        m: model.clip()
        for m, model in models.items()
        if m.clip is not None and log.lacks(m, "clip_s", repeats)
    }
    for m, clip in clips.items():
        log.warm_up(m, "clip_s", clip)
    log.time_in_turns(clips, "clip_s", repeats)
