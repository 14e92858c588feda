"""Titles and paths of results, which name the differences from the paper's."""

import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.config import NONE
from experiments.data import DATASETS
from experiments.methods import LAMBDA, METHODS, SIGMA, default
from experiments.models import ARCHITECTURES, WIDTHS, networks_for
from experiments.options import ModelOptions, SweepOptions
from experiments.published import TABLE1
from experiments.training.constraints import is_idle


def _other_training(options: ModelOptions, *, adversarial: bool = False) -> list[str]:
    """Returns how network and training differ from the published ones."""
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


def _without_clips(
    options: ModelOptions, methods: Iterable[str], steps: int
) -> list[str]:
    """Returns which constraints never act in so many steps of training."""
    settle_steps = options.settle_steps or 0
    idle = [METHODS[m].label for m in methods if is_idle(m, steps, settle_steps)]
    return [f"no clip of {' and '.join(idle)}"] if idle else []


def model_scale(
    options: ModelOptions,
    test_examples: int | None = None,
    methods: Iterable[str] = (),
) -> list[str]:
    """Returns how models, and what they are attacked on, are scaled down."""
    return [
        *_other_training(options),
        *_fewer_images(options, test_examples),
        *_without_clips(options, methods, options.training_steps()),
    ]


def without(labels: Mapping[str, str], methods: Collection[str]) -> list[str]:
    """Returns which of the paper's methods, by their labels, a result lacks."""
    missing = [label for method, label in labels.items() if method not in methods]
    return [f"without {', '.join(missing)}"] if missing else []


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def scale(options: SweepOptions, *, adversarial: bool = False) -> list[str]:
    """Returns how a sweep is scaled down from the published one."""
    parts = _other_training(options.models, adversarial=adversarial)
    # Of a network that the paper has, the methods that it has: on ImageNet no SNC.
    published = {NONE.method, *(options.models.published(TABLE1) or default())}
    compared = {m: METHODS[m].label for m in default() if m in published}
    parts += without(compared, options.methods)
    if options.select_on != "paper":
        if not set(LAMBDA.grid) <= set(options.strengths):
            parts.append(_counted(len(options.strengths), "strength"))
        has_bounds = any(METHODS[m].strength == SIGMA for m in options.methods)
        if has_bounds and not set(SIGMA.grid) <= set(options.max_norms):
            parts.append(f"{_counted(len(options.max_norms), 'bound')} of SNC")
    parts += _fewer_images(options.models, options.test_examples)
    steps = options.models.training_steps(
        adversarial=adversarial, hold_out=options.select_on == "validation"
    )
    parts += _without_clips(options.models, options.methods, steps)
    if options.frequency_stride != 1:
        parts.append(f"one in {options.frequency_stride} of l and m")
    return parts


def folder(name: str, scaled: Sequence[str]) -> pathlib.Path:
    """Returns the folder of a result below the results folder."""
    return pathlib.Path("scaled" if scaled else "") / name


def model_path(
    name: str, options: ModelOptions, scaled: Sequence[str], variant: str = ""
) -> pathlib.Path:
    """Returns the path of a result below the results folder, without suffix.

    Scaled-down results have a separate folder. The file's name includes the network,
    unless it is the paper's first, and the dtype, unless it is float32.
    """
    is_first = options.model == networks_for(options.dataset)[0]
    network = "" if is_first else f"-{options.model}"
    dtype = "" if options.dtype == "float32" else f"-{options.dtype}"
    stem = options.dataset + network + dtype + variant
    return folder(name, scaled) / stem


def variant(options: Any, *names: str) -> str:
    """Returns numbers that are not the default of their options, for `model_path`."""
    parts = []
    for name in names:
        value = getattr(options, name)
        if value != getattr(type(options), name):
            one = name.removesuffix("s") if isinstance(value, tuple) else name
            parts += [one.replace("_", "-"), *(f"{v:g}" for v in np.ravel(value))]
    return "".join(f"-{part}" for part in parts)


def path(
    name: str,
    options: SweepOptions,
    scaled: Sequence[str] | None = None,
    variant: str = "",
) -> pathlib.Path:
    """Returns the path as `model_path` does, with a suffix for how to select strengths.

    Without `scaled`, it is `scale(options)`.
    """
    parts = scale(options) if scaled is None else scaled
    chosen = "" if options.select_on == "test" else f"-{options.select_on}"
    return model_path(name, options.models, parts, chosen + variant)


def title(label: str, options: ModelOptions, scaled: Sequence[str]) -> str:
    """Returns a title with the data set, the network if several, and the scale."""
    name = _with_network(options)
    if len(networks_for(options.dataset)) == 1:
        name = DATASETS[options.dataset].label
    return scaled_title(f"{label}, {name}", scaled)


def scaled_title(title: str, scaled: Sequence[str]) -> str:
    """Adds to a title how the result is scaled down from the published one."""
    return f"{title} ({_scaled_down(scaled)})" if scaled else title


def figure_title(label: str, options: ModelOptions, scaled: Sequence[str]) -> str:
    """Returns a title with data set and network, and the scale in a second line."""
    name = _with_network(options)
    return f"{label}, {name}" + (f"\n{_scaled_down(scaled)}" if scaled else "")


def _with_network(options: ModelOptions) -> str:
    network = ARCHITECTURES[options.published_network].label
    return f"{DATASETS[options.dataset].label} ({network})"


def _scaled_down(scaled: Sequence[str]) -> str:
    return f"scaled down: {', '.join(scaled)}"
