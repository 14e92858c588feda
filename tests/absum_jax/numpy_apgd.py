"""Auto-PGD written as the paper's algorithm 1, image by image, in float64 NumPy."""

import itertools
from collections.abc import Callable

import numpy as np

# From one image to its loss and the gradient.
Oracle = Callable[[np.ndarray], tuple[float, np.ndarray]]


def project(z: np.ndarray, x: np.ndarray, eps: float, norm: str) -> np.ndarray:
    """The nearest point of the ball, clipped to [0, 1]."""
    if norm == "linf":
        return np.clip(np.clip(z, x - eps, x + eps), 0, 1)
    length = np.linalg.norm(z - x)
    return np.clip(x + (z - x) * min(1, eps / max(length, 1e-300)), 0, 1)


def ascend(
    oracle: Oracle,
    is_broken: Callable[[np.ndarray], bool],
    x: np.ndarray,
    start: np.ndarray,
    eps: float,
    steps: int,
    norm: str,
) -> tuple[np.ndarray, int]:
    """Returns the first misclassified point, or the best one, and the evaluations."""
    checks = [0, max(22 * steps // 100, 1)]
    while checks[-1] < steps:
        shorter = checks[-1] - checks[-2] - max(3 * steps // 100, 1)
        checks.append(checks[-1] + max(shorter, max(6 * steps // 100, 1)))

    size, halved = 2 * eps, True
    old, now = start, start
    loss, gradient = oracle(now)
    best, best_loss, best_gradient = now, loss, gradient
    losses, best_at_check = [loss], loss
    if is_broken(now):
        return now, 1
    for step in range(steps):
        if norm == "linf":
            direction = np.sign(gradient)
        else:
            direction = gradient / np.linalg.norm(gradient)
        z = project(now + size * direction, x, eps, norm)
        momentum = 1 if step == 0 else 0.75
        moved = now + momentum * (z - now) + (1 - momentum) * (now - old)
        old, now = now, project(moved, x, eps, norm)
        if is_broken(now):
            return now, step + 2
        loss, gradient = oracle(now)
        losses.append(loss)
        if loss > best_loss:
            best, best_loss, best_gradient = now, loss, gradient
        if step + 1 in checks:
            first = checks[checks.index(step + 1) - 1]
            window = losses[first : step + 2]
            raises = sum(b > a for a, b in itertools.pairwise(window))
            few = raises <= 0.75 * (len(window) - 1)
            stuck = not halved and best_loss <= best_at_check
            halved, best_at_check = few or stuck, best_loss
            if halved:
                size, now, gradient = size / 2, best, best_gradient
    return best, steps + 1
