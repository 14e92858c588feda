"""What results are called: how they fall short of the paper's, titles, and paths."""

import pathlib
from collections.abc import Sequence

from experiments.config import NONE
from experiments.data import DATASETS
from experiments.methods import LAMBDA, METHODS, SIGMA, default
from experiments.models import ARCHITECTURES, WIDTHS, networks_for
from experiments.options import (
    ModelOptions,
    SweepOptions,
)

_SUFFIXES = {"test": "", "validation": "-validation", "paper": "-paper"}


def _other_training(options: ModelOptions, *, adversarial: bool = False) -> list[str]:
    """How network and training differ from the published ones, but for images."""
    published = options.published_recipe(adversarial=adversarial)
    parts = []
    if options.width != "1":
        parts.append(f"{WIDTHS[options.width].label} of the channels")
    if options.epochs not in (None, published.epochs):
        parts.append(f"{options.epochs} of {published.epochs} epochs")
    if options.batch_size not in (None, published.batch_size):
        parts.append(f"batches of {options.batch_size}")
    if options.batch_norm_groups > 1:
        parts.append(f"batch normalization in {options.batch_norm_groups} groups")
    if options.learning_rate not in (None, published.learning_rate):
        parts.append(f"learning rate {options.learning_rate:g}")
    return parts


def _fewer_images(options: ModelOptions, test_examples: int | None) -> list[str]:
    parts = []
    if DATASETS[options.dataset].parent:
        parts.append("a small data set")
    if options.train_examples is not None:
        parts.append(f"{options.train_examples} training images")
    if test_examples is not None:
        parts.append(f"{test_examples} test images")
    return parts


def model_scale(options: ModelOptions, test_examples: int | None = None) -> list[str]:
    """How models fall short of the published ones, whatever their methods.

    Args:
      options: of the models.
      test_examples: how many images they are attacked on; None is all, or none.
    """
    return [*_other_training(options), *_fewer_images(options, test_examples)]


def scale(options: SweepOptions, *, adversarial: bool = False) -> list[str]:
    """How a run falls short of the published one."""
    parts = _other_training(options, adversarial=adversarial)
    # Of a network that the paper has, the methods that it has: on ImageNet no SNC.
    published = {NONE.method, *(options.published or default())}
    missing = [m for m in default() if m in published and m not in options.methods]
    if missing:
        parts.append(f"without {', '.join(METHODS[m].label for m in missing)}")
    if options.select_on != "paper":
        if not set(LAMBDA.grid) <= set(options.strengths):
            parts.append(f"{len(options.strengths)} strengths")
        has_bounds = any(METHODS[m].strength == SIGMA for m in options.methods)
        if has_bounds and not set(SIGMA.grid) <= set(options.max_norms):
            parts.append(f"{len(options.max_norms)} bounds of SNC")
    parts += _fewer_images(options, options.test_examples)
    if options.frequency_stride != 1:
        parts.append(f"one in {options.frequency_stride} of l and m")
    return parts


def model_path(
    name: str, options: ModelOptions, scaled: Sequence[str], variant: str = ""
) -> pathlib.Path:
    """Where a result goes below the results folder, without suffix.

    Runs that are scaled down lie apart, as do those of other networks than the paper's
    first, and those that compute in other than float32, whatever the device's default.

    Args:
      name: of the table or figure.
      options: of the models.
      scaled: how they fall short.
      variant: what else the file's name ends in.
    """
    network = "" if options.model == options.paper_model else f"-{options.model}"
    dtype = "" if options.dtype == "float32" else f"-{options.dtype}"
    stem = options.dataset + network + dtype + variant
    return pathlib.Path("scaled" if scaled else "") / name / stem


def variant(options: ModelOptions, *names: str) -> str:
    """Which of some strengths are not the default, for `model_path`."""
    return "".join(
        f"-{name.replace('_', '-')}-{getattr(options, name):g}"
        for name in names
        if getattr(options, name) != getattr(type(options), name)
    )


def path(
    name: str, options: SweepOptions, scaled: Sequence[str] | None = None
) -> pathlib.Path:
    """As `model_path`, each way to select apart.

    Args:
      name: of the table or figure.
      options: of the run.
      scaled: how it falls short; None is `scale(options)`.
    """
    parts = scale(options) if scaled is None else scaled
    return model_path(name, options, parts, _SUFFIXES[options.select_on])


def subject(options: ModelOptions) -> str:
    """The data set, and the network where the data set has several."""
    name = DATASETS[options.dataset].label
    if len(networks_for(options.dataset)) == 1:
        return name
    return f"{name} ({ARCHITECTURES[options.published_network].label})"


def title(label: str, options: ModelOptions, scaled: Sequence[str]) -> str:
    """A title, with the scale where it is not the published one.

    Args:
      label: such as "Table 1".
      options: of the models.
      scaled: how they fall short.
    """
    suffix = f" (scaled down: {', '.join(scaled)})" if scaled else ""
    return f"{label}, {subject(options)}{suffix}"
