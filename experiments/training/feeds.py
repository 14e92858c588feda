"""Where a sweep's steps get their images from."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import Recipe
from experiments.data import Split, StreamedSplit
from experiments.models import Classifier
from experiments.training import devices, programs, step
from experiments.training.constraints import Constrained
from experiments.training.devices import Placement
from experiments.training.optimization import Hyperparameters, Schedule

# Steps from one report of progress to the next, which may also be a checkpoint.
_STREAMED_STEPS = 20
_CPU_STEPS = 10  # of a large network, which takes seconds a step there


class Steps(NamedTuple):
    """How many steps there are."""

    epoch: int
    at_a_time: int  # after which training is told of and can be saved


def steps_of(
    split: Split | StreamedSplit, classifier: Classifier, batch_size: int
) -> Steps:
    """How many steps training on some images has.

    Args:
      split: the images.
      classifier: the network.
      batch_size: images a step.
    """
    epoch = programs.steps_of(len(split), batch_size)
    if not isinstance(split, Split):
        return Steps(epoch, min(_STREAMED_STEPS, epoch))
    if devices.on_cpu() and not classifier.is_small:
        return Steps(epoch, min(_CPU_STEPS, epoch))
    return Steps(epoch, epoch)


class Feed(Protocol):
    """The images of a sweep, in an order that is a function of (seed, step) alone."""

    def train(
        self, state: step.TrainState, h: Hyperparameters, at: Schedule, first: int,
        steps: int,
    ) -> tuple[step.TrainState, step.Metrics]:  # fmt: skip
        """Takes some steps of an epoch.

        Args:
          state: the sweep's state, which is overwritten.
          h: hyperparameters, each field (settings,).
          at: which epoch it is.
          first: the first step in the epoch, from 0; steps are taken in their order.
          steps: how many.

        Returns:
          The state after them, and the sums of their metrics (seeds, settings).
        """


@dataclasses.dataclass(frozen=True)
class _How:
    """How a sweep trains, whatever its images."""

    classifier: Classifier
    recipe: Recipe
    seeds: tuple[int, ...]
    constrained: tuple[Constrained, ...]
    placement: Placement

    @property
    def budget(self) -> dict[str, Any] | None:
        """The adversary's, as data."""
        adversary = self.recipe.adversary
        return None if adversary is None else adversary.as_arrays()

    @property
    def seed_array(self) -> jax.Array:
        """The seeds, on all devices."""
        return devices.put(np.array(self.seeds), self.placement.replicated)


class HeldFeed:
    """Images that are all on the devices, for programs of many steps.

    Args:
      split: the images.
      how: the rest.
    """

    def __init__(self, split: Split, how: _How):
        self._how = how
        self._images, self._labels = devices.put(
            (split.images, split.labels), how.placement.replicated
        )
        self._seeds, self._budget = how.seed_array, how.budget

    def train(
        self, state: step.TrainState, h: Hyperparameters, at: Schedule, first: int,
        steps: int,
    ) -> tuple[step.TrainState, step.Metrics]:  # fmt: skip
        """Takes some steps of an epoch, as `Feed` says."""
        how = self._how
        epoch = programs.steps_of(len(self._labels), how.recipe.batch_size)
        return programs.train_steps(
            how.classifier, state, self._seeds, h, self._images, self._labels, at,
            first, None if steps == epoch else steps, batch_size=how.recipe.batch_size,
            augmented=how.recipe.augmented, constrained=how.constrained,
            budget=self._budget, placement=how.placement,
        )  # fmt: skip


class StreamedFeed:
    """Images that come batch by batch, each process reading its part.

    Args:
      split: the images.
      how: the rest.
      first: the first step of all training that is wanted, from 0.
    """

    def __init__(self, split: StreamedSplit, how: _How, first: int):
        [seed] = how.seeds
        batch_size = how.recipe.batch_size
        self._how = how
        self._seeds, self._budget = how.seed_array, how.budget
        self._epoch_steps = programs.steps_of(len(split), batch_size)
        part = jax.process_index(), jax.process_count()
        self._batches = split.training_batches(seed, batch_size, first, part=part)

    def close(self) -> None:
        """Ends the processes that read."""
        self._batches.close()

    def train(
        self, state: step.TrainState, h: Hyperparameters, at: Schedule, first: int,
        steps: int,
    ) -> tuple[step.TrainState, step.Metrics]:  # fmt: skip
        """Takes some steps of an epoch, as `Feed` says."""
        how = self._how
        taken = []
        for i in range(first, first + steps):
            x, y = (
                jax.make_array_from_process_local_data(how.placement.batch, part)
                for part in next(self._batches)
            )
            state, metrics = programs.train_batch(
                how.classifier, state, self._seeds, h, x, y, at, jnp.asarray(i),
                epoch_steps=self._epoch_steps, constrained=how.constrained,
                budget=self._budget,
            )  # fmt: skip
            taken.append(metrics)
        return state, jax.tree.map(lambda *values: sum(values), *taken)


@contextlib.contextmanager
def opened(
    split: Split | StreamedSplit,
    classifier: Classifier,
    recipe: Recipe,
    seeds: tuple[int, ...],
    constrained: tuple[Constrained, ...],
    placement: Placement,
    first: int,
) -> Iterator[Feed]:
    """The images of a sweep.

    Args:
      split: the images; those that are streamed are for one seed.
      classifier: the network.
      recipe: how it is trained.
      seeds: of the sweep.
      constrained: the settings that have a constraint.
      placement: on which devices.
      first: the first step of all training that is wanted, from 0.
    """
    how = _How(classifier, recipe, seeds, constrained, placement)
    if isinstance(split, Split):
        yield HeldFeed(split, how)
        return
    with contextlib.closing(StreamedFeed(split, how, first)) as feed:
        yield feed
