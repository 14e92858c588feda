"""FGSM and projected gradient descent."""

import warnings
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.attacks._balls import NORMS
from absum_jax.attacks._descent import Aim, Budget, descend, image_keys
from absum_jax.attacks._objective import Loss, Record

# From a model, images, labels, keys of images, a budget, the bounds and an aim to
# attacked images and a record of each.
Method = Callable[..., tuple[chex.Array, Record]]


@_logits.compiled_with(static_argnames=("method", "aim"), like=0)
def _attack(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    keys: chex.PRNGKey | None,
    budget: Budget,
    bounds: tuple[chex.Numeric, chex.Numeric],
    *,
    method: Method,
    aim: Aim,
) -> tuple[chex.Array, Record]:
    return method(logits_fn, x, y, keys, budget, bounds, aim)


def check_budget(eps: Any, step_size: Any, steps: Any, init_radius: Any) -> Budget:
    """Returns a budget whose step sizes and radii have the shape of eps, () or (E,)."""
    eps = validation.check_nonnegative_list("eps", eps)

    def matching(name: str, value: Any) -> chex.Array:
        value = validation.check_nonnegative_list(name, value)
        if value.ndim and value.shape != eps.shape:
            raise ValueError(
                f"`{name}` must be a scalar or as many as `eps`, of shape {eps.shape}, "
                f"got shape {value.shape}."
            )
        return jnp.broadcast_to(value, eps.shape)

    validation.check_count("steps", steps)
    radius = eps if init_radius is None else matching("init_radius", init_radius)
    return Budget(eps, matching("step_size", step_size), jnp.asarray(steps), radius)


def check_aim(
    loss: Any, targeted: bool, restarts: Any, early_stop: bool = False,
    norm: str = "linf",
) -> Aim:  # fmt: skip
    """Returns the aim, refusing a loss that is not a function."""
    validation.check_choice("norm", norm, NORMS)
    if loss is not None and not callable(loss):
        raise ValueError(
            "`loss` must be a function of logits and labels, or None for the "
            f"cross-entropy, got {loss!r}."
        )
    return Aim(
        loss,
        validation.check_bool("targeted", targeted),
        validation.check_positive_int("restarts", restarts),
        validation.check_bool("early_stop", early_stop),
        norm,
    )


def check_not_probabilities(
    probabilities: Any, images: int, loss: Loss | None, model: str = "logits_fn"
) -> None:
    """Refuses models that returned probabilities for all images, if that matters.

    It does if the loss is the cross-entropy, which expects logits. Traced numbers of
    images with probabilities are not checked.
    """
    if (
        loss is None
        and validation.is_concrete(probabilities)
        and np.min(probabilities) == images
    ):
        raise ValueError(
            f"`{model}` must return logits, got probabilities, numbers in [0, 1] whose "
            "sum is 1; return their logarithms, or pass a `loss` for probabilities."
        )


def check_not_futile(
    record: Record, images: int, aim: Aim, model: str = "logits_fn", *,
    stacklevel: int = 3,
) -> None:  # fmt: skip
    """Refuses probabilities in place of logits, and warns of images without a gradient.

    Args:
      record: of all images, scalars or one for each eps; traced ones are not
        checked.
      images: how many images were attacked.
      aim: the aim of the attack.
      model: name of the argument that supplied the gradients.
      stacklevel: of the warning; by default that of the caller of a public function
        that calls this one directly.
    """
    if not all(map(validation.is_concrete, record)):
        return
    check_not_probabilities(record.probabilities, images, aim.loss, model)
    motionless = np.max(record.motionless)
    if motionless:
        warnings.warn(
            f"`{model}` had no gradient at {motionless} of {images} images, at which "
            "the attack took no step: their accuracy shows nothing. Rounding, "
            "`stop_gradient` and NaN remove the gradient; if a model is so certain "
            "that the cross-entropy has none, use `loss=absum_jax.margin_loss`.",
            stacklevel=stacklevel,
        )


def check_attacked(
    logits_fn: Any, x: Any, y: Any, bounds: Any
) -> tuple[chex.Array, chex.Array, tuple[Any, Any]]:
    """Checks the model, images, labels and bounds, and returns the last three."""
    _logits.check_logits_fn(logits_fn)
    bounds = validation.check_bounds(bounds)
    x = validation.check_images(x, bounds, batched=True)
    y = validation.check_labels(y, x)
    classes = _logits.check_logits(logits_fn, x, x.shape[0])
    validation.check_label_range(y, classes, f"`logits_fn` returns {classes} logits")
    return x, y, bounds


def over_eps(
    method: Method, logits_fn: Any, x: chex.Array, y: chex.Array,
    keys: chex.PRNGKey | None, budget: Budget, bounds: tuple[Any, Any], aim: Aim,
) -> tuple[chex.Array, Record]:  # fmt: skip
    """Attacks images for each eps of a budget, and adds up the records."""

    def one(budget: Budget) -> tuple[chex.Array, Record]:
        return _attack(logits_fn, x, y, keys, budget, bounds, method=method, aim=aim)

    each = jax.vmap(one, in_axes=(Budget(0, 0, None, 0),)) if budget.eps.ndim else one
    attacked, record = each(budget)
    return attacked, jax.tree.map(lambda each: each.sum(axis=-1), record)


def fgsm(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    eps: chex.Numeric,
    bounds: tuple[chex.Numeric, chex.Numeric] = (0.0, 1.0),
    loss: Loss | None = None,
    targeted: bool = False,
) -> chex.Array:
    r"""Attacks by the fast gradient sign method: one step of size eps from the image.

    .. math::
      \hat x = \operatorname{clip}(x + \varepsilon \operatorname{sign} \nabla_x L(x, y))

    For a random start, use :func:`pgd` with `steps=1`.

    Args:
      logits_fn: a callable from images to logits (batch, classes), in evaluation mode,
        as in :func:`accuracy`.
      x: images (batch, height, width, channels), floating-point, within the bounds.
      y: integer labels (batch,); the target classes, if targeted.
      eps: radius of the L-infinity ball, non-negative, in units of the pixels: a scalar
        or a list (E,).
      bounds: the range of pixel values, to which the result is clipped.
      loss: from logits (batch, classes) and labels (batch,) to losses (batch,); None is
        the cross-entropy.
      targeted: whether to lower the loss of the classes `y`.

    Returns:
      The attacked images (batch, height, width, channels), for a list of eps with a
      leading axis (E,); in at least float32. For eps = 0 they are the clipped images.

    Raises:
      ValueError: for the reasons of :func:`pgd`.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], -1)
      >>> x = jnp.array([0.25, 0.875]).reshape(2, 1, 1, 1)
      >>> absum_jax.fgsm(brighter, x, jnp.array([0, 1]), eps=0.25).ravel()
      Array([0.5  , 0.625], dtype=float32)

    References:
      Goodfellow et al., `Explaining and Harnessing Adversarial Examples
      <https://arxiv.org/abs/1412.6572>`_, 2014
    """
    aim = check_aim(loss, targeted, restarts=1)
    budget = check_budget(eps, eps, 1, 0.0)
    x, y, bounds = check_attacked(logits_fn, x, y, bounds)
    attacked, record = over_eps(descend, logits_fn, x, y, None, budget, bounds, aim)
    check_not_futile(record, x.shape[0], aim)
    return attacked


def pgd(
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
    targeted: bool = False,
    restarts: int = 1,
    early_stop: bool = False,
    norm: str = "linf",
) -> chex.Array:
    r"""Attacks by projected gradient descent in the L-infinity or L2 ball.

    From a start drawn uniformly at random around the image,

    .. math::
      \hat x \leftarrow \Pi\left(\hat x + \alpha \operatorname{sign}
      \nabla_{\hat x} L(\hat x, y)\right)

    is repeated for a number of steps, with the projection :math:`\Pi` onto the ball of
    radius eps and the bounds; the last iterate is returned. In the L2 ball, the
    gradient divided by its L2 norm takes the place of its sign. The noise of image i
    depends only on `jax.random.fold_in(key, i)`, not on eps: each of a list of eps has
    the result that it would have alone.

    Gradients are taken with respect to the images only. The result for an image does
    not depend on the other images of a batch or on padding, up to rounding, because a
    model in evaluation mode treats each image separately.

    Args:
      logits_fn: a callable from images to logits (batch, classes), in evaluation mode,
        as in :func:`accuracy`; a bfloat16 model is attacked in float32.
      x: images (batch, height, width, channels), floating-point, within the bounds.
      y: integer labels (batch,); the target classes, if targeted.
      key: random key of the starts, from `jax.random.key`; or a key for each image,
        (batch,), so that images have the same starts in any batch.
      eps: radius of the ball, non-negative, in units of the pixels: a scalar or a list
        (E,), all in one compiled call.
      step_size: :math:`\alpha`, non-negative: a scalar or one for each eps.
      steps: number of steps, at least one. A new number does not trigger recompilation.
      init_radius: the noise of the start is uniform in a ball of this radius and the
        same norm, and the start is projected; a scalar or one for each eps, 0 to start
        at the image, None for eps itself. The paper uses 2/255.
      bounds: the range of pixel values, in which the result lies without tolerance.
      loss: from logits (batch, classes) and labels (batch,) to losses (batch,), such as
        :func:`margin_loss`; None is the cross-entropy. Pass the same function object
        again to avoid recompilation.
      targeted: whether to lower the loss of the classes `y`.
      restarts: number of random starts; for each image, the result with the largest
        loss is returned.
      early_stop: whether to stop attacking an image once it is misclassified, and to
        end when all are. Restarts then prefer a misclassified image to one with a
        larger loss, so that accuracy never rises with steps or restarts.
      norm: `"linf"` or `"l2"`, of an image's change over all pixels and channels.

    Returns:
      The attacked images (batch, height, width, channels), for a list of eps with a
      leading axis (E,); in at least float32, in which the model receives them. For
      eps = 0 they are the clipped images. A pixel with a NaN gradient does not move.

    Raises:
      ValueError: if eps, `step_size` or `init_radius` is negative, empty or of another
        shape, `steps` or `restarts` is less than one, `loss` is not a function or
        returns another shape, the norm is unknown, the logits are probabilities without
        a `loss`, or for the reasons of :func:`accuracy`.

    Warns:
      UserWarning: if the loss had no gradient at an image in any step, so that the
        attack could not work there.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> brighter = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], -1)
      >>> x = jnp.array([0.25, 0.875]).reshape(2, 1, 1, 1)
      >>> attacked = absum_jax.pgd(
      ...     brighter, x, jnp.array([0, 1]), key=jax.random.key(0), eps=jnp.array(
      ...         [0.125, 0.25]), step_size=0.125, steps=4,
      ... )
      >>> print(attacked.reshape(2, 2))
      [[0.375 0.75 ]
       [0.5   0.625]]

    References:
      Madry et al., `Towards Deep Learning Models Resistant to Adversarial Attacks
      <https://arxiv.org/abs/1706.06083>`_, 2018; Kanai et al., `Absum
      <https://arxiv.org/abs/1909.08830>`_, 2020, "Robustness against PGD"
    """
    aim = check_aim(loss, targeted, restarts, early_stop, norm)
    budget = check_budget(eps, step_size, steps, init_radius)
    x, y, bounds = check_attacked(logits_fn, x, y, bounds)
    keys = image_keys(key, x.shape[0])
    attacked, record = over_eps(descend, logits_fn, x, y, keys, budget, bounds, aim)
    check_not_futile(record, x.shape[0], aim)
    return attacked
