"""Confidence intervals of an accuracy on a finite set of images."""

import math
import sys

from absum_jax import _validation as validation


def wilson_interval(share: float, images: int, z: float = 1.96) -> tuple[float, float]:
    r"""Computes the Wilson score interval of a fraction of successful trials.

    .. math::
      \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4 n^2}}{1 + z^2 / n}

    Trials must be independent. For an accuracy averaged over frequencies the interval
    is conservative, because a mean over several predictions for an image varies less
    than one prediction. For the worst of several accuracies it is optimistic, because
    the worst was selected on the same images.

    Args:
      share: the fraction of successes, in [0, 1].
      images: the number of trials, at least one.
      z: the number of standard deviations of a normal distribution, non-negative and
        finite; 1.96 is 95 %.

    Returns:
      The lower and upper end, as fractions in [0, 1].

    Raises:
      ValueError: if `share` is outside [0, 1], `images` is not a positive integer, or
        `z` is negative, NaN or infinite.

    Example:
      >>> import absum_jax
      >>> low, high = absum_jax.wilson_interval(0.9, 100)
      >>> print(f"{low:.3f} to {high:.3f}")
      0.826 to 0.945

    References:
      Wilson, `Probable Inference, the Law of Succession, and Statistical Inference
      <https://doi.org/10.1080/01621459.1927.10502953>`_, 1927
    """
    images = validation.check_positive_int("images", images, most=sys.maxsize)
    share = float(validation.check_nonnegative("share", share))
    z = float(validation.check_nonnegative("z", z, finite=True))
    if share > 1:
        raise ValueError(f"`share` must lie in [0, 1], got {share}.")
    # In terms of the weight of 1/2 in the centre, as a huge z squared is infinite.
    weight = 1 / (1 + z * z / images)
    centre = share * weight + (1 - weight) / 2
    margin = math.hypot(
        z * weight * math.sqrt(share * (1 - share) / images), (1 - weight) / 2
    )
    return max(0.0, centre - margin), min(1.0, centre + margin)
