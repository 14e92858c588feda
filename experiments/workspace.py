"""One data set and its network, with their folder of runs to themselves."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence

from experiments.config import Adversary, RunConfig, Setting
from experiments.data import Dataset, Split, StreamedSplit, load, recorded
from experiments.evaluation.kept import EvaluationSet
from experiments.jobs import agreement, locks
from experiments.jobs.errors import UsageError
from experiments.jobs.shards import Part
from experiments.methods import METHODS
from experiments.models import ARCHITECTURES, Classifier, build
from experiments.options import ModelOptions
from experiments.training.constraints import SETTLE_STEPS
from experiments.training.runs import Run
from experiments.training.sweep import train_missing


@dataclasses.dataclass(frozen=True)
class Workspace:
    """What models are trained and evaluated on.

    While it is open, no other process trains or attacks models of this kind in the same
    runs folder, but for other parts of the same command.
    """

    options: ModelOptions
    dataset: Dataset
    classifier: Classifier
    training: Split | StreamedSplit
    test: EvaluationSet
    selection: (
        EvaluationSet  # what chooses strengths: the test images, or held-out ones
    )
    part: Part | None = None  # of all models; None is all of them

    @property
    def validation_examples(self) -> int:
        """How many training images are held out."""
        is_held_out = self.selection is not self.test
        return self.dataset.validation_examples if is_held_out else 0

    def runs(
        self,
        settings: Sequence[Setting],
        seeds: Sequence[int],
        adversary: Adversary | None = None,
    ) -> list[Run]:
        """The models, seed by seed, trained or not; of a part its own alone.

        Args:
          settings: methods and strengths.
          seeds: each trains every setting once.
          adversary: what attacks the training images; None trains on clean ones.

        Raises:
          UsageError: if there are fewer models than parts.
        """
        options, recipe = self.options, self.options.recipe(adversary)
        fingerprint = self.training.fingerprint
        architecture = ARCHITECTURES[options.model]

        def is_settling(method: str) -> bool:
            return architecture.has_batch_norm and bool(METHODS[method].constraint)

        configs = [
            RunConfig(
                dataset=options.dataset,
                data_fingerprint=fingerprint,
                train_examples=len(self.training),
                validation_examples=self.validation_examples,
                method=setting.method,
                strength=setting.strength,
                seed=seed,
                model=options.model,
                recipe=recipe,
                dtype=options.dtype,
                max_pool_ties=architecture.max_pool_ties,
                settle_steps=SETTLE_STEPS if is_settling(setting.method) else None,
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
        """Trains what is missing, and returns what `runs` does, all complete."""
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


def _loaded(options: ModelOptions) -> Dataset:
    """The data set, the same one for all processes; of records without its images."""
    if options.has_records:
        return recorded.load(options.runs_dir, options.dataset)
    dataset = agreement.on_all_processes(lambda: load(options.dataset, options.data))
    fingerprints = [dataset.train.fingerprint, dataset.test.fingerprint]
    of_first = agreement.broadcast_from_first(lambda: fingerprints)

    def check() -> None:
        if fingerprints != of_first:
            raise UsageError(
                f"its images of {options.dataset} (fingerprints {fingerprints}) are "
                f"not those of process 0 ({of_first}); give another --data-dir."
            )

    agreement.on_all_processes(check)
    return dataset


def _lock(
    options: ModelOptions, part: Part | None
) -> contextlib.AbstractContextManager[None]:
    folder = options.runs_dir / options.dataset / options.model
    does_what = "trains or attacks such models"
    if part is None:
        return locks.exclusive(folder, does_what)
    # Parts of another list of models might have models of this one.
    command = [type(options).__name__, options.dtype, options.asked_for, part.parts]
    digest = hashlib.sha256(json.dumps(command, sort_keys=True).encode()).hexdigest()
    return locks.side_by_side(
        folder, digest[:12], f"{part.number}-of-{part.parts}", does_what
    )


def loaded(
    options: ModelOptions,
    *,
    test_examples: int | None = None,
    hold_out: bool = False,
    part: Part | None = None,
) -> Workspace:
    """Loads the data of some options; others may be at work on such models.

    Args:
      options: which models, and where they lie.
      test_examples: how many images to evaluate on, a fixed choice; None is all.
      hold_out: whether strengths are chosen on a part of the training set.
      part: which models to train; None is all.

    Raises:
      UsageError: if an option does not fit the data set, or the data is not there.
    """
    dataset = _loaded(options)
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
) -> Iterator[Workspace]:
    """Loads the data of some options as `loaded` does, and keeps other processes out.

    Other parts may be at work meanwhile.

    Raises:
      UsageError: as of `loaded`, and if another process works on such models.
    """
    workspace = loaded(
        options, test_examples=test_examples, hold_out=hold_out, part=part
    )
    with contextlib.ExitStack() as stack:
        if not options.has_records:  # where nothing is written
            # Of several processes the first one keeps others out.
            agreement.broadcast_from_first(
                lambda: stack.enter_context(_lock(options, part))
            )
        yield workspace
