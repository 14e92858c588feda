"""A data set and a network, with exclusive access to their folder of runs."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.config import Adversary, RunConfig, Setting
from experiments.data import Dataset, Split, StreamedSplit, load, recorded
from experiments.evaluation.evaluation_set import EvaluationSet
from experiments.jobs import locks, processes
from experiments.jobs.errors import UsageError
from experiments.jobs.parts import Part
from experiments.methods import METHODS
from experiments.models import ARCHITECTURES, Classifier, build
from experiments.options import ModelOptions
from experiments.training.runs import Run
from experiments.training.sweep import train_missing


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The network and the data on which models are trained and evaluated.

    While it is open, only other parts of the same command may train or attack models of
    this data set and network in the same runs folder.
    """

    options: ModelOptions
    dataset: Dataset
    classifier: Classifier
    training: Split | StreamedSplit
    test: EvaluationSet
    selection: EvaluationSet  # chooses strengths: the test images, or held-out ones
    part: Part | None = None  # of all models; None is all of them

    @property
    def validation_examples(self) -> int:
        """Returns the number of training images that are held out."""
        is_held_out = self.selection is not self.test
        return self.dataset.validation_examples if is_held_out else 0

    def runs(
        self,
        settings: Sequence[Setting],
        seeds: Sequence[int],
        adversary: Adversary | None = None,
    ) -> list[Run]:
        """Lists the models of this part, seed by seed, whether trained or not."""
        options, recipe = self.options, self.options.recipe(adversary)
        architecture = ARCHITECTURES[options.model]
        configs = [
            RunConfig(
                dataset=options.dataset,
                data_fingerprint=self.training.fingerprint,
                train_examples=len(self.training),
                validation_examples=self.validation_examples,
                method=setting.method,
                strength=setting.strength,
                seed=seed,
                model=options.model,
                recipe=recipe,
                dtype=options.dtype,
                max_pool_ties=architecture.max_pool_ties,
                settle_steps=options.settle_steps
                if METHODS[setting.method].constraint
                else None,
            )
            for seed in seeds
            for setting in settings
        ]
        if self.part is not None:
            members = self.part.members(
                len(seeds), len(settings), together=self.classifier.is_small
            )
            configs = [configs[i] for i in members]
        return [Run(options.runs_dir, config) for config in configs]

    def train(
        self,
        settings: Sequence[Setting],
        seeds: Sequence[int],
        adversary: Adversary | None = None,
    ) -> list[Run]:
        """Trains the models of `runs` that are not complete, and returns all."""
        options, recipe = self.options, self.options.recipe(adversary)
        if len(self.training) < recipe.batch_size:
            raise UsageError(
                f"--train-examples must be at least a batch, {recipe.batch_size} "
                f"(--batch-size), got {len(self.training)}."
            )
        return train_missing(
            self.classifier,
            self.training,
            [run.config for run in self.runs(settings, seeds, adversary)],
            options.runs_dir,
            data_parallel=options.compute.data_parallel,
            seconds_between_checkpoints=options.compute.checkpoint_seconds,
            spectral_norms=options.compute.diagnostics,
            tensorboard=options.compute.tensorboard,
        )


def _lock(
    options: ModelOptions, part: Part | None, whole: Mapping[str, Any] | None
) -> contextlib.AbstractContextManager[None]:
    folder = options.runs_dir / options.dataset / options.model
    activity = "trains or attacks such models"
    if part is None:
        return locks.exclusive(folder, activity)
    # Parts of another list of models may contain the same models.
    command = [options.dtype, whole, part.parts]
    digest = hashlib.sha256(json.dumps(command, sort_keys=True).encode()).hexdigest()
    return locks.side_by_side(
        folder, digest[:12], f"{part.number}-of-{part.parts}", activity
    )


def loaded(
    options: ModelOptions,
    *,
    test_examples: int | None = None,
    hold_out: bool = False,
    part: Part | None = None,
) -> Workspace:
    """Loads the network and the data that options name, without a lock.

    With `hold_out`, strengths are chosen on a part of the training set.
    """
    name = options.dataset
    if options.has_records:  # then there are no images
        dataset = recorded.load(options.runs_dir, name)
    else:
        dataset = processes.on_all_processes(lambda: load(name, options.data))
        fingerprints = [dataset.train.fingerprint, dataset.test.fingerprint]
        processes.check_equal({f"{name} in --data-dir (by fingerprints)": fingerprints})
    classifier = build(
        options.model, dataset.mean, dataset.std, dataset.classes, options.dtype,
        options.batch_norm_groups,
    )  # fmt: skip
    training = dataset.train
    shown = dataset.test.subset(test_examples, "--test-examples")
    test = EvaluationSet(classifier, shown, "test")
    selection = test
    if hold_out:
        training, held_out = dataset.with_validation()
        if test_examples is not None:
            attacked = min(test_examples, len(held_out))
            held_out = held_out.subset(attacked, "--test-examples")
        selection = EvaluationSet(classifier, held_out, "validation")
    training = training.subset(options.train_examples, "--train-examples")
    return Workspace(options, dataset, classifier, training, test, selection, part)


@contextlib.contextmanager
def opened(
    options: ModelOptions,
    *,
    test_examples: int | None = None,
    hold_out: bool = False,
    part: Part | None = None,
    whole: Mapping[str, Any] | None = None,
) -> Iterator[Workspace]:
    """Does what `loaded` does, and excludes other processes than parts of `whole`."""
    workspace = loaded(
        options, test_examples=test_examples, hold_out=hold_out, part=part
    )
    with contextlib.ExitStack() as stack:
        if not options.has_records:  # then nothing is written
            processes.broadcast_from_first(
                lambda: stack.enter_context(_lock(options, part, whole))
            )
        yield workspace
