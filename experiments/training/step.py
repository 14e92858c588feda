"""One training step of a sweep, as a pure function.

A sweep is a rectangle of seeds and settings: its state has two leading axes (seeds,
settings). Models of one seed share initialization, order, augmentation and dropout, so
that the batch and the dropout masks are made once for all of them. A single model is a
sweep of one, and is computed without `vmap`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import absum_jax
from experiments.data.augmentation import crop_and_flip
from experiments.models import Classifier, Variables
from experiments.models.stacked import over_models
from experiments.training.constraints import Constrained, constrain
from experiments.training.devices import Placement
from experiments.training.optimization import Hyperparameters, Schedule, optimizer

# Numbers that are folded into a seed to make independent streams.
_INIT, _ORDER, _DROPOUT, _ATTACK, _AUGMENTATION = range(5)
# Folded into dropout's key to perturb images; 0 and 1 would be its split.
_PERTURBATION = 2

# The adversary's numbers, from `Adversary.as_arrays`.
Budget = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """What a program that trains a sweep is compiled for.

    Static under `jax.jit`: another value compiles another program. Hyperparameters,
    the schedule and an adversary's numbers are data instead, and compile nothing.
    """

    classifier: Classifier
    batch_size: int
    epoch_steps: int
    augmented: bool = False  # whether images are cropped and flipped at random
    constrained: tuple[Constrained, ...] = ()
    # None is one device. Over whichever devices a batch is divided, its normalization
    # takes the statistics of the whole batch, or of the classifier's groups.
    placement: Placement | None = None

    @property
    def shards(self) -> tuple[int, int]:
        """Counts the parts into which seeds and settings are divided."""
        return (1, 1) if self.placement is None else self.placement.shards


class TrainState(NamedTuple):
    """State that training carries from step to step."""

    variables: Variables
    optimizer: Any
    diverged_at: jax.Array  # the step, from 1, that was not finite; 0 if none was


class Metrics(NamedTuple):
    """Measures of a step that are reported, of shape (seeds, settings) in a sweep."""

    loss: jax.Array  # cross-entropy without the penalty, 1/N sum f in eq. 12
    accuracy: jax.Array  # on the training batches, with dropout, attacked if they are

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> "Metrics":
        """Returns the sums of an epoch before its first step."""
        return cls(*[jnp.zeros(shape, jnp.float32)] * len(cls._fields))


# After a step, or after several, whose metrics are added.
Stepped = tuple[TrainState, Metrics]


def _is_finite(tree: Any) -> jax.Array:
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all()


def _with_params(state: TrainState, params: Any, step: jax.Array) -> TrainState:
    """Replaces the parameters, unless the model has diverged or they are not finite."""
    is_finite = _is_finite(params)
    has_diverged = state.diverged_at > 0
    params = jax.tree.map(
        lambda new, old: jnp.where(is_finite & ~has_diverged, new, old),
        params,
        state.variables.params,
    )
    diverged_at = jnp.where(is_finite | has_diverged, state.diverged_at, step)
    return state._replace(
        variables=state.variables._replace(params=params), diverged_at=diverged_at
    )


def train_step(
    classifier: Classifier, state: TrainState, h: Hyperparameters,
    x: jax.Array, y: jax.Array, step: jax.Array, dropout_key: jax.Array,
    attack_key: jax.Array | None = None, budget: Budget | None = None,
) -> Stepped:  # fmt: skip
    """Takes one step of one model on a batch of images in [0, 1].

    Adversarial training uses only the images that PGD finds for the current model in
    evaluation mode. If the loss or any updated value is not finite, the step is skipped
    and training of this model stops.

    `step` is its number in training, from 1, `attack_key` that of the adversary's
    random starts. Without a budget it trains on the images as they are.
    """
    for method, strength in h.methods:
        if method.perturb is not None:
            key = jax.random.fold_in(dropout_key, _PERTURBATION)
            x = jnp.where(strength > 0, method.perturb(key, x, strength), x)
    if budget is not None:
        logits_fn = jax.tree_util.Partial(classifier.logits, state.variables)
        x = absum_jax.pgd(logits_fn, x, y, key=attack_key, **budget)
    params, batch_stats = state.variables

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        variables = Variables(params, batch_stats)
        logits, new_stats = classifier.train_logits(variables, x, dropout_key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses.mean(), ((logits.argmax(axis=-1) == y).mean(), new_stats)

    (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    accuracy, new_stats = aux
    for method, strength in h.methods:
        if method.penalty_gradient is not None:
            added = method.penalty_gradient(params)
            grads = jax.tree.map(lambda g, p, s=strength: g + s * p, grads, added)
    updates, optimizer_state = optimizer(h).update(grads, state.optimizer, params)
    params = optax.apply_updates(params, updates)

    is_finite = _is_finite((loss, params, new_stats))
    is_taken = is_finite & (state.diverged_at == 0)
    variables, optimizer_state = jax.tree.map(
        lambda new, old: jnp.where(is_taken, new, old),
        (Variables(params, new_stats), optimizer_state),
        (state.variables, state.optimizer),
    )
    has_diverged = state.diverged_at > 0
    diverged_at = jnp.where(is_finite | has_diverged, state.diverged_at, step)
    loss = jnp.where(is_taken, loss, jnp.nan)
    state = TrainState(variables, optimizer_state, diverged_at)
    return state, Metrics(loss, accuracy)


def _stream(seed: jax.Array, stream: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), stream)


@functools.partial(jax.jit, static_argnames="classifier")
def init_sweep(
    classifier: Classifier, seeds: jax.Array, h: Hyperparameters
) -> TrainState:
    """Initializes the state of a sweep, with leading axes (seeds, settings)."""

    def init(seed: jax.Array, h: Hyperparameters) -> TrainState:
        variables = classifier.init(_stream(seed, _INIT))
        started = optimizer(h).init(variables.params)
        return TrainState(variables, started, jnp.zeros([], jnp.int32))

    return over_models(over_models(init, (None, 0)), (0, None))(seeds, h)


def image_order(seed: jax.Array, epoch: jax.Array, examples: int) -> jax.Array:
    """Shuffles the indices of the training images for one epoch of a seed."""
    key = jax.random.fold_in(_stream(seed, _ORDER), epoch)
    return jax.random.permutation(key, examples)


def epoch_keys(seed: jax.Array, epoch: jax.Array) -> list[jax.Array]:
    """Makes the keys of dropout, attack and augmentation for one epoch of a seed."""
    streams = (_DROPOUT, _ATTACK, _AUGMENTATION)
    return [jax.random.fold_in(_stream(seed, s), epoch) for s in streams]


def train_settings(
    spec: TrainSpec, state: TrainState, h: Hyperparameters,
    x: jax.Array, y: jax.Array, keys: list[jax.Array], at: Schedule, i: jax.Array,
    budget: Budget | None,
) -> Stepped:  # fmt: skip
    """Takes one step of all settings of a seed, the i-th of an epoch, from 0.

    The state and the hyperparameters, which are those of the epoch, have a leading axis
    (settings,), as have the metrics. Images are uint8, keys those of `epoch_keys`.
    """
    dropout, attack, augmentation = (jax.random.fold_in(key, i) for key in keys)
    shape = x.shape[1:]
    if spec.augmented:
        x = crop_and_flip(augmentation, x)
    x = x.astype(jnp.float32) / 255
    now = at.epoch * spec.epoch_steps + i + 1
    # The images are the same for all settings, and so are the attack's starts.
    over_settings = over_models(
        functools.partial(train_step, spec.classifier),
        (0, 0, None, None, None, None, None, None),
        shards=spec.shards[1],
    )
    state, metrics = over_settings(state, h, x, y, now, dropout, attack, budget)
    if spec.constrained:
        params = constrain(
            state.variables.params, h.strengths, spec.classifier.conv_uses(shape),
            spec.constrained, now, at.epochs * spec.epoch_steps,
        )  # fmt: skip
        state = jax.vmap(_with_params, (0, 0, None))(state, params, now)
    return state, metrics
