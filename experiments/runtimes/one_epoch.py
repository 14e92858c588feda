"""Runtime of an epoch of training, on images of noise."""

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
from experiments.runtimes.log import Conditions, Log, is_enough, is_long
from experiments.runtimes.timing import in_turns, seconds_of
from experiments.training import constraints, optimization, programs, step

# Of the images of a data set that lies on the device.
_MOST_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class Measurement(Conditions):
    """What determines the runtime of some steps of an epoch, and of a clip."""

    method: str
    strength: float | None  # lambda, for SNC sigma
    clip: str | None  # how SNC clips: "polar", "eigh" or "numpy"
    dataset: str
    model: str
    dtype: str  # of convolutions
    steps: int  # those that are timed

    @property
    def recipe(self) -> Recipe:
        """How the paper trains on the data set."""
        return DATASETS[self.dataset].conditions.recipe

    @property
    def epoch_steps(self) -> int:
        """The steps of a whole epoch."""
        return programs.steps_of(
            DATASETS[self.dataset].train_examples, self.recipe.batch_size
        )

    @property
    def is_held(self) -> bool:
        """Whether the data set lies on the device, which crops and flips then."""
        info = DATASETS[self.dataset]
        return info.train_examples * math.prod(info.image_shape) <= _MOST_BYTES

    @property
    def most_steps(self) -> int:
        """How many steps can be timed: of streamed images those up to a clip."""
        return self.epoch_steps if self.is_held else constraints.CLIP_EVERY

    @property
    def examples(self) -> int:
        """Images of noise: as many as the data set's, or as the timed steps take."""
        if self.is_held:
            return DATASETS[self.dataset].train_examples
        return self.steps * self.recipe.batch_size

    @property
    def constrained(self) -> tuple[constraints.Constrained, ...]:
        """What clips within the steps: SNC on the device, if it is its turn at all."""
        if self.clips_timed == 0:
            return ()
        return constraints.constrained([Setting(self.method, 0.0)])

    @property
    def clips_timed(self) -> int:
        """How many clips the timed steps contain."""
        if self.method != "snc":
            return 0
        return self.steps // constraints.CLIP_EVERY

    def epoch_seconds(self, steps_s: float, clip_s: float) -> float:
        """The seconds of an average epoch.

        Clips come every so many steps, those of the epoch to be counted in fractions;
        as many as the timed steps lack are added.

        Args:
          steps_s: seconds of the timed steps.
          clip_s: of one clip by itself.
        """
        scale = self.epoch_steps / self.steps
        seconds = steps_s * scale
        if self.clip is not None:
            due = self.epoch_steps / constraints.CLIP_EVERY
            seconds += (due - self.clips_timed * scale) * clip_s
        return seconds


def noise(measurement: Measurement) -> Split:
    """Images and labels drawn at random, as large as a data set's."""
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
    """Those of one model, whose program has no other regularizer than its own."""
    recipe = measurement.recipe
    setting = NONE
    if measurement.strength is not None:
        method = "snc" if measurement.clip is not None else measurement.method
        setting = Setting(method, measurement.strength)
    h = optimization.hyperparameters([setting], recipe.learning_rate, recipe.momentum)
    return optimization.without_unused(h, [setting])


class _Model:
    """A model that trains as in a sweep of one, further with every call.

    Args:
      measurement: its method and network.
      variables: it starts from.
      data: images and labels, on the device.
    """

    def __init__(self, measurement: Measurement, variables: Any, data: tuple[Any, Any]):
        self._measurement = measurement
        self._classifier = _classifier(measurement)
        self._data = data
        self._h = hyperparameters(measurement)
        one = jax.tree.map(lambda leaf: leaf[0], self._h)
        state = step.TrainState(
            variables,
            optimization.optimizer(one).init(variables.params),
            jnp.zeros([], jnp.int32),
        )
        # A copy: training overwrites its state.
        self._state = jax.tree.map(lambda leaf: jnp.array(leaf)[None, None], state)

    def train(self, steps: int) -> step.TrainState:
        """Takes the first so many steps of an epoch."""
        recipe = self._measurement.recipe
        self._state, _ = programs.train_epoch(
            self._classifier, self._state, jnp.array([0]), self._h, *self._data,
            optimization.schedule(0, recipe.epochs, recipe.milestones),
            batch_size=recipe.batch_size, steps=steps,
            augmented=recipe.augmented and self._measurement.is_held,
            constrained=self._measurement.constrained,
        )  # fmt: skip
        return self._state

    def warm_up(self) -> None:
        """Compiles what `train` needs, and runs it for one step."""
        jax.block_until_ready(self.train(1))

    def clip(self) -> Callable[[], Any]:
        """A function that clips the parameters once, as training does."""
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

    Args:
      measurements: what to measure: one data set, network and number of steps, each
        method once.
      repeats: how many timings of each are enough; fewer are where they took a minute.
      log: has what is measured already, and gets what is measured here as it comes.
    """
    by_method = {measurement.method: measurement for measurement in measurements}
    [_] = {(m.dataset, m.model, m.steps) for m in measurements}
    split = noise(measurements[0])
    data = jax.device_put((split.images, split.labels))
    init = jax.jit(_classifier(measurements[0]).init)
    variables = init(jax.random.key(0))
    models = {
        method: _Model(measurement, variables, data)
        for method, measurement in by_method.items()
    }

    def lacks(kind: str) -> Callable[[str], bool]:
        return lambda method: (
            not is_enough(getattr(log[by_method[method]], kind), repeats)
        )

    training, clips = {}, {}
    for method, measurement in by_method.items():
        if lacks("epoch_s")(method):
            models[method].warm_up()
            training[method] = functools.partial(
                models[method].train, measurement.steps
            )
    for method, seconds in in_turns(training, lacks("epoch_s")):
        log.add(by_method[method], "epoch_s", seconds)
    for method, measurement in by_method.items():
        if measurement.clip is not None and lacks("clip_s")(method):
            clips[method] = models[method].clip()
            warm_up = seconds_of(clips[method])
            # A clip as long as that is not done twice.
            if is_long(warm_up):
                log.add(measurement, "clip_s", warm_up)
    for method, seconds in in_turns(clips, lacks("clip_s")):
        log.add(by_method[method], "clip_s", seconds)
