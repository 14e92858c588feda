"""The programs of the product, with shapes in place of arrays.

A program is lowered for the devices of `devices.available()`; nothing is computed.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

import absum_jax
from experiments import adversaries
from experiments.config import NONE, Recipe, Setting
from experiments.data import DATASETS, pgd_of
from experiments.data.registry import DatasetInfo
from experiments.evaluation.gradient import (
    budget_of,
    published_steps,
    white_box_accuracies,
)
from experiments.evaluation.single_fourier import attacked_accuracies
from experiments.methods import LAMBDA, METHODS, SIGMA
from experiments.models import Classifier, build
from experiments.training import devices, diagnostics, optimization, programs, step
from experiments.training.constraints import constrained

# Table 1's grid on a gray data set, and the seeds of a claim.
GRID = (
    NONE,
    *(Setting(m, s) for m in ("weight_decay", "l1", "absum") for s in LAMBDA.grid),
    *(Setting("snc", sigma) for sigma in SIGMA.grid),
)
SEEDS = 10


class Program(NamedTuple):
    """A compiled function, and what it is called with."""

    function: Any  # of `jax.jit`
    args: tuple[Any, ...]
    static: Mapping[str, Any] = MappingProxyType({})

    def lower(self) -> jax.stages.Lowered:
        """Lowers it for the devices of its arguments."""
        lowered: jax.stages.Lowered = self.function.lower(*self.args, **self.static)
        return lowered

    def exported(self, platforms: tuple[str, ...]) -> jax.export.Exported:
        """Lowers it for platforms that need not be there."""
        export = jax.export.export(self.function, platforms=platforms)
        exported: jax.export.Exported = export(*self.args, **self.static)
        return exported


def _laid_out(tree: Any, sharding: Sharding) -> Any:
    """Replaces arrays by their shapes, laid out on devices."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )


def _images(
    dataset: DatasetInfo, count: int, dtype: Any
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    shape = count, *dataset.image_shape
    return jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct((count,), jnp.int32)


def classifier_of(network: str, dataset: str, groups: int = 1) -> Classifier:
    """Builds a network as commands do on accelerators."""
    found = DATASETS[dataset]
    channels = found.image_shape[-1]
    return build(
        network, (0.5,) * channels, (0.25,) * channels, found.classes, "bfloat16",
        groups,
    )  # fmt: skip


def training(
    network: str, dataset: str, *, settings: Sequence[Setting] = (NONE,),
    seeds: int = 1, recipe: Recipe | None = None, batch: int | None = None,
    groups: int = 1,
) -> Program:  # fmt: skip
    """Returns an epoch on images that the devices hold, or a step on ImageNet."""
    found, classifier = DATASETS[dataset], classifier_of(network, dataset, groups)
    recipe = recipe or found.conditions.recipe
    batch = batch or recipe.batch_size
    if classifier.is_small:
        placement = devices.joint_placement(seeds, len(settings), batch, None)
    else:
        placement, *_ = devices.separate_placements(1, batch, None)
    h = optimization.hyperparameters(
        settings, recipe.learning_rate, recipe.momentum, recipe.decay
    )
    if not classifier.is_small:
        h = optimization.without_unused(h, settings)
    h = devices.pad_settings(h, 0, placement.padded(len(settings)))
    numbers = jnp.arange(seeds)
    state = jax.eval_shape(lambda: step.init_sweep(classifier, numbers, h))
    is_streamed = found.source == "streamed"
    spec = step.TrainSpec(
        classifier, batch, 1 if is_streamed else found.train_examples // batch,
        augmented=recipe.augmented and not is_streamed,
        constrained=constrained(settings), placement=placement,
    )  # fmt: skip
    state = _laid_out(state, placement.state)
    h = _laid_out(h, placement.settings)
    numbers = _laid_out(numbers, placement.seeds)
    replicated = placement.replicated
    at = _laid_out(optimization.schedule(0, 1, recipe.milestones), replicated)
    budget = None
    if recipe.adversary is not None:
        budget = _laid_out(recipe.adversary.as_arrays(), replicated)
    if is_streamed:
        images = _laid_out(_images(found, batch, jnp.uint8), placement.batch)
        i = _laid_out(jnp.asarray(0), replicated)
        args = spec, state, numbers, h, *images, at, i, budget
        return Program(programs.train_batch, args)
    images = _laid_out(_images(found, found.train_examples, jnp.uint8), replicated)
    args = spec, state, numbers, h, *images, at, 0, None, budget
    return Program(programs.train_steps, args)


def adversarial(dataset: str) -> Recipe:
    """Returns the recipe of the paper's adversarial training."""
    recipe = pgd_of(dataset).recipe
    return dataclasses.replace(recipe, adversary=adversaries.adversary(dataset, "pgd"))


def _attacked(
    network: str, dataset: str, images: int, models: int = 1
) -> tuple[Classifier, Any, Any, Any, Sharding]:
    """Returns stacked variables, images and labels, laid out on devices."""
    classifier = classifier_of(network, dataset)
    sharding = devices.divided_batch(images)
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    variables = jax.eval_shape(
        jax.vmap(classifier.init), jax.vmap(jax.random.key)(jnp.arange(models))
    )
    x, y = _laid_out(_images(DATASETS[dataset], images, jnp.float32), sharding)
    return classifier, _laid_out(variables, everywhere), x, y, everywhere


def single_fourier(network: str, dataset: str, images: int, models: int = 1) -> Program:
    """Returns a row of frequencies of the Single Fourier Attack."""
    classifier, variables, x, y, everywhere = _attacked(
        network, dataset, images, models
    )
    size = DATASETS[dataset].image_shape[1]
    row = jax.ShapeDtypeStruct((size, 2), jnp.int32, sharding=everywhere)
    eps = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    return Program(
        attacked_accuracies, (classifier, variables, x, y, row, eps),
        {"batch": images},
    )  # fmt: skip


def pgd(network: str, dataset: str, images: int, models: int = 1) -> Program:
    """Returns the paper's PGD in evaluation, with its number of steps as data."""
    classifier, variables, x, y, everywhere = _attacked(
        network, dataset, images, models
    )
    budget = budget_of(pgd_of(dataset).transfer_eps, published_steps(dataset))
    args = classifier, variables, x, y, _laid_out(budget, everywhere)
    return Program(white_box_accuracies, args, {"batch": images})


@functools.partial(jax.jit, static_argnames=("classifier", "component"))
def _component(
    classifier: Classifier, variables: Any, x: jax.Array, y: jax.Array,
    eps: jax.Array, component: str,
) -> Any:  # fmt: skip
    first = jax.tree.map(lambda leaf: leaf[0], variables)
    return absum_jax.auto_attack(
        jax.tree_util.Partial(classifier.logits, first), x, y, key=jax.random.key(0),
        eps=eps, components=(component,), batch_size=x.shape[0],
    )  # fmt: skip


def auto_attack(component: str, network: str, dataset: str, images: int) -> Program:
    """Returns a component of AutoAttack, which masks images that are broken."""
    classifier, variables, x, y, everywhere = _attacked(network, dataset, images)
    eps = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    args = classifier, variables, x, y, eps
    return Program(_component, args, {"component": component})


def _kernels(network: str, dataset: str) -> tuple[Any, Any, NamedSharding]:
    """Returns parameters on each device, and how their kernels are used."""
    classifier = classifier_of(network, dataset)
    variables = jax.eval_shape(classifier.init, jax.random.key(0))
    mesh = jax.sharding.Mesh(np.array(devices.available()), ("data",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    uses = classifier.conv_uses(DATASETS[dataset].image_shape)
    return _laid_out(variables.params, everywhere), uses, everywhere


@jax.jit
def _shrunk(params: Any, strength: jax.Array) -> Any:
    tx = absum_jax.absum(strength, learning_rate=jnp.float32(0.1))
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params
    )
    return optax.apply_updates(params, updates)


def absum(network: str, dataset: str) -> Program:
    """Returns Absum's proximal operator on all convolutions, as an optax update."""
    params, _, everywhere = _kernels(network, dataset)
    strength = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    return Program(_shrunk, (params, strength))


@functools.partial(jax.jit, static_argnames="uses")
def _clip(params: Any, max_norm: jax.Array, uses: Any) -> Any:
    constraint = METHODS["snc"].constraint
    assert constraint is not None
    return constraint.apply(params, max_norm, dict(uses))


def clip(network: str, dataset: str) -> Program:
    """Returns SNC's clip of all convolutions, as it is in a training step."""
    params, uses, everywhere = _kernels(network, dataset)
    max_norm = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    return Program(_clip, (params, max_norm), {"uses": tuple(uses.items())})


@functools.partial(jax.jit, static_argnames="uses")
def _norms(params: Any, uses: Any) -> Any:
    stacked = jax.tree.map(lambda leaf: leaf[None], params)
    return diagnostics.spectral_norms(stacked, dict(uses))


def norms(network: str, dataset: str) -> Program:
    """Returns the spectral norms of all convolutions, as diagnostics do."""
    params, uses, _ = _kernels(network, dataset)
    return Program(_norms, (params,), {"uses": tuple(uses.items())})


def _chips() -> int:
    return len(devices.available())


_ABSUM = (Setting("absum", 1e-4),)
_SNC = (Setting("snc", 1.0),)
_TESTED = 1024  # images of an evaluation at a time, on all chips

_GRAY, _COLOR, _IMAGENET = "mnist", "cifar10", "imagenet2012"
PROGRAMS: dict[str, Callable[[], Program]] = {
    "sweep": lambda: training("small_cnn", _GRAY, settings=GRID, seeds=SEEDS),
    "adversarial-sweep": lambda: training(
        "small_cnn", _GRAY, settings=GRID[:28], seeds=SEEDS, recipe=adversarial(_GRAY)
    ),
    "epoch-resnet18-absum": lambda: training("resnet18", _COLOR, settings=_ABSUM),
    "epoch-resnet18-snc": lambda: training("resnet18", _COLOR, settings=_SNC),
    "adversarial-epoch-resnet18": lambda: training(
        "resnet18", _COLOR, recipe=adversarial(_COLOR)
    ),
    "epoch-googlenet": lambda: training("googlenet", _COLOR),
    "epoch-densenet121": lambda: training("densenet121", _COLOR),
    "step-imagenet": lambda: training("resnet18_224", _IMAGENET),
    "step-imagenet-1-per-chip": lambda: training(
        "resnet18_224", _IMAGENET, batch=_chips()
    ),
    "step-imagenet-32-per-chip": lambda: training(
        "resnet18_224", _IMAGENET, batch=32 * _chips()
    ),
    "step-imagenet-groups": lambda: training(
        "resnet18_224", _IMAGENET, groups=_chips()
    ),
    "single-fourier-sweep": lambda: single_fourier(
        "small_cnn", _GRAY, _TESTED, models=len(GRID)
    ),
    "single-fourier-resnet18": lambda: single_fourier("resnet18", _COLOR, _TESTED),
    "single-fourier-imagenet": lambda: single_fourier(
        "resnet18_224", _IMAGENET, _TESTED
    ),
    "pgd-sweep": lambda: pgd("small_cnn", _GRAY, _TESTED, models=len(GRID)),
    "pgd-resnet18": lambda: pgd("resnet18", _COLOR, _TESTED),
    **{
        f"{component}-resnet18": functools.partial(
            auto_attack, component, "resnet18", _COLOR, _TESTED
        )
        for component in ("apgd-ce", "apgd-t", "fab-t", "square")
    },
    "absum-resnet18": lambda: absum("resnet18", _COLOR),
    "clip-resnet18": lambda: clip("resnet18", _COLOR),
    "norms-resnet18": lambda: norms("resnet18", _COLOR),
}
