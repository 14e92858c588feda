"""Sensitivity of a model to each frequency, from its input gradients."""

import chex
import jax
import jax.numpy as jnp

from absum_jax import _logits, fourier
from absum_jax.attacks._objective import Loss, objective
from absum_jax.attacks.gradient import check_aim, check_not_probabilities
from absum_jax.evaluation import counting
from absum_jax.evaluation.clean import BATCH_SIZE, check_evaluation
from absum_jax.prox import accumulation_dtype


@_logits.compiled_with(static_argnames=("batch_size", "loss"))
def _sensitivity(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    batch_size: int,
    loss: Loss | None,
) -> tuple[chex.Array, chex.Array]:
    """Returns the sensitivity, and how many images the model gave probabilities."""
    dtype = accumulation_dtype(x)

    def add(
        total: chex.Array, batch: counting.Batches
    ) -> tuple[chex.Array, chex.Array]:
        total_loss = objective(logits_fn, batch.y, loss)
        gradients, (_, probabilities) = jax.grad(total_loss, has_aux=True)(
            batch.x.astype(dtype)
        )
        is_image = batch.valid[:, None, None, None]
        powers = fourier.powers(jnp.where(is_image, gradients, 0))
        total += powers.mean(axis=3).sum(axis=0)
        return total, (probabilities & batch.valid).sum(dtype=jnp.int32)

    batches = counting.in_batches(x, y, batch_size)
    start = jnp.zeros(x.shape[1:3], dtype)
    total, probabilities = jax.lax.scan(add, start, batches)
    return jnp.fft.fftshift(total / x.shape[0]), probabilities.sum(dtype=jnp.int32)


def fourier_sensitivity(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    loss: Loss | None = None,
    batch_size: int = BATCH_SIZE,
) -> chex.Array:
    r"""Computes the mean power of a model's input gradients at each frequency.

    .. math::
      S_{lm} = \frac{1}{h w} \left\langle
      |\mathcal{F}(\nabla_x L(x, y))_{lm}|^2 \right\rangle

    averaged over images and channels: the :func:`power_spectrum` of the gradients of
    the loss, with one backward pass for each image. To first order, it is the mean
    squared change of the loss under a perturbation of unit norm in one channel that has
    only this frequency, :math:`e^{2 \pi i (l p / h + m q / w)} / \sqrt{h w}`. Where
    :func:`single_fourier_accuracy` needs a pass over the images for each frequency,
    this needs one for all of them.

    Args:
      logits_fn: a callable from images to logits, as in :func:`accuracy`; a bfloat16
        model receives images in float32.
      x: images (N, height, width, channels), floating-point.
      y: integer labels (N,).
      loss: from logits (batch, classes) and labels (batch,) to losses (batch,), such as
        :func:`margin_loss`; None is the cross-entropy. Pass the same function object
        again to avoid recompilation.
      batch_size: the maximum number of images in one pass, as in :func:`accuracy`.

    Returns:
      Powers (height, width) in at least float32, in squared units of the loss per
      squared unit of the pixels, with low frequencies in the center: frequency zero is
      at (height // 2, width // 2). If the gradient at an image is NaN, all are NaN.

    Raises:
      ValueError: for the reasons of :func:`accuracy`, if the logits are probabilities
        without a `loss`, or if `loss` is not a function or returns another shape.

    Example:
      >>> import absum_jax, jax.numpy as jnp
      >>> x = jnp.full((2, 1, 4, 1), 0.5)
      >>> stripes = jnp.array([1.0, -1.0, 1.0, -1.0])
      >>> fine = lambda x: x[:, 0, :, 0] @ jnp.stack([-stripes, stripes], axis=-1) / 2
      >>> absum_jax.fourier_sensitivity(
      ...     fine, x, jnp.array([0, 1]), loss=absum_jax.margin_loss
      ... )  # frequencies -2, -1, 0, 1
      Array([[4., 0., 0., 0.]], dtype=float32)

    References:
      Yin et al., `A Fourier Perspective on Model Robustness
      <https://arxiv.org/abs/1906.08988>`_, 2019; Krishnamachari et al., `Fourier
      Sensitivity and Regularization of Computer Vision Models
      <https://openreview.net/forum?id=VmTYgjYloM>`_, 2023
    """
    loss = check_aim(loss, targeted=False, restarts=1).loss
    x, y = check_evaluation(logits_fn, x, y, batch_size, 1)
    sensitivity, probabilities = _sensitivity(
        logits_fn, x, y, batch_size=batch_size, loss=loss
    )
    check_not_probabilities(probabilities, x.shape[0], loss)
    return sensitivity
