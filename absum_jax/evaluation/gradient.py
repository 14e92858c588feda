"""Accuracy under gradient-based attacks, on the model itself or transferred."""

import chex
import numpy as np

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.attacks import _descent as descent
from absum_jax.attacks import gradient
from absum_jax.attacks._objective import Loss, Record
from absum_jax.evaluation import counting
from absum_jax.evaluation.clean import BATCH_SIZE, check_evaluation


@_logits.compiled_with(static_argnames=("batch_size", "top_k", "aim"))
def pgd_fractions(
    models: tuple[_logits.LogitsFn, _logits.LogitsFn | None],
    x: chex.Array,
    y: chex.Array,
    key: chex.PRNGKey,
    budget: descent.Budget,
    bounds: tuple[chex.Numeric, chex.Numeric],
    *,
    batch_size: int,
    top_k: counting.TopK,
    aim: descent.Aim,
) -> tuple[counting.Counts, Record]:
    """Computes :func:`pgd_accuracy` of a model, with gradients of a second one if any.

    The arguments must be checked.

    Returns:
      The fractions for each eps, and the records added up over images, to be passed to
      `check_not_futile`.
    """
    target, substitute = models
    attacked_model = target if substitute is None else substitute
    batches = counting.in_batches(x, y, batch_size)
    eps, step_size, steps, init_radius = budget

    def at(
        radii: tuple[chex.Array, chex.Array, chex.Array],
    ) -> tuple[counting.Counts, Record]:
        budget = descent.Budget(radii[0], radii[1], steps, radii[2])

        def attacked(
            batch: counting.Batches,
        ) -> tuple[chex.Array, Record]:
            keys = descent.keys_of(key, batch.index)
            return descent.descend(
                attacked_model, batch.x, batch.y, keys, budget, bounds, aim, batch.valid
            )

        return counting.count(target, attacked, batches, top_k)

    counts, record = counting.at_each(at, (eps, step_size, init_radius))
    return counting.fractions(counts, x.shape[0]), record


def pgd_accuracy(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    key: chex.PRNGKey,
    eps: chex.Numeric,
    step_size: chex.Numeric,
    steps: int,
    init_radius: chex.Numeric | None = None,
    bounds: tuple[chex.Numeric, chex.Numeric] = (0.0, 1.0),
    loss: Loss | None = None,
    restarts: int = 1,
    early_stop: bool = False,
    norm: str = "linf",
    substitute: _logits.LogitsFn | None = None,
    batch_size: int = BATCH_SIZE,
    top_k: counting.TopK = 1,
) -> counting.AttackAccuracy:
    """Computes accuracy under projected gradient descent, for each of several eps.

    One compiled program attacks the images like :func:`pgd`, batch by batch, and
    evaluates the attacked images in a separate pass. They do not depend on the batch
    size, up to rounding. With `steps=1`, `step_size=eps` and `init_radius=0` the attack
    is :func:`fgsm`.

    Args:
      logits_fn: a callable from images to logits, as in :func:`accuracy`.
      x: images (N, height, width, channels), floating-point, within the bounds.
      y: integer labels (N,).
      key: random key of the starts, from `jax.random.key`.
      eps: radius of the ball, as in :func:`pgd`: a scalar or a list (E,).
      step_size: as in :func:`pgd`, a scalar or one for each eps.
      steps: number of steps, at least one.
      init_radius: radius of the random start, as in :func:`pgd`; None is eps.
      bounds: the range of pixel values.
      loss: what the attack raises, as in :func:`pgd`; None is the cross-entropy.
      restarts: number of random starts.
      early_stop: whether to stop attacking an image once it is misclassified.
        Recommended if only the accuracy matters: it is faster and, with restarts,
        gives a tighter (lower) value. As it stops at a wrong first prediction of the
        model that supplies the gradients, it is refused with a substitute and with
        `top_k` above 1.
      norm: of the ball, as in :func:`pgd`.
      substitute: another model whose gradients the attack uses, for a transferred
        attack; None is the evaluated model itself.
      batch_size: the maximum number of images in one pass, as in :func:`accuracy`.
      top_k: how many of the largest logits may contain the label, or a tuple of K such
        numbers, as in :func:`accuracy`.

    Returns:
      Accuracies of the shape of eps, after an axis (K,) for a tuple `top_k`, and the
      fraction of images with a NaN logit, which count as wrong. `forward` and
      `backward` are the passes of the attack, summed over images, at most 2^31 - 1; the
      evaluation of the attacked images is not counted.

    Raises:
      ValueError: for the reasons of :func:`pgd` and :func:`accuracy`, or if
        `early_stop` is True with a substitute or with `top_k` above 1.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> x = jnp.array([0.25, 0.875]).reshape(2, 1, 1, 1)
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], -1)
      >>> result = absum_jax.pgd_accuracy(
      ...     brighter, x, jnp.array([0, 1]), key=jax.random.key(0),
      ...     eps=[0.2, 0.3, 0.4], step_size=0.1, steps=5,
      ... )
      >>> print(result.accuracy)
      [1.  0.5 0. ]

    References:
      Madry et al., `Towards Deep Learning Models Resistant to Adversarial Attacks
      <https://arxiv.org/abs/1706.06083>`_, 2018; Kanai et al., `Absum
      <https://arxiv.org/abs/1909.08830>`_, 2020, Tables 2 and 4
    """
    bounds = validation.check_bounds(bounds)
    aim = gradient.check_aim(loss, False, restarts, early_stop, norm)
    budget = gradient.check_budget(eps, step_size, steps, init_radius)
    validation.check_keys(key)
    x, y = check_evaluation(logits_fn, x, y, batch_size, top_k, bounds)
    if early_stop and (substitute is not None or np.max(top_k) > 1):
        raise ValueError(
            "`early_stop` must be False with a `substitute` or `top_k` above 1, as it "
            "ends an attack at a wrong first prediction of the attacked model, got "
            "True."
        )
    if substitute is not None:
        check_evaluation(substitute, x, y, batch_size, 1, name="substitute")
    fractions, record = pgd_fractions(
        (logits_fn, substitute), x, y, key, budget, bounds,
        batch_size=batch_size, top_k=top_k, aim=aim,
    )  # fmt: skip
    attacked = "logits_fn" if substitute is None else "substitute"
    gradient.check_not_futile(record, x.shape[0], aim, attacked)
    return counting.AttackAccuracy(
        budget.eps, fractions.correct, fractions.nan_logits, record.forward,
        record.backward,
    )  # fmt: skip
