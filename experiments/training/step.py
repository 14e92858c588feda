"""One training step and one epoch of a sweep, as pure functions.

A sweep is a rectangle of seeds and settings: its state has two leading axes (seeds,
settings). Models of one seed share initialisation, order and dropout, so that the batch
and the dropout masks are made once for all of them.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import absum_jax
from experiments.models import Classifier
from experiments.training.config import Setting
from experiments.training.constraints import CONSTRAINTS, Constrained, constrain

# What a seed is folded with to give independent streams.
_INIT, _ORDER, _DROPOUT, _ATTACK = range(4)

# Of an adversary, as data.
Budget = Mapping[str, Any]


class Hyperparameters(NamedTuple):
    """Hyperparameters of one model as data, so that new values recompile nothing."""

    learning_rate: jax.Array
    momentum: jax.Array
    weight_decay: jax.Array
    l1: jax.Array
    absum: jax.Array
    max_norm: jax.Array  # infinite without a constraint


class TrainState(NamedTuple):
    """What training carries from step to step."""

    params: Any
    optimizer: Any


class EpochMetrics(NamedTuple):
    """Means over the steps of an epoch, of shape (seeds, settings) in a sweep."""

    loss: jax.Array  # cross-entropy without the penalty, 1/N sum f in eq. 12
    accuracy: jax.Array  # on the training batches, with dropout, attacked if they are


def hyperparameters(
    settings: Sequence[Setting], learning_rate: float, momentum: float
) -> Hyperparameters:
    """The hyperparameters of several settings, each field of shape (settings,)."""

    def strengths(method: str) -> jax.Array:
        return jnp.array([s.strength if s.method == method else 0.0 for s in settings])

    return Hyperparameters(
        learning_rate=jnp.full(len(settings), learning_rate),
        momentum=jnp.full(len(settings), momentum),
        weight_decay=strengths("weight_decay"),
        l1=strengths("l1"),
        absum=strengths("absum"),
        max_norm=jnp.array(
            [s.strength if s.method in CONSTRAINTS else jnp.inf for s in settings]
        ),
    )


def optimizer(h: Hyperparameters) -> optax.GradientTransformation:
    """SGD with momentum and every regularizer; strength 0 switches one off, exactly."""
    return optax.chain(
        optax.add_decayed_weights(h.weight_decay, mask=absum_jax.conv_kernels),
        optax.sgd(h.learning_rate, momentum=h.momentum),
        absum_jax.l1(h.l1, learning_rate=h.learning_rate),
        absum_jax.absum(h.absum, learning_rate=h.learning_rate),
    )


def train_step(
    classifier: Classifier,
    state: TrainState,
    h: Hyperparameters,
    x: jax.Array,
    y: jax.Array,
    dropout_key: jax.Array,
    attack_key: jax.Array | None = None,
    budget: Budget | None = None,
) -> tuple[TrainState, EpochMetrics]:
    """One step of one model on a batch of images in [0, 1].

    With an adversary's budget on the images that PGD finds for the model as it is, in
    evaluation mode, and on those alone.
    """
    if budget is not None:
        logits_fn = jax.tree_util.Partial(classifier.logits, state.params)
        x = absum_jax.pgd(logits_fn, x, y, key=attack_key, **budget)

    def loss_fn(params: Any) -> tuple[jax.Array, jax.Array]:
        logits = classifier.train_logits(params, x, dropout_key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses.mean(), (logits.argmax(axis=-1) == y).mean()

    (loss, accuracy), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, optimizer_state = optimizer(h).update(grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, optimizer_state), EpochMetrics(loss, accuracy)


def _stream(seed: jax.Array, stream: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), stream)


@functools.partial(jax.jit, static_argnames="classifier")
def init_sweep(
    classifier: Classifier, seeds: jax.Array, h: Hyperparameters
) -> TrainState:
    """The state of a sweep before training, with leading axes (seeds, settings)."""

    def init(seed: jax.Array, h: Hyperparameters) -> TrainState:
        params = classifier.init(_stream(seed, _INIT))
        return TrainState(params, optimizer(h).init(params))

    over_settings = jax.vmap(init, in_axes=(None, 0))
    return jax.vmap(over_settings, in_axes=(0, None))(seeds, h)


@functools.partial(
    jax.jit,
    static_argnames=("classifier", "batch_size", "constrained"),
    donate_argnames="state",
)
def train_epoch(
    classifier: Classifier,
    state: TrainState,
    seeds: jax.Array,
    h: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
    epoch: jax.Array,
    epochs: jax.Array,
    *,
    batch_size: int,
    constrained: tuple[Constrained, ...] = (),
    budget: Budget | None = None,
) -> tuple[TrainState, EpochMetrics]:
    """One epoch of a sweep: a scan over its steps, with the data on the device.

    The order of the images is a function of (seed, epoch) alone; the images that do not
    fill a last batch sit out, others each epoch.

    Args:
      classifier: the network.
      state: the sweep's state, with leading axes (seeds, settings).
      seeds: integers (seeds,).
      h: hyperparameters, each field (settings,).
      images: all training images (N, height, width, channels), uint8.
      labels: all labels (N,).
      epoch: which epoch, from 0.
      epochs: how many there are.
      batch_size: images a step.
      constrained: the settings that have a constraint.
      budget: of adversarial training; None trains on clean images.

    Returns:
      The state after the epoch, and its metrics (seeds, settings).
    """
    steps = labels.shape[0] // batch_size
    step = functools.partial(train_step, classifier)
    # The images are the same for all settings, and so are the attack's starts.
    over_settings = jax.vmap(step, in_axes=(0, 0, None, None, None, None, None))
    uses = classifier.conv_uses(images.shape[1:]) if constrained else {}

    def one_seed(state: TrainState, seed: jax.Array) -> tuple[TrainState, EpochMetrics]:
        order_key = jax.random.fold_in(_stream(seed, _ORDER), epoch)
        order = jax.random.permutation(order_key, labels.shape[0])
        dropout_key, attack_key = (
            jax.random.fold_in(_stream(seed, stream), epoch)
            for stream in (_DROPOUT, _ATTACK)
        )

        def body(
            state: TrainState, batch: tuple[jax.Array, jax.Array]
        ) -> tuple[TrainState, EpochMetrics]:
            indices, i = batch
            x = images[indices].astype(jnp.float32) / 255
            state, metrics = over_settings(
                state, h, x, labels[indices], jax.random.fold_in(dropout_key, i),
                jax.random.fold_in(attack_key, i), budget,
            )  # fmt: skip
            params = constrain(
                state.params, h.max_norm, uses, constrained,
                epoch * steps + i + 1, epochs * steps,
            )  # fmt: skip
            return state._replace(params=params), metrics

        batches = order[: steps * batch_size].reshape(steps, batch_size)
        state, metrics = jax.lax.scan(body, state, (batches, jnp.arange(steps)))
        return state, jax.tree.map(lambda values: values.mean(axis=0), metrics)

    return jax.vmap(one_seed)(state, seeds)
